import { expect, test } from "bun:test";
import { startInstance } from "../support/process.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { cameOver, expectSame, type Scene, setScene, talkDuring, USER } from "../support/scene.ts";
import type { TestSocket } from "../support/socket.ts";
import { idOf } from "../support/tab.ts";
import { startUpstashBridge } from "../support/upstash.ts";

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
      ...{ type: "READ", chatId: visitorId, user: USER, by: USER, upTo: newest?.id },
    });
  }

  const block = `/api/chats/${visitorId}/block`;
  await scene.there.ask(block, { method: "PUT", user: USER });
  await expect(visitor.say(USER, "blocked")).rejects.toThrow("blocked");
  await scene.here.ask(block, { method: "DELETE", user: USER });
  await visitor.say(USER, "the end");
  await expectSame(scene, ["the end"], [[...said.v, "the end"], said.u]);
  const of = { chatId: visitorId, user: USER };
  for (const { socket } of scene.user) {
    for (const blocked of [true, false]) {
      const frame = await socket?.next(({ type }) => type === "BLOCKED");
      expect(frame).toEqual({ type: "BLOCKED", ...of, blocked });
    }
  }

  const [end] = cameOver(otherTab.socket as TestSocket).slice(-1);
  await scene.there.ask(`/api/chats/${USER}`, { method: "DELETE", ...visitor.who });
  for (const socket of scene.sockets) {
    const frame = await socket.next(({ type }) => type === "DELETED");
    expect(frame).toEqual({ type: "DELETED", ...of, upTo: end?.id });
  }
  for (const { socket } of scene.visitor) {
    expect(socket?.frames.filter(({ type }) => type === "BLOCKED")).toEqual([]);
  }
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
