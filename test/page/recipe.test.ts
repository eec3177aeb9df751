import { expect, test } from "bun:test";
import { join } from "node:path";
import { createPages } from "../../src/page/pages.ts";
import { launchBrowser } from "../support/browser.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";

/** The page that the README shows. */
const PAGE = join(import.meta.dir, "../recipes/chat.html");

describeWith("chromium")("the chat client on a page", () => {
  test("sends, and shows what is answered", async () => {
    const html = await Bun.file(PAGE).text();
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
