import { expect, test } from "bun:test";
import { type ChatClient, type ClientSocket, createChatClient } from "../../src/client/mod.ts";
import { visitorIdOf } from "../support/people.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { Frame } from "../support/socket.ts";
import { getAnswer } from "../support/writing.ts";
import { deploy, type Deployment } from "./scene.ts";

const PAIRS = 20;
/** Longest time without a socket, in milliseconds. */
const MAX_GAP_MS = 5_000;
/** Time between two messages of one person, in milliseconds. */
const PAUSE_MS = 150;

/** A client that writes without end, what it has written, and how long it was away. */
interface Writer extends Disposable {
  readonly client: ChatClient;
  readonly written: readonly string[];
  /** Every time without a socket, in milliseconds, after the first one. */
  readonly gapsMs: readonly number[];
  /** Resolves when it is connected. */
  readonly connected: Promise<void>;
  /** Writes no more; resolves when everything is acknowledged. */
  finish(): Promise<void>;
}

function startWriter(client: ChatClient, name: string, peer: string): Writer {
  const conversation = client.conversation(peer);
  const written: string[] = [];
  const gapsMs: number[] = [];
  const { promise: connected, resolve } = Promise.withResolvers<void>();
  let lostAtMs: number | undefined;
  client.on("state", ({ status }) => {
    if (status === "open") {
      if (lostAtMs !== undefined) gapsMs.push(performance.now() - lostAtMs);
      lostAtMs = undefined;
      resolve();
    } else if (written.length > 0) lostAtMs ??= performance.now();
  });
  const writing = setInterval(() => {
    if (client.state.status === "connecting" && written.length === 0) return;
    written.push(`${name} ${written.length}`);
    conversation.send(written.at(-1) as string);
  }, PAUSE_MS);
  return {
    ...{ client, written, gapsMs, connected },
    async finish() {
      clearInterval(writing);
      while (conversation.messages.some(({ status }) => status === "pending")) await Bun.sleep(20);
    },
    [Symbol.dispose]() {
      clearInterval(writing);
      client.dispose();
    },
  };
}

/** A client without a browser: with the proxy's certificate, and with a visitor's cookie. */
function startClient(site: Deployment, as: { user: string } | { cookie: string }): ChatClient {
  const { origin, front } = site;
  const headers = "cookie" in as ? { Cookie: as.cookie, Origin: origin } : undefined;
  const tls = { ca: front.ca };
  return createChatClient({
    url: origin,
    ...("user" in as && { getToken: () => site.token(as.user) }),
    runtime: {
      keepsCookies: true,
      fetch: (url, init) =>
        fetch(url, { ...init, tls, headers: { ...(init.headers as object), ...headers } }),
      openSocket: (url) =>
        new WebSocket(url, {
          tls,
          ...(headers && { headers }),
        } as unknown as string[]) as ClientSocket,
    },
  });
}

/** All messages of a chat, as the server has them. */
async function everything(site: Deployment, user: string, visitor: string): Promise<string[]> {
  const all: Frame[] = [];
  for (;;) {
    const after = all.at(-1)?.id ?? "0";
    const path = `/api/chats/${visitor}/messages?limit=200&after=${after}`;
    const { body } = await site.ask(path, { user });
    all.push(...body.messages);
    if (!body.more) return all.map(({ content }) => content);
  }
}

for (const name of ["nginx", "haproxy"] as const) {
  describeWith(
    name,
    "openssl",
    "redis-server",
  )(`two instances behind ${name}`, () => {
    test(`are replaced one after the other under load: nothing is lost, and everybody is back within ${MAX_GAP_MS / 1000} s`, async () => {
      await using redis = await startRedis();
      await using site = await deploy(name, { count: 2, environment: { REDIS_URL: redis.url } });
      const pairs = await Promise.all(
        Array.from({ length: PAIRS }, async (_, n) => {
          const user = `user-${n}`;
          const cookie = await site.visitorCookie();
          const visitor = visitorIdOf(cookie);
          await using socket = await site.openVisitor(cookie);
          await getAnswer(site, socket, user);
          return { user, cookie, visitor };
        }),
      );
      using stack = new DisposableStack();
      const writers = pairs.flatMap(({ user, cookie, visitor }) => [
        stack.use(startWriter(startClient(site, { user }), `u-${user}`, visitor)),
        stack.use(startWriter(startClient(site, { cookie }), `v-${user}`, user)),
      ]);
      await Promise.all(writers.map(({ connected }) => connected));
      for (const at of [0, 1]) {
        await Bun.sleep(1_500);
        await site.replace(at);
      }
      await Bun.sleep(1_500);
      await Promise.all(writers.map((writer) => writer.finish()));

      const gaps = writers.flatMap(({ gapsMs }) => gapsMs);
      // Everybody was at one of them.
      expect(gaps.length).toBeGreaterThanOrEqual(writers.length);
      expect(Math.max(...gaps)).toBeLessThan(MAX_GAP_MS);
      for (const [n, { user, visitor }] of pairs.entries()) {
        const kept = await everything(site, user, visitor);
        for (const { written } of writers.slice(2 * n, 2 * n + 2)) {
          const own = kept.filter((content) => content.startsWith(`${written[0]?.split(" ")[0]} `));
          expect(own).toEqual([...written]);
          expect(own.length).toBeGreaterThan(20);
        }
      }
      console.log(
        `${name}: ${gaps.length} gaps, at most ${Math.round(Math.max(...gaps))} ms; ${writers.flatMap(({ written }) => written).length} messages`,
      );
    }, 60_000);
  });
}
