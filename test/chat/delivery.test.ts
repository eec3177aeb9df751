import { expect, test } from "bun:test";
import { openRedis } from "../../src/open.ts";
import { fakeClock, settle } from "../support/clock.ts";
import type { People } from "../support/people.ts";
import { startInstance } from "../support/process.ts";
import { startProxy } from "../support/proxy.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";
import type { Frame, TestSocket } from "../support/socket.ts";
import { createTab, idOf, type Tab } from "../support/tab.ts";
import { startUpstashBridge } from "../support/upstash.ts";

/** One visitor and one user, with tabs on both of two servers that share a Redis. */
interface Scene extends AsyncDisposable {
  readonly here: People;
  readonly there: People;
  /** The visitor's two tabs, one here and one there. */
  readonly visitor: readonly [Tab, Tab];
  /** The user's three tabs: one here, two there. */
  readonly user: readonly [Tab, Tab, Tab];
  readonly sockets: readonly TestSocket[];
}

const USER = "alice";

type Server = People & AsyncDisposable;

async function setScene(servers: readonly [Promise<Server>, Promise<Server>]): Promise<Scene> {
  const [here, there] = await Promise.all(servers);
  const cookie = await here.visitorCookie();
  await begin(createTab(here, { cookie }));
  const tab = (people: People, who: Tab["who"]) => createTab(people, who);
  const visitor = [tab(here, { cookie }), tab(there, { cookie })] as const;
  const user = [here, there, there].map((people) => tab(people, { user: USER }));
  const tabs = [...visitor, ...user];
  await Promise.all(tabs.map((one) => one.resume([])));
  return {
    ...{ here, there, visitor },
    user: user as unknown as Scene["user"],
    sockets: tabs.map(({ socket }) => socket as TestSocket),
    async [Symbol.asyncDispose]() {
      await Promise.all([here, there].map((one) => one[Symbol.asyncDispose]()));
    },
  };
}

/** Writes first, so that the user can answer; nobody has a socket yet. */
async function begin(visitor: Tab): Promise<void> {
  await visitor.resume([]);
  await visitor.say(USER, "begin");
  await visitor.leave();
}

/** The messages that came over a socket, in the order in which they came. */
function cameOver({ frames }: TestSocket): { id: string; content: string }[] {
  return frames.filter(({ content }) => content !== undefined) as never;
}

/** Waits until every socket has this, and then looks at what else they have. */
async function expectSame({ sockets }: Scene, last: readonly string[], said: string[][]) {
  for (const socket of sockets) {
    for (const content of last) await socket.next((frame) => frame.content === content);
  }
  const [first = []] = sockets.map(cameOver);
  const ids = first.map(({ id }) => Number(id));
  expect(ids).toEqual(ids.toSorted((a, b) => a - b));
  expect(new Set(ids).size).toBe(ids.length);
  for (const socket of sockets) expect(cameOver(socket)).toEqual(first as never);
  for (const one of said) {
    const mine = new Set(one);
    expect(first.map(({ content }) => content).filter((text) => mine.has(text))).toEqual(one);
  }
  expect(first).toHaveLength(said.flat().length);
}

/** The next frame that matches, whoever else waits for it. */
function sees(socket: TestSocket, matches: (frame: Frame) => boolean): Promise<void> {
  const before = socket.frames.length;
  const { promise, resolve } = Promise.withResolvers<void>();
  let count = 0;
  socket.onFrame((frame) => {
    if (count++ >= before && matches(frame)) resolve();
  });
  return promise;
}

/** Both talk without a pause while something happens, and a little longer; nothing of it is lost, doubled or turned. */
async function talkDuring(
  scene: Scene,
  happens: (sees: (matches: (frame: Frame) => boolean) => Promise<void>) => Promise<void>,
): Promise<void> {
  const [visitor] = scene.visitor;
  const [, user] = scene.user;
  let isOver = false;
  const talk = async (tab: Tab, to: string, name: string) => {
    const said: string[] = [];
    const sayNext = async () => {
      said.push(`${name}${said.length}`);
      await tab.say(to, said.at(-1) as string);
    };
    while (!isOver) await sayNext();
    for (let n = 0; n < 20; n++) await sayNext();
    return said;
  };
  const talking = Promise.all([talk(visitor, USER, "v"), talk(user, idOf(visitor.who), "u")]);
  const last = visitor.socket as TestSocket;
  await last.next(({ content }) => content === "v10");
  await happens((matches) => sees(last, matches));
  isOver = true;
  const said = await talking;
  await expectSame(
    scene,
    said.map((one) => one.at(-1) as string),
    said,
  );
  const path = `/api/chats/${idOf(visitor.who)}/messages?limit=200`;
  const answers = [
    await scene.here.ask(path, { user: USER }),
    await scene.there.ask(path, { user: USER }),
  ];
  expect(answers[0]?.body).toEqual(answers[1]?.body);
}

