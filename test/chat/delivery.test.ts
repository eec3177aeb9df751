import { expect, test } from "bun:test";
import { openRedis } from "../../src/open.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { startProxy } from "../support/proxy.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { setScene, talkDuring } from "../support/scene.ts";
import { startServer } from "../support/server.ts";

describeWith("redis-server")("two servers on one Redis", () => {
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
});

test("the sender has the ACK before the message itself, alone and among many", async () => {
  await using server = startServer();
  await using visitor = await server.openVisitor();
  for (const count of [1, 5]) {
    const refs = Array.from({ length: count }, (_, n) => `${count} ${n}`);
    for (const ref of refs) visitor.send({ type: "ANON_TO_USER", to: "alice", content: ref, ref });
    const frames = [];
    while (frames.length < 2 * count) frames.push(await visitor.next());
    expect(frames.slice(0, count).map(({ ref }) => ref)).toEqual(refs);
    expect(frames.slice(count).map(({ content }) => content)).toEqual(refs);
  }
});
