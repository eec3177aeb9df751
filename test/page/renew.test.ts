import { expect, test } from "bun:test";
import { systemClock } from "../../src/lib/clock.ts";
import { createPages } from "../../src/page/pages.ts";
import { collectComplaints, launchBrowser } from "../support/browser.ts";
import type { FakeClock } from "../support/clock.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";

/** How long a token lives, and how long it goes on. */
const TOKEN_TTL_MS = 20_000;
const WATCHED_MS = 60_000;
const MESSAGE_INTERVAL_MS = 200;

describeWith("chromium")("in Chromium, by the real clock", () => {
  test("tokens of 20 s keep a page connected for a minute, and it misses and doubles nothing", async () => {
    await using server = startServer({
      clock: systemClock as FakeClock,
      pages: createPages({ demo: false }),
    });
    await using visitor = await server.openVisitor();
    visitor.send({ type: "ANON_TO_USER", to: "alice", content: "0" });
    const visitorId = (await visitor.next(({ content }) => content === "0")).from as string;

    const browser = await launchBrowser();
    const context = await browser.newContext();
    const complaints = collectComplaints(context);
    const page = await context.newPage();
    let sockets = 0;
    page.on("websocket", () => sockets++);
    await page.exposeFunction("newToken", () => server.token("alice", { ttlMs: TOKEN_TTL_MS }));
    await page.goto(server.origin);
    await page.evaluate(async (peer) => {
      const module = "/client.js";
      const { createChatClient } = (await import(
        module
      )) as typeof import("../../src/client/mod.ts");
      const { newToken } = window as unknown as { newToken: () => Promise<string> };
      const client = createChatClient({ getToken: newToken });
      const states: string[] = [];
      client.on("state", ({ status }) => states.push(status));
      Object.assign(window, { states, conversation: client.conversation(peer) });
      await new Promise<void>((resolve) => {
        client.on("state", ({ status }) => status === "open" && resolve());
      });
    }, visitorId);

    const sent = ["0"];
    const endMs = performance.now() + WATCHED_MS;
    while (performance.now() < endMs) {
      const content = String(sent.length);
      visitor.send({ type: "ANON_TO_USER", to: "alice", content, ref: content });
      sent.push(content);
      await visitor.next((frame) => frame.type === "ACK" && frame.ref === content);
      await Bun.sleep(MESSAGE_INTERVAL_MS);
    }
    const last = sent.at(-1);
    await page.waitForFunction((wanted) => {
      const { conversation } = window as unknown as { conversation: Shown };
      return conversation.messages.at(-1)?.content === wanted;
    }, last);
    const seen = await page.evaluate(() => {
      const { conversation, states } = window as unknown as {
        conversation: Shown;
        states: string[];
      };
      return { states, contents: conversation.messages.map(({ content }) => content) };
    });
    await browser.close();

    expect(seen.contents).toEqual(sent);
    expect(seen.states).toEqual(["open"]);
    expect(sockets).toBeGreaterThanOrEqual(3);
    expect(complaints).toEqual([]);
  }, 90_000);
});

interface Shown {
  readonly messages: readonly { readonly content: string }[];
}
