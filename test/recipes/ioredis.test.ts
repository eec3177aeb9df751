import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { createGate, type Gate } from "ws-ticket";
import { createSockets, openRedis } from "ws-ticket/bun";
import { TOKEN_SECRET } from "../support/people.ts";
import { startProxy } from "../support/proxy.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { openStore } from "./ioredis.ts";
import { bundleForNode, describeOnNode, runOnNode } from "./program.ts";

const users = { secret: TOKEN_SECRET };
const HOUR_MS = 3_600_000;

describeWith("redis-server")("a ticket store over ioredis", () => {
  let redis: TestRedis;
  let gate: Gate;
  beforeAll(async () => {
    redis = await startRedis();
    gate = createGate({ users, store: openStore(redis.url) });
  });
  afterAll(async () => {
    await gate.close();
    await redis[Symbol.asyncDispose]();
  });

  async function ticketFrom(issuer: Gate, user: string, session = "one"): Promise<string> {
    const issued = await issuer.issue({ user, session, expiresAtMs: Date.now() + HOUR_MS });
    if (!issued.ok) throw new Error(`No ticket: ${issued.code}`);
    return issued.ticket;
  }

  describeOnNode("in a process on Node", () => {
    test("issues a ticket that another process redeems, once", async () => {
      const mint = `
        import { createGate } from "ws-ticket";
        import { openStore } from "./ioredis.ts";
        const gate = createGate({ users: () => undefined, store: openStore(process.env.REDIS_URL) });
        const expiresAtMs = Date.now() + ${HOUR_MS};
        console.log(JSON.stringify(await gate.issue({ user: "alice", expiresAtMs })));
        await gate.close();
      `;
      const file = join(import.meta.dir, "mint.ts");
      const bundle = await bundleForNode(file, { external: ["ioredis"], files: { [file]: mint } });
      const issued = JSON.parse(await runOnNode(bundle, { REDIS_URL: redis.url }));
      expect(await gate.redeem(issued.ticket)).toMatchObject({
        ok: true,
        identity: { kind: "user", id: "alice" },
      });
      expect(await gate.redeem(issued.ticket)).toEqual({ ok: false, code: "ticket_refused" });
    });
  });

  test("shares tickets with the servers that use openRedis, in both directions", async () => {
    const { store } = await openRedis({ url: redis.url });
    await using server = createGate({ users, store });
    expect((await server.redeem(await ticketFrom(gate, "bob"))).ok).toBe(true);
    expect((await gate.redeem(await ticketFrom(server, "bob"))).ok).toBe(true);
  });

  test("refuses the unused tickets of a session that another process has ended", async () => {
    await using other = createGate({ users, store: openStore(redis.url) });
    const ended = await ticketFrom(gate, "carol", "ended");
    const kept = await ticketFrom(gate, "carol", "kept");
    expect(await other.revoke({ user: "carol", session: "ended" })).toEqual({ ok: true });
    expect((await gate.redeem(ended)).ok).toBe(false);
    expect((await gate.redeem(kept)).ok).toBe(true);
  });

  test("never repeats a command whose reply was lost", async () => {
    await using proxy = await startProxy(redis);
    await using remote = createGate({ users, store: openStore(proxy.url), log: () => {} });
    const ticket = await ticketFrom(remote, "dave");
    proxy.fault = { command: "GETDEL", kind: "reset-after" };
    expect(await remote.redeem(ticket)).toEqual({ ok: false, code: "store_unavailable" });
    proxy.fault = undefined;
    expect((await remote.redeem(await ticketFrom(remote, "dave"))).ok).toBe(true);
    expect(proxy.count("GETDEL")).toBe(2);
  });

  test("is refused for sockets, which would outlive sign-outs by other processes", () => {
    expect(() => createSockets(gate, { message: () => {} })).toThrow("use openRedis");
    const identity = { kind: "user", id: "erin", issuedAtMs: 0, expiresAtMs: HOUR_MS } as const;
    expect(() => gate.follow(identity, () => {})).toThrow("use openRedis");
  });
});
