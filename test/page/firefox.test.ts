import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Embedding, startEmbedding } from "../support/embedding.ts";
import { type Firefox, launchFirefox, type Tab } from "../support/firefox.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { startSite } from "../support/site.ts";

/** Browsers are slow where others use the processor, too. */
setDefaultTimeout(120_000);

const ENTER = "\uE007";
const ESCAPE = "\uE00C";
const LAUNCHER = 'document.querySelector("body > div").shadowRoot.querySelector(".launcher")';
const LOG = `document.querySelector('[role="log"]')?.textContent`;
const SENT = `document.querySelector('[data-status="sent"], [data-status="read"]')`;

describeWith("firefox-esr", "openssl")("in Firefox", () => {
  let embedding: Embedding;
  let site: TestServer;
  let firefox: Firefox;
  beforeAll(async () => {
    embedding = await startEmbedding();
    site = startSite();
    const { chat, sameSite, crossSite, foreign } = embedding;
    const origins = [chat, sameSite, crossSite, foreign];
    firefox = await launchFirefox({ hosts: origins.map((origin) => new URL(origin).hostname) });
  });
  afterAll(async () => {
    await firefox?.[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
    await embedding[Symbol.asyncDispose]();
  });

  async function write(tab: Tab, text: string): Promise<void> {
    await tab.until('document.querySelector("textarea")');
    await tab.click('document.querySelector("textarea")');
    await tab.type(text + ENTER);
  }

  test("a visitor writes, a user signs in and answers, and both are there after a reload", async () => {
    const visitor = await firefox.open(`${site.origin}/chat/fay`);
    await write(visitor, "Hello from Firefox");
    await visitor.until(SENT);
    const inbox = await firefox.open(`${site.origin}/inbox`);
    await inbox.until('document.querySelector("#credential")');
    await inbox.click('document.querySelector("#credential")');
    await inbox.type(`fay${ENTER}`);
    await inbox.until('document.querySelector("[data-peer]")');
    await inbox.click('document.querySelector("[data-peer]")');
    await inbox.until(`${LOG}?.includes("Hello from Firefox")`);
    await write(inbox, "Hello back");
    await inbox.until(SENT);
    await visitor.until(`${LOG}.includes("Hello back")`);
    // In the same browser both are who they were: each page has a cookie of its own.
    await visitor.navigate(`${site.origin}/chat/fay`);
    await visitor.until(`${LOG}?.includes("Hello back")`);
    await inbox.navigate(`${site.origin}/inbox`);
    await inbox.until('document.querySelector("[data-peer]")');
    expect(await inbox.evaluate("document.cookie")).toBe("");
  });

  test.each(["sameSite", "crossSite"] as const)(
    "%s: a visitor writes from the host's own site, and finds the chat again after a reload",
    async (where) => {
      const tab = await firefox.open(embedding[where]);
      const openChat = async () => {
        await tab.until('document.querySelector("body > div")?.shadowRoot');
        await tab.click(LAUNCHER);
        return tab.frame();
      };
      const frame = await openChat();
      const text = `Hello from ${where}`;
      await write(frame, text);
      await frame.until(SENT);
      const { body } = await embedding.server.ask("/api/chats", { user: "alice" });
      const [{ peer, lastMessage }] = body.chats;
      expect(lastMessage.content).toBe(text);
      await using alice = await embedding.server.openUser("alice");
      alice.send({ type: "USER_TO_ANON", to: peer, content: `Hi, ${where}` });
      await frame.until(`${LOG}.includes("Hi, ${where}")`);
      await frame.type(ESCAPE);
      await tab.until(`${LAUNCHER}.ariaExpanded === "false"`);

      await tab.navigate(embedding[where]);
      const again = await openChat();
      await again.until(
        `${LOG}?.includes(${JSON.stringify(text)}) && ${LOG}.includes("Hi, ${where}")`,
      );
    },
  );

  test("a page that isn't allowed gets no frame", async () => {
    const tab = await firefox.open(embedding.foreign);
    await tab.until('document.querySelector("body > div")?.shadowRoot');
    await tab.click(LAUNCHER);
    const frame = await tab.frame();
    expect(await frame.evaluate('document.querySelector("textarea")')).toBeNull();
  });
});
