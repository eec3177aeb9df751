import { expect, test } from "bun:test";
import { startServer } from "../support/server.ts";

test("a user and a visitor write to each other", async () => {
  await using server = startServer();
  const visitor = await server.openVisitor();
  const user = await server.openUser("alice");
  visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", nickname: "Vis", ref: "1" });
  const got = await user.next();
  expect(got).toMatchObject({
    type: "ANON_TO_USER",
    to: "alice",
    content: "Hello",
    nickname: "Vis",
  });
  expect(await visitor.next((frame) => frame.type === "ACK")).toMatchObject({
    ref: "1",
    id: got.id,
  });
  user.send({ type: "USER_TO_ANON", to: got.from, content: "Hi", ref: "2" });
  expect(await visitor.next((frame) => frame.type === "USER_TO_ANON")).toMatchObject({
    from: "alice",
    to: got.from,
    content: "Hi",
    chatId: got.from,
  });
});
