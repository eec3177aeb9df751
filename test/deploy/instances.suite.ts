import { expect, test } from "bun:test";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { getAnswer } from "../support/writing.ts";
import { deploy } from "./scene.ts";

/** As many requests as make sure that each instance gets some. */
const ROUNDS = 12;

for (const name of ["nginx", "haproxy"] as const) {
  describeWith(
    name,
    "openssl",
    "redis-server",
  )(`two instances behind ${name}`, () => {
    test("redeem each other's tickets, and pass on each other's messages", async () => {
      await using redis = await startRedis();
      await using site = await deploy(name, { count: 2, environment: { REDIS_URL: redis.url } });
      const users = await Promise.all(Array.from({ length: ROUNDS }, () => site.openUser("alice")));
      const visitors = await Promise.all(Array.from({ length: ROUNDS }, () => site.openVisitor()));
      for (const { events } of site.instances) {
        const opened = events.filter(({ event }) => event === "socket_opened");
        expect(opened.filter(({ user }) => user === "alice").length).toBeGreaterThan(0);
        expect(opened.filter(({ visitor }) => visitor).length).toBeGreaterThan(0);
      }
      for (const [n, visitor] of visitors.entries()) {
        visitor.send({ type: "ANON_TO_USER", to: "alice", content: `From ${n}` });
        for (const one of [...users, visitor]) {
          await one.next(({ content }) => content === `From ${n}`);
        }
      }
    });

    test("one that ends costs no request: the other one takes it", async () => {
      await using redis = await startRedis();
      await using site = await deploy(name, { count: 2, environment: { REDIS_URL: redis.url } });
      const [ending] = site.instances as [(typeof site.instances)[0]];
      // What it takes its time for.
      const sockets = await Promise.all(Array.from({ length: 20 }, () => ending.openUser("alice")));
      ending.kill("SIGTERM");
      await ending.event("draining");
      const cookie = await site.visitorCookie();
      for (let round = 0; round < ROUNDS; round++) {
        await using user = await site.openUser("bob");
        await using visitor = await site.openVisitor(cookie);
        if (round === 0) await getAnswer(site, visitor, "bob");
        expect(user.socket.readyState).toBe(WebSocket.OPEN);
      }
      // All the while it was there, and refused.
      await expect(ending.openUser("bob")).rejects.toThrow();
      expect((await ending.ask("/readyz")).status).toBe(503);
      for (const { closed } of sockets) expect((await closed).code).toBe(1012);
      expect(await ending.exited).toBe(0);
      // And is gone.
      for (let round = 0; round < ROUNDS; round++) {
        const page = await site.ask("/api/chats/bob/messages", { cookie });
        expect([page.status, page.body.messages.length]).toEqual([200, 2]);
      }
    });
  });
}

describeWith(
  "haproxy",
  "openssl",
  "redis-server",
)("HAProxy's own check, over HTTP/1.0,", () => {
  test("finds an instance that can't store anything, and finds it again when it can", async () => {
    await using redis = await startRedis();
    await using site = await deploy("haproxy", { environment: { REDIS_URL: redis.url } });
    expect((await site.ask("/")).status).toBe(200);
    await redis.kill();
    // Its own answer, for which it asks nobody.
    while ((await site.ask("/healthz")).status !== 503) await Bun.sleep(50);
    expect(await site.front.log()).toContain("ws_ticket/<NOSRV>");
    await redis.restart();
    while ((await site.ask("/healthz")).status !== 200) await Bun.sleep(50);
    expect((await site.ask("/")).status).toBe(200);
    const refused = site.instances[0]?.events.filter(({ event }) => event === "refused");
    expect(refused).toEqual([]);
  });
});
