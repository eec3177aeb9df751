/**
 * What the test suite proves by a clock that it moves, once more by the machine's: the soak runs this file with
 * `bun test`, and by its name alone it is in no other run.
 */
import { expect, test } from "bun:test";
import { systemClock } from "../../src/lib/clock.ts";
import { createPages } from "../../src/page/pages.ts";
import { collectComplaints, launchBrowser } from "../support/browser.ts";
import type { FakeClock } from "../support/clock.ts";
import { startInstance } from "../support/process.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { setScene, talkDuring } from "../support/scene.ts";
import { startServer } from "../support/server.ts";

/** How long a token lives, and for how long the page is watched. */
const TOKEN_TTL_MS = 20_000;
const WATCHED_MS = Math.min(1, Number(process.env.SOAK_MINUTES || 10)) * 60_000;
const MESSAGE_INTERVAL_MS = 200;
const FROZEN_MS = 5_000;

interface Shown {
  readonly messages: readonly { readonly content: string }[];
}

describeWith("chromium")("in Chromium", () => {
  test("tokens of 20 s keep a page connected for a minute, without a missed or doubled message", async () => {
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
    await page.waitForFunction((wanted) => {
      const { conversation } = window as unknown as { conversation: Shown };
      return conversation.messages.at(-1)?.content === wanted;
    }, sent.at(-1));
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
    expect(sockets).toBeGreaterThanOrEqual(Math.ceil(WATCHED_MS / TOKEN_TTL_MS));
    expect(complaints).toEqual([]);
  }, 120_000);
});

describeWith("redis-server")("two servers on one Redis", () => {
  test("Redis is frozen for five seconds in the middle of a conversation", async () => {
    await using redis = await startRedis();
    const environment = { REDIS_URL: redis.url };
    await using scene = await setScene([startInstance(environment), startInstance(environment)]);
    await talkDuring(scene, async () => {
      redis.freeze();
      await Bun.sleep(FROZEN_MS);
      redis.thaw();
    });
  }, 60_000);
});
