import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { gatherCrowd } from "../support/browser.ts";
import { settle } from "../support/clock.ts";
import { describeWith } from "../support/require.ts";
import { startSite } from "../support/site.ts";
import { getAnswer } from "../support/writing.ts";

/** Browsers are slow where others use the processor, too. */
setDefaultTimeout(60_000);

/** How long a token lives, and for how long the page is watched. */
const TOKEN_TTL_MS = 20_000;
const WATCHED_MS = 60_000;
/** Both clocks, the server's and the page's, move by so much at once. */
const STEP_MS = 1_000;
const MESSAGES_PER_STEP = 4;

/** What the page keeps for the test. */
interface Watched {
  readonly states: readonly string[];
  readonly conversation: { readonly messages: readonly { readonly content: string }[] };
  /** Resolves when the page shows this message. */
  shown(content: string): Promise<void>;
}

describeWith("chromium")("in Chromium", () => {
  const crowd = gatherCrowd();
  afterAll(() => crowd[Symbol.asyncDispose]());

  test("tokens of 20 s keep a page connected for a minute of the clock, without a missed or doubled message", async () => {
    await using site = startSite({ demo: false });
    await using visitor = await site.openVisitor();
    await getAnswer(site, visitor, "alice");
    const sent = ["begin", "answer"];
    const send = async () => {
      const content = String(sent.length);
      sent.push(content);
      visitor.send({ type: "ANON_TO_USER", to: "alice", content, ref: content });
      return visitor.next((frame) => frame.type === "ANON_TO_USER" && frame.content === content);
    };
    const { from: visitorId } = await send();

    const { context, complaints, open } = await crowd.stranger();
    await context.clock.install({ time: site.clock.nowMs() });
    const page = await open();
    let sockets = 0;
    let tokens = 0;
    page.on("websocket", () => sockets++);
    await page.exposeFunction("newToken", () => {
      tokens++;
      return site.token("alice", { ttlMs: TOKEN_TTL_MS, claims: { jti: String(tokens) } });
    });
    const showsLast = () =>
      page.evaluate(
        (last) => (window as unknown as { watched: Watched }).watched.shown(last),
        sent.at(-1) as string,
      );
    const opened = () =>
      site.logLines.filter((line) => /"socket_opened".*"user":"alice"/.test(line)).length;
    await page.goto(site.origin);
    // Later than loading can have taken; nothing else on the page depends on the time.
    await page.clock.pauseAt(site.clock.nowMs() + 3_600_000);
    await page.evaluate(async (partner) => {
      const module = "/client.js";
      const { createChatClient } = (await import(
        module
      )) as typeof import("../../src/client/mod.ts");
      const { newToken } = window as unknown as { newToken: () => Promise<string> };
      const client = createChatClient({ getToken: newToken });
      const conversation = client.conversation(partner);
      const states: string[] = [];
      client.on("state", ({ status }) => states.push(status));
      const has = (content: string) =>
        conversation.messages.some((message) => message.content === content);
      const shown = (content: string) =>
        new Promise<void>((resolve) => {
          if (has(content)) return resolve();
          const stop = client.on("change", () => {
            if (!has(content)) return;
            stop();
            resolve();
          });
        });
      Object.assign(window, { watched: { states, conversation, shown } });
    }, visitorId as string);
    // The client's first attempt is a timer, too.
    await page.clock.runFor(1);
    await showsLast();

    for (let passedMs = 0; passedMs < WATCHED_MS; passedMs += STEP_MS) {
      for (let n = 0; n < MESSAGES_PER_STEP; n++) await send();
      site.clock.advance(STEP_MS);
      await page.clock.runFor(STEP_MS);
      await showsLast();
      // A renewal takes no time of the clock.
      while (opened() < tokens) await settle(1);
    }
    const seen = await page.evaluate(() => {
      const { conversation, states } = (window as unknown as { watched: Watched }).watched;
      return { states, contents: conversation.messages.map(({ content }) => content) };
    });

    expect(seen.contents).toEqual(sent);
    expect(seen.states).toEqual(["open"]);
    expect(sockets).toBeGreaterThanOrEqual(WATCHED_MS / TOKEN_TTL_MS);
    expect(tokens).toBe(sockets);
    expect(site.logLines.filter((line) => line.includes('"code":4001'))).toEqual([]);
    expect(complaints).toEqual([]);
  });
});
