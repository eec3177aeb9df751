import { expect, test } from "bun:test";
import { createGate } from "../../src/gate/gate.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { fakeClock } from "../support/clock.ts";
import { TOKEN_SECRET } from "../support/people.ts";

function gateOf(lines: string[] = []) {
  const clock = fakeClock();
  const log = (level: string, event: string) => void lines.push(`${level} ${event}`);
  return { clock, gate: createGate({ users: { secret: TOKEN_SECRET }, clock, log }) };
}

test("an onEnd that throws leaves no other connection open, and the revocation reaches the store", async () => {
  const lines: string[] = [];
  const { clock, gate } = gateOf(lines);
  const credential = { user: "alice", session: "s", expiresAtMs: clock.nowMs() + 60_000 };
  const identity = { kind: "user", id: "alice", session: "s", issuedAtMs: clock.nowMs() } as const;
  const ended: string[] = [];
  const follow = (name: string, expiresAtMs: number) =>
    gate.follow({ ...identity, expiresAtMs }, () => {
      ended.push(name);
      throw new Error(name);
    });
  follow("first", clock.nowMs() + 60_000);
  follow("second", clock.nowMs() + 60_000);
  expect(await gate.revoke({ user: "alice", session: "s" })).toEqual({ ok: true });
  expect(ended).toEqual(["first", "second"]);
  expect(await gate.issue(credential)).toMatchObject({ ok: false, code: "token_invalid" });
  follow("third", clock.nowMs() + 60_000);
  expect(ended).toEqual(["first", "second", "third"]);
  clock.advance(61_000);
  follow("fourth", clock.nowMs() + 1_000);
  clock.advance(2_000);
  expect(ended).toHaveLength(4);
  expect(lines.filter((line) => line === "error socket_failed")).toHaveLength(4);
});

test("revoke refuses what is no session, user or visitor", async () => {
  const { gate } = gateOf();
  const targets = [
    undefined,
    null,
    { user: "" },
    { user: 1 },
    { user: "alice", session: "" },
    { user: "alice", session: 1 },
    { user: "alice", session: "x".repeat(256) },
    { visitor: "nobody" },
    {},
  ];
  for (const target of targets) {
    expect(gate.revoke(target as never)).rejects.toBeInstanceOf(TypeError);
  }
});

test("a revocation that can't be stored is store_unavailable, and logged with whose it was and why", async () => {
  const lines: unknown[] = [];
  const clock = fakeClock();
  const revoke = () => Promise.reject(new TypeError("canary"));
  await using gate = createGate({
    ...{ users: { secret: TOKEN_SECRET }, clock },
    store: { ...memoryTicketStore({ clock }), revoke },
    log: (level, event, fields) => void lines.push({ level, event, ...fields }),
  });
  expect(await gate.revoke({ user: "alice" })).toEqual({ ok: false, code: "store_unavailable" });
  const line = { level: "error", event: "store_failed", user: "alice", code: "TypeError" };
  expect(lines).toContainEqual(line);
});

test("each sign-out of a user's is remembered for a minute of its own", () => {
  const { clock, gate } = gateOf();
  const ended: string[] = [];
  const follow = (session: string) => {
    const identity = { kind: "user", id: "alice", session, issuedAtMs: clock.nowMs() } as const;
    gate.follow({ ...identity, expiresAtMs: clock.nowMs() + 600_000 }, () => ended.push(session));
  };
  void gate.revoke({ user: "alice", session: "one" });
  clock.advance(30_000);
  void gate.revoke({ user: "alice", session: "two" });
  clock.advance(29_000);
  for (const session of ["one", "two", "three"]) follow(session);
  expect(ended).toEqual(["one", "two"]);
  clock.advance(2_000);
  for (const session of ["one", "two"]) follow(session);
  expect(ended).toEqual(["one", "two", "two"]);
});
