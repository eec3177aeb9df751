import { expect, test } from "bun:test";
import { createPages } from "../../src/page/pages.ts";
import { launchBrowser } from "../support/browser.ts";
import { visitorIdOf } from "../support/people.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";
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

describeWith("chromium")("the chat client on a page", () => {
  test("sends, and shows what is answered", async () => {
    const html = await Bun.file(`${import.meta.dir}/chat.html`).text();
    const pages = createPages({ demo: false });
    pages.routes.get("/a-page-of-yours", (c) => c.html(html));
    await using site = startServer({ pages });
    await using browser = await launchBrowser();
    const page = await browser.newPage();
    const logged: string[] = [];
    page.on("console", (message) => logged.push(message.text()));
    await using alice = await site.openUser("alice");
    await page.goto(`${site.origin}/a-page-of-yours`);
    const { from } = await alice.next(({ content }) => content === "Hello");
    const answered = page.waitForEvent("console", (message) => message.text() === "Hi");
    alice.send({ type: "USER_TO_ANON", to: from, content: "Hi" });
    await answered;
    expect(logged).toContain("open");
  }, 20_000);
});
