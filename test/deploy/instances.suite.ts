import { expect, test } from "bun:test";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { getAnswer } from "../support/writing.ts";
import { section } from "./readme.ts";
import { deploy, type Deployment } from "./scene.ts";

/** A Redis, and its URL for a user who may do what the README says, and nothing else. */
async function startSharedRedis() {
  const redis = await startRedis();
  const [, rules = ""] = /`(~ws-ticket:[^`]+)`/.exec(section) ?? [];
  await redis.command("ACL", "SETUSER", "chat", "on", ">password", ...rules.split(" "));
  const url = redis.url.replace("//", "//chat:password@");
  return Object.assign(Object.create(redis) as typeof redis, { environment: { REDIS_URL: url } });
}

/** As many requests as make sure that each instance gets some. */
const ROUNDS = 12;

for (const name of ["nginx", "haproxy"] as const) {
  describeWith(
    name,
    "openssl",
    "redis-server",
  )(`two instances behind ${name}`, () => {
    test("redeem each other's tickets, and pass on each other's messages", async () => {
      await using redis = await startSharedRedis();
      await using site = await deploy(name, { count: 2, environment: redis.environment });
      const users = await Promise.all(Array.from({ length: ROUNDS }, () => site.openUser("alice")));
      const visitors = await Promise.all(Array.from({ length: ROUNDS }, () => site.openVisitor()));
      // Each instance has some of both.
      for (const instance of site.instances) {
        const has = (kind: string) =>
          instance.events.some((line) => line.event === "socket_opened" && kind in line);
        while (!has("user") || !has("visitor")) await Bun.sleep(10);
      }
      for (const [n, visitor] of visitors.entries()) {
        visitor.send({ type: "ANON_TO_USER", to: "alice", content: `From ${n}` });
        for (const one of [...users, visitor]) {
          await one.next(({ content }) => content === `From ${n}`);
        }
      }
      const lines = site.instances.flatMap(({ events }) => events);
      expect(lines.filter(({ level }) => level === "error")).toEqual([]);
    });

    test("that end one after the other cost no request: the other one takes it", async () => {
      await using redis = await startSharedRedis();
      // No time in which the proxy could find out before the first request is refused.
      const environment = { ...redis.environment, DRAIN_DELAY_SECONDS: "0" };
      await using site = await deploy(name, { count: 2, environment });
      const cookie = await site.visitorCookie();
      await using first = await site.openVisitor(cookie);
      await getAnswer(site, first, "bob");
      for (const at of [0, 1]) {
        const ending = site.instances[at] as (typeof site.instances)[0];
        // What it takes its time for.
        const sockets = await Promise.all(
          Array.from({ length: 20 }, () => ending.openUser("alice")),
        );
        const replaced = site.replace(at);
        await ending.event("draining");
        for (let round = 0; round < ROUNDS; round++) {
          await using user = await site.openUser("bob");
          await using visitor = await site.openVisitor(cookie);
          const states = [user, visitor].map(({ socket }) => socket.readyState);
          expect(states).toEqual([WebSocket.OPEN, WebSocket.OPEN]);
        }
        // All the while it was there, and refused.
        await expect(ending.openUser("bob")).rejects.toThrow();
        expect((await ending.ask("/readyz")).status).toBe(503);
        for (const { closed } of sockets) expect((await closed).code).toBe(1012);
        // And is gone.
        await ending.exited;
        for (let round = 0; round < ROUNDS; round++) {
          const page = await site.ask("/api/chats/bob/messages", { cookie });
          expect([page.status, page.body.messages.length]).toEqual([200, 2]);
        }
        await replaced;
        // Before the next one may end, HAProxy has to find that this one is back.
        while (name === "haproxy" && !(await upAgain(site)).includes("ab"[at] as string)) {
          await Bun.sleep(50);
        }
      }
    }, 30_000);
  });
}

/** The names of the instances that HAProxy has found again. */
async function upAgain({ front }: Deployment): Promise<string[]> {
  const lines = (await front.log()).matchAll(/Server ws_ticket\/(\w+) is UP/g);
  return [...lines].map(([, name = ""]) => name);
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