async function contract(scene: Scene, messages: number): Promise<void> {
  const [visitor, otherTab] = scene.visitor;
  const [userHere, userThere] = scene.user;
  const visitorId = idOf(visitor.who);
  const said = { v: [] as string[], u: [] as string[] };
  for (let n = 0; n < messages; n++) {
    said.v.push(`v${n}`);
    said.u.push(`u${n}`);
  }
  await Promise.all([
    ...said.v.map((content) => visitor.say(USER, content)),
    ...said.u.map((content) => userThere.say(visitorId, content)),
  ]);
  const last = messages - 1;
  await expectSame(scene, [`v${last}`, `u${last}`], [said.v, said.u]);

  const [newest] = cameOver(otherTab.socket as TestSocket).slice(-1);
  userHere.socket?.send({ type: "MARK_AS_READ", chatId: visitorId });
  for (const socket of scene.sockets) {
    expect(await socket.next(({ type }) => type === "READ")).toEqual({
      ...{ type: "READ", chatId: visitorId, by: USER, upTo: newest?.id },
    });
  }

  const block = `/api/chats/${visitorId}/block`;
  await scene.there.ask(block, { method: "PUT", user: USER });
  await expect(visitor.say(USER, "blocked")).rejects.toThrow("blocked");
  await scene.here.ask(block, { method: "DELETE", user: USER });
  await visitor.say(USER, "the end");
  await expectSame(scene, ["the end"], [[...said.v, "the end"], said.u]);
}

describeWith("redis-server")("two servers on one Redis", () => {
  async function withRedis(
    args: readonly string[],
    run: (redis: TestRedis, scene: Scene) => Promise<void>,
  ): Promise<void> {
    await using redis = await startRedis(args);
    const environment = { REDIS_URL: redis.url };
    await using scene = await setScene([startInstance(environment), startInstance(environment)]);
    await run(redis, scene);
  }
  const LASTING = ["--appendonly", "yes", "--appendfsync", "always"];

  test(
    "natively: every socket of both receives every message once and in one order; READ and blocks",
    () => withRedis([], (_, scene) => contract(scene, 200)),
    20_000,
  );

  test("over Upstash: the same", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    const environment = {
      UPSTASH_REDIS_REST_URL: bridge.url,
      UPSTASH_REDIS_REST_TOKEN: bridge.token,
    };
    await using scene = await setScene([startInstance(environment), startInstance(environment)]);
    await contract(scene, 40);
  }, 30_000);

  test(
    "Redis is killed and started again in the middle of a conversation",
    () =>
      withRedis(LASTING, (redis, scene) =>
        talkDuring(scene, async (sees) => {
          const failed = sees(({ code }) => code === "unavailable");
          await redis.kill();
          await failed;
          await redis.restart();
        }),
      ),
    30_000,
  );

  test("Redis is frozen for five seconds of the clock in the middle of a conversation", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    const clock = fakeClock();
    const startOne = async () => {
      const { store, chat } = await openRedis({ url: proxy.url }, { clock, log: () => {} });
      return startServer({ store, history: chat, clock, limits: { messagesPerSecond: 0 } });
    };
    await using scene = await setScene([startOne(), startOne()]);
    // Ten times as fast as the machine's: Redis still answers in time.
    const timer = setInterval(() => clock.advance(20), 2);
    using _ = { [Symbol.dispose]: () => clearInterval(timer) };
    await talkDuring(scene, async (sees) => {
      const failed = sees(({ code }) => code === "unavailable");
      const endMs = clock.monotonicMs() + 5_000;
      proxy.freeze();
      await failed;
      while (clock.monotonicMs() < endMs) await settle(1);
      proxy.thaw();
    });
  });

  test(
    "every connection to Redis is cut, over and over, in the middle of a conversation",
    () =>
      withRedis([], (redis, scene) =>
        talkDuring(scene, async (sees) => {
          for (let cut = 0; cut < 10; cut++) {
            let delivered = 0;
            await sees(({ type }) => type === "USER_TO_ANON" && ++delivered === 5);
            await redis.command("CLIENT", "KILL", "TYPE", "normal");
          }
        }),
      ),
    40_000,
  );
});
