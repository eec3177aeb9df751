import { expect, test } from "bun:test";
import { type People } from "../support/people.ts";
import { startInstance, type TestInstance } from "../support/process.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { TestSocket } from "../support/socket.ts";
import { createTab, idOf, type Tab } from "../support/tab.ts";
import { startUpstashBridge } from "../support/upstash.ts";

/** One visitor and one user, with tabs on both of two servers that share a Redis. */
interface Scene extends AsyncDisposable {
  readonly here: TestInstance;
  readonly there: TestInstance;
  /** The visitor's two tabs, one here and one there. */
  readonly visitor: readonly [Tab, Tab];
  /** The user's three tabs: one here, two there. */
  readonly user: readonly [Tab, Tab, Tab];
  readonly sockets: readonly TestSocket[];
}

const USER = "alice";

async function setScene(environment: Record<string, string>): Promise<Scene> {
  const [here, there] = await Promise.all([startInstance(environment), startInstance(environment)]);
  const cookie = await here.visitorCookie();
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

/** Both talk without a pause while something happens, and a little longer; nothing of it is lost, doubled or turned. */
async function talkDuring(scene: Scene, happens: () => Promise<void>): Promise<void> {
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
  await happens();
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
    await using scene = await setScene({ REDIS_URL: redis.url });
    await run(redis, scene);
  }
  const LASTING = ["--appendonly", "yes", "--appendfsync", "always"];

  test(
    "natively: every socket of both gets every message once, all in one order; receipts and blocks",
    () => withRedis([], (_, scene) => contract(scene, 200)),
    20_000,
  );

  test("over Upstash: the same", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    await using scene = await setScene({
      UPSTASH_REDIS_REST_URL: bridge.url,
      UPSTASH_REDIS_REST_TOKEN: bridge.token,
    });
    await contract(scene, 40);
  }, 30_000);

  test(
    "Redis is killed and started again while both talk",
    () =>
      withRedis(LASTING, (redis, scene) =>
        talkDuring(scene, async () => {
          await redis.kill();
          await Bun.sleep(300);
          await redis.restart();
        }),
      ),
    30_000,
  );

  test(
    "Redis is frozen for five seconds while both talk",
    () =>
      withRedis([], (redis, scene) =>
        talkDuring(scene, async () => {
          redis.freeze();
          await Bun.sleep(5_000);
          redis.thaw();
        }),
      ),
    40_000,
  );

  test(
    "every connection to Redis is cut every 300 ms while both talk",
    () =>
      withRedis([], (redis, scene) =>
        talkDuring(scene, async () => {
          for (let cut = 0; cut < 10; cut++) {
            await Bun.sleep(300);
            await redis.command("CLIENT", "KILL", "TYPE", "normal");
          }
        }),
      ),
    40_000,
  );
});
