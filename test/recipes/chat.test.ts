import { expect, test } from "bun:test";
import { visitorIdOf } from "../support/people.ts";
import { startProgram } from "./program.ts";

test("the chat as a library: a visitor writes, the user answers, both read it later", async () => {
  await using app = await startProgram("chat");
  const cookie = await app.visitorCookie();
  await using visitor = await app.openVisitor(cookie);
  await using alice = await app.openUser("alice");
  visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello" });
  const received = await alice.next(({ type }) => type === "ANON_TO_USER");
  expect(received).toMatchObject({ content: "Hello", from: visitorIdOf(cookie) });
  alice.send({ type: "USER_TO_ANON", to: received.from, content: "Hi" });
  await visitor.next(({ content }) => content === "Hi");
  const { body } = await app.ask("/api/chats/alice/messages", { cookie });
  expect(body.messages.map(({ content }: { content: string }) => content)).toEqual(["Hello", "Hi"]);
  expect((await app.ask("/anything")).body.code).toBe("not_found");
});
