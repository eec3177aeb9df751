import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  type Chat,
  FAILING_MS,
  MAX_BLOCKS,
  MAX_UNANSWERED,
  WRITING_WINDOW_MS,
} from "../../src/chat/history.ts";
import { redisChatHistory } from "../../src/chat/redis.ts";
import { createFeed, FEED_LENGTH } from "../../src/redis/feed.ts";
import { feedKeys } from "../../src/redis/keys.ts";
import { faultCode } from "../../src/lib/log.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { begin, deliveriesOf, newChat, newVisitorId, write } from "../support/chat.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { inRedis, type OpenHistory, openRedisHistory } from "../support/history.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startUpstashBridge } from "../support/upstash.ts";
import { startWire, type Wire, WIRE_NAMES } from "../support/wire.ts";
import { contract } from "./contract.ts";

const [FEED_STREAM, FEED_STATE] = feedKeys();

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

async function waitFor(condition: () => boolean): Promise<void> {
  while (!condition()) await settle(1);
}
/** Of commands that an outage swallows, by the machine's clock. */
const DEADLINE_MS = 500;

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`Redis, ${name}`, () => {
    contract(() => inRedis(name));
  });

  describeWith("redis-server")(`Redis, ${name}`, () => {
    let wire: Wire;
    beforeAll(async () => {
      wire = await startWire(name);
    });
    beforeEach(() => wire.redis.command("FLUSHALL"));
    afterEach(() => wire.heal());
    afterAll(() => wire[Symbol.asyncDispose]());

    test("keys expire: refs after two days, chats with their last message, unanswered recipients after 30 days", async () => {
      await using chat = await openRedisHistory(wire, name, { maxAgeMs: 5 * DAY_MS });
      const where = newChat();
      await write(chat.history, where, "x", { ref: "r" });
      const keys = (await wire.redis.command("KEYS", "*")) as string[];
      for (const key of keys) expect(key).toStartWith("ws-ticket:");
      const livesMs = new Map<string, number>();
      for (const key of keys) livesMs.set(key, Number(await wire.redis.command("PTTL", key)));
      const of = (kind: string) =>
        [...livesMs].flatMap(([key, ttlMs]) =>
          key.startsWith(`ws-ticket:chat:${kind}:`) ? [ttlMs] : [],
        );
      expect(of("ref")).toHaveLength(1);
      for (const ttlMs of of("ref")) expect(Math.round(ttlMs / DAY_MS)).toBe(2);
      for (const kind of ["unanswered", "waiting"]) {
        expect(of(kind).map((ttlMs) => Math.round(ttlMs / DAY_MS))).toEqual([30]);
      }
      const ending = [...of("messages"), ...of("chat"), ...of("of-user"), ...of("of-visitor")];
      expect(ending).toHaveLength(4);
      // Prolonged once an hour, so they last an hour longer.
      for (const ttlMs of ending) {
        expect(ttlMs).toBeGreaterThan(5 * DAY_MS);
        expect(ttlMs).toBeLessThanOrEqual(5 * DAY_MS + HOUR_MS);
      }
      const key = `ws-ticket:chat:chat:${where.visitor}:${where.user}`;
      const touched = () => wire.redis.command("HGET", key, "touched");
      const atMs = Number(await touched());
      await write(chat.history, where, "y", { atMs: atMs + HOUR_MS });
      expect(await touched()).toBe(String(atMs));
      await write(chat.history, where, "y", { atMs: atMs + HOUR_MS + 1 });
      expect(await touched()).toBe(String(atMs + HOUR_MS + 1));
    });

    test("a message takes of what its sender may write, over all chats; one that is sent again or refused takes nothing", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      const elsewhere = { ...newChat(), visitor: where.visitor };
      await begin(chat.history, where);
      await begin(chat.history, elsewhere);
      const atMs = Date.now();
      const kept = async (to: Chat, ref: string, costMs: number, later = 0) => {
        const draft = { chat: to, from: "visitor", content: "x", ref, costMs } as const;
        const appended = await chat.history.append({ ...draft, atMs: atMs + later });
        return appended.ok || appended.error;
      };
      const half = WRITING_WINDOW_MS / 2;
      expect(await kept(where, "one", half)).toBe(true);
      for (let time = 0; time < 3; time++) expect(await kept(where, "one", half)).toBe(true);
      expect(await kept(where, "two", half + 1)).toBe("too_many_messages");
      expect(await kept(elsewhere, "two", half)).toBe(true);
      expect(await kept(where, "three", 1)).toBe("too_many_messages");
      expect(await kept(where, "one", half)).toBe(true);
      expect(await kept(where, "none", 0)).toBe(true);
      expect(await kept(where, "three", 1_000, 999)).toBe("too_many_messages");
      expect(await kept(where, "three", 1_000, 1_000)).toBe(true);
      const key = `ws-ticket:chat:writing:visitor:${where.visitor}`;
      const leftMs = Number(await wire.redis.command("PTTL", key));
      expect(leftMs).toBeGreaterThan(0);
      expect(leftMs).toBeLessThanOrEqual(WRITING_WINDOW_MS);
    });

    test("a list of chats reads none of their messages, nor needs anything that an earlier version didn't write", async () => {
      await using chat = await openRedisHistory(wire, name, { maxAgeMs: 5 * DAY_MS });
      const user = `user-${newVisitorId()}`;
      const of = { side: "user", id: user } as const;
      for (let n = 0; n < 20; n++) {
        const where = { user, visitor: newVisitorId() };
        await write(chat.history, where, "漢".repeat(4_000), {
          nickname: `${n}`,
          atMs: Date.now(),
        });
      }
      // Once in an hour, what is too old is looked for.
      const chats = await chat.history.chats(of, { limit: 200 });
      expect(chats).toHaveLength(20);
      await wire.redis.command("CONFIG", "RESETSTAT");
      expect(await chat.history.chats(of, { limit: 200 })).toEqual(chats);
      const commands = String(await wire.redis.command("INFO", "commandstats"));
      expect(commands).toContain("cmdstat_hmget:calls=20,");
      expect(commands).not.toMatch(/cmdstat_x(rev)?range:/);
      const keys = (await wire.redis.command("KEYS", "ws-ticket:chat:chat:*")) as string[];
      for (const key of keys) await wire.redis.command("HDEL", key, "at", "last", "blocked");
      expect(await chat.history.chats(of, { limit: 200 })).toEqual(chats);
    });

    test("no script stores more than 64,000 characters, however many come at once", async () => {
      await using chat = await openRedisHistory(wire, name);
      const scripts = () => wire.sent(name === "native" ? "EVAL" : "EVALSHA");
      const before = scripts();
      const content = "x".repeat(4_000);
      await Promise.all(Array.from({ length: 40 }, () => write(chat.history, newChat(), content)));
      // 15 of them fit into one, with what each takes beside its text.
      expect(scripts() - before).toBe(3);
    });

    test("the feed isn't ready while Redis is away, and is when it is back", async () => {
      await using wire = await startWire(name);
      await wire.goDown();
      const feed = createFeed({ transport: wire.transport(), clock: fakeClock(), log: () => {} });
      await expect(feed.ready()).rejects.toThrow();
      await wire.comeBack();
      await feed.ready();
      await feed.close();
    });

    test("writing rejects while Redis is away; afterwards the same ref settles it", async () => {
      await using wire = await startWire(name);
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      await wire.goDown();
      await expect(write(chat.history, where, "x", { ref: "r" })).rejects.toThrow();
      await expect(chat.history.messages(where, { limit: 1 })).rejects.toThrow();
      await expect(chat.history.markRead(where, "user")).rejects.toThrow();
      await wire.comeBack();
      chat.clock.advance(FAILING_MS);
      // A Redis that was restarted without its data is a gap; from there on everything is delivered.
      if (name === "native") await chat.polling(chat.gap);
      await write(chat.history, where, "x", { ref: "r" });
      await chat.polling(chat.delivered.has(where, 1));
      expect(chat.delivered.of(where)).toEqual(["x"]);
    });

    test("a message whose acknowledgement was lost is stored once and delivered once", async () => {
      await using other = await openRedisHistory(wire, name);
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      await write(chat.history, where, "before");
      await other.polling(other.delivered.has(where, 1));
      wire.loseReplies("EVAL");
      await expect(write(chat.history, where, "x", { ref: "r" })).rejects.toThrow();
      wire.heal();
      // Later messages of the same sender would overtake it.
      await expect(write(chat.history, where, "too early")).rejects.toThrow();
      await write(chat.history, newChat(), "of somebody else");
      chat.clock.advance(FAILING_MS);
      await write(chat.history, where, "x", { ref: "r" });
      await write(chat.history, where, "after");
      for (const one of [chat, other]) {
        await one.polling(one.delivered.has(where, 3));
        expect(one.delivered.of(where)).toEqual(["before", "x", "after"]);
      }
    });

    test("a probe rejects while Redis is out of memory, is away, or may not write", async () => {
      await using wire = await startWire(name);
      await using chat = await openRedisHistory(wire, name);
      const probe = async () => (await chat.history.probe?.().catch(faultCode)) ?? "good";
      await wire.redis.command("CONFIG", "SET", "maxmemory", "1");
      expect(await probe()).toBe("out_of_memory");
      await wire.redis.command("CONFIG", "SET", "maxmemory", "0");
      expect(await probe()).toBe("good");
      for (const word of ["xadd", "hset", "zadd", "set"]) {
        await wire.redis.command("ACL", "SETUSER", "default", `-${word}`);
        expect([word, await probe()]).toEqual([word, "not_permitted"]);
        await wire.redis.command("ACL", "SETUSER", "default", `+${word}`);
      }
      expect(await probe()).toBe("good");
      const keys = (await wire.redis.command("KEYS", "*:probe:*")) as string[];
      for (const key of keys) expect(await wire.redis.command("PTTL", key)).toBeWithin(1, 60_001);
      await wire.goDown();
      expect(await probe()).not.toBe("good");
    });

    test("scripts are loaded again after SCRIPT FLUSH", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      await write(chat.history, where, "one");
      await wire.redis.command("SCRIPT", "FLUSH");
      await write(chat.history, where, "two");
      await chat.delivered.has(where, 2);
      expect(chat.delivered.of(where)).toEqual(["one", "two"]);
    });

    test("two servers allow a visitor as many unanswered recipients as one", async () => {
      await using one = await openRedisHistory(wire, name);
      await using two = await openRedisHistory(wire, name);
      const visitor = newVisitorId();
      const users = Array.from({ length: 3 * MAX_UNANSWERED }, () => newChat().user);
      const writeTo = (user: string, at: number) =>
        (at % 2 === 0 ? one : two).history.append({
          ...{ chat: { user, visitor }, from: "visitor", content: "x", atMs: one.clock.nowMs() },
        });
      const outcomes = await Promise.all(users.map(writeTo));
      const written = users.filter((_, at) => outcomes[at]?.ok);
      expect(written).toHaveLength(MAX_UNANSWERED);
      await write(one.history, { user: written[0] as string, visitor }, "answer", { from: "user" });
      expect(await writeTo(newChat().user, 1)).toMatchObject({ ok: true });
      expect(await writeTo(newChat().user, 0)).toMatchObject({ ok: false });
    });

    test("messages stay in order while Redis loses its scripts", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      await begin(chat.history, where);
      const ids: string[] = [];
      for (let round = 0; round < 12; round++) {
        await wire.redis.command("SCRIPT", "FLUSH");
        const writing: Promise<string>[] = [];
        for (let n = 0; n < 20; n++) {
          writing.push(write(chat.history, where, `${n}`));
          for (let turn = 0; turn < round; turn++) {
            await new Promise((resolve) => setImmediate(resolve));
          }
        }
        ids.push(...(await Promise.all(writing)));
      }
      expect(ids.map(Number)).toEqual(ids.map(Number).toSorted((a, b) => a - b));
    });

    test("ids go on rising after the data was lost, and everybody is told that events were missed", async () => {
      await using chat = await openRedisHistory(wire, name);
      await using other = await openRedisHistory(wire, name);
      const where = newChat();
      const before = Number(await write(chat.history, where, "before"));
      await chat.delivered.has(where, 1);
      await other.polling(other.delivered.has(where, 1));
      await wire.redis.command("FLUSHALL");
      const after = Number(await write(chat.history, where, "after"));
      expect(after).toBeGreaterThan(before);
      for (const one of [chat, other]) await one.polling(one.gap);
      await write(chat.history, where, "last");
      for (const one of [chat, other]) {
        await one.polling(waitFor(() => one.delivered.of(where).includes("last")));
        expect(one.gaps).toBe(1);
      }
    });

    test("ids never fall behind the time, so that a replica that lagged uses none again", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      const ids = [
        await write(chat.history, where, "one"),
        await write(chat.history, where, "two"),
      ];
      await wire.redis.command("SET", "ws-ticket:chat:sequence", String(Number(ids[0]) - 1_000));
      ids.push(await write(chat.history, where, "three"), await write(chat.history, where, "four"));
      expect(ids.map(Number)).toEqual(ids.map(Number).toSorted((a, b) => a - b));
      expect(new Set(ids).size).toBe(4);
      // The wire takes 15 digits.
      for (const id of ids) expect(id).toMatch(/^[1-9]\d{14}$/);
    });

    test("a clock of Redis' that was set back lets nobody wait for longer than a minute", async () => {
      await using chat = await openRedisHistory(wire, name);
      const key = `user:${newVisitorId()}`;
      const inAnHour = String(Date.now() + 3_600_000);
      await wire.redis.command("SET", `ws-ticket:chat:requests:${key}`, inAnHour);
      const waitMs = await chat.history.spendRequests(key, 1);
      expect(waitMs).toBeGreaterThan(0);
      expect(waitMs).toBeLessThanOrEqual(60_000);
      // What is given back counts at once.
      expect(await chat.history.spendRequests(key, -2)).toBe(0);
      expect(await chat.history.spendRequests(key, 1)).toBe(0);
    });

    test("the sequence may be lost at any moment: ids go on rising, and every message is kept", async () => {
      await using chat = await openRedisHistory(wire, name);
      const [where, other] = [newChat(), newChat()];
      const ids: string[] = [];
      for (const one of [where, other]) await write(chat.history, one, "Hello");
      for (let round = 0; round < 10; round++) {
        const drafts = Array.from({ length: 20 }, (_, n) =>
          write(chat.history, where, `${n}`, { from: "user", ref: `${round} ${n}` }),
        );
        const written = [...drafts, write(chat.history, other, "x", { from: "user" })];
        ids.push(...(await Promise.all(written)).slice(0, 20));
        await wire.redis.command("DEL", "ws-ticket:chat:sequence");
      }
      expect(ids.map(Number)).toEqual(ids.map(Number).toSorted((a, b) => a - b));
      expect(new Set(ids).size).toBe(200);
    });

    test("a sequence that is lost while ids are ahead of the time goes on from each chat's last id", async () => {
      await using chat = await openRedisHistory(wire, name);
      const [where, other] = [newChat(), newChat()];
      const id = Number(await write(chat.history, where, "one"));
      await wire.redis.command("SET", "ws-ticket:chat:sequence", String(id + 1e9));
      await write(chat.history, where, "two");
      await write(chat.history, other, "two", { ref: "two" });
      await wire.redis.command("DEL", "ws-ticket:chat:sequence");
      const again = ["three", "four", "five"].map((ref) =>
        write(chat.history, where, ref, { ref }),
      );
      const ids = (await Promise.all(again)).map(Number);
      expect(ids).toEqual(ids.toSorted((a, b) => a - b));
      expect(ids[0] as number).toBeGreaterThan(id + 1e9);
      // What is sent once more is the message that was kept.
      expect(Number(await write(chat.history, where, "three", { ref: "three" }))).toBe(
        ids[0] as number,
      );
      expect(await write(chat.history, other, "three")).toMatch(/^[1-9]\d{14}$/);
      const page = await chat.history.messages(where, { limit: 50 });
      expect(page?.messages.map(({ content }) => content)).toEqual([
        ...["one", "two", "three", "four", "five"],
      ]);
    });

    test("ids go on rising while they are ahead of the time", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      const id = Number(await write(chat.history, where, "one"));
      await wire.redis.command("SET", "ws-ticket:chat:sequence", String(id + 1e9));
      expect(Number(await write(chat.history, where, "two"))).toBe(id + 1e9 + 1);
    });

    test("another run of Redis is a gap, an entry of an older version is none", async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      const old = ["kind", "read", "user", where.user, "visitor", where.visitor, "by", "user"];
      await wire.redis.command("XADD", FEED_STREAM, "*", ...old, "upTo", "1");
      await write(chat.history, where, "x");
      await chat.polling(chat.delivered.has(where, 2));
      expect(chat.gaps).toBe(0);
      await wire.redis.command("HSET", FEED_STATE, "epoch", "another");
      await write(chat.history, where, "y");
      await chat.polling(chat.gap);
      await chat.polling(chat.delivered.has(where, 3));
      expect(chat.gaps).toBe(1);
    });

    test("old messages of many chats are deleted in parts, none of which is shown", async () => {
      const { user } = newChat();
      const [chats, each] = [100, 1_000];
      // As if they had been kept without a limit before.
      const fill = `
        for c = 1, ${chats} do
          local visitor = string.format('%022d', c)
          local name = visitor .. ':' .. ARGV[1]
          local last
          for n = 1, ${each} do
            last = c * ${each} + n
            redis.call('XADD', 'ws-ticket:chat:messages:' .. name, last .. '-0', 'at', n, 'body', '"content":"x"}')
          end
          redis.call('HSET', 'ws-ticket:chat:chat:' .. name, 'touched', 1, 'unread:user', 7)
          redis.call('ZADD', 'ws-ticket:chat:of-user:' .. ARGV[1], last, visitor)
        end
      `;
      await wire.redis.command("EVAL", fill, "0", user);
      const left = async () => {
        const count = `
          local sum = 0
          for _, key in ipairs(redis.call('KEYS', 'ws-ticket:chat:messages:*')) do
            sum = sum + redis.call('XLEN', key)
          end
          return sum
        `;
        return Number(await wire.redis.command("EVAL", count, "0"));
      };
      await using chat = await openRedisHistory(wire, name, { maxAgeMs: 30 * DAY_MS });
      let before = chats * each;
      let lists = 0;
      for (; before > 0; lists++) {
        const list = await chat.history.chats({ side: "user", id: user }, { limit: 200 });
        expect(list).toEqual([]);
        const now = await left();
        expect(before - now).toBeGreaterThan(0);
        expect(before - now).toBeLessThanOrEqual(20_000 + each);
        before = now;
      }
      expect(lists).toBeGreaterThan(1);
      expect(await wire.redis.command("ZCARD", `ws-ticket:chat:of-user:${user}`)).toBe(0);
    });

    test("old messages are found among any number of recent ones, to the last one", async () => {
      await using chat = await openRedisHistory(wire, name, { maxAgeMs: DAY_MS });
      const nowMs = chat.clock.nowMs();
      for (const [old, recent] of [
        [0, 1],
        [1, 0],
        [1, 1],
        [1, 40],
        [40, 1],
        [37, 5],
      ] as const) {
        const where = newChat();
        await begin(chat.history, where, { atMs: nowMs - 2 * DAY_MS });
        const writeSome = (count: number, atMs: number) =>
          Promise.all(
            Array.from({ length: count }, (_, n) =>
              write(chat.history, where, `${n}`, { atMs: atMs + n }),
            ),
          );
        await writeSome(old, nowMs - DAY_MS - 1_000);
        await writeSome(recent, nowMs - 1_000);
        // What was too old by then went with the first recent one, before anybody read the chat.
        const key = `ws-ticket:chat:messages:${where.visitor}:${where.user}`;
        if (recent > 0) expect(await wire.redis.command("XLEN", key)).toBe(old + recent);
        const page = await chat.history.messages(where, { limit: 200 });
        expect(page?.messages.map(({ content }) => content)).toEqual(
          Array.from({ length: recent }, (_, n) => `${n}`),
        );
      }
    });

    test("unread messages that have grown old are deleted by the list, and not counted any more", async () => {
      await using wire = await startWire(name);
      await using chat = await openRedisHistory(wire, name, { maxAgeMs: DAY_MS });
      const where = newChat();
      const atMs = chat.clock.nowMs();
      for (const laterMs of [0, 0, 60_000]) {
        await write(chat.history, where, "x", { atMs: atMs + laterMs });
      }
      chat.clock.advance(DAY_MS + 1);
      const list = await chat.history.chats({ side: "user", id: where.user }, { limit: 10 });
      expect(list).toMatchObject([{ unread: 1 }]);
    });

    test(`a user has ${MAX_BLOCKS} visitors blocked at most`, async () => {
      await using chat = await openRedisHistory(wire, name);
      const where = newChat();
      const fill = `for n = 2, ${MAX_BLOCKS} do redis.call('SADD', KEYS[1], n) end`;
      await wire.redis.command("EVAL", fill, "1", `ws-ticket:chat:blocked:${where.user}`);
      const other = { ...where, visitor: newVisitorId() };
      for (const one of [where, other]) await write(chat.history, one, "x");
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      expect(await chat.history.setBlocked(other, true)).toBe("too_many");
      await write(chat.history, other, "not blocked");
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      expect(await chat.history.setBlocked(where, false)).toBe("done");
      expect(await chat.history.setBlocked(other, true)).toBe("done");
    });

    describe("when the stream is cut before it was read, onGap is called", () => {
      /** Adds entries for a chat to the feed, in one step of Redis that no reader can get into. */
      async function addEntries(wire: Wire, { user, visitor }: Chat, count: number): Promise<void> {
        const script = `for n = 1, ARGV[4] do
          redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'kind', 'read',
            'epoch', redis.call('HGET', KEYS[2], 'epoch'),
            'user', ARGV[1], 'visitor', ARGV[2], 'by', 'user', 'upTo', n)
        end`;
        const args = [user, visitor, String(FEED_LENGTH), String(count)];
        await wire.redis.command("EVAL", script, "2", FEED_STREAM, FEED_STATE, ...args);
      }

      async function withReader(
        run: (chat: OpenHistory, wire: Wire, where: Chat) => Promise<void>,
      ): Promise<void> {
        await using chat = await openRedisHistory(wire, name, { deadlineMs: DEADLINE_MS });
        const where = newChat();
        await write(chat.history, where, "before");
        await chat.delivered.has(where, 1);
        await run(chat, wire, where);
      }

      async function expectGap(chat: OpenHistory, where: Chat): Promise<void> {
        await chat.polling(chat.gap);
        await write(chat.history, where, "after");
        await chat.polling(chat.delivered.has(where, 2));
        expect(chat.delivered.of(where)).toEqual(["before", "after"]);
        expect(chat.gaps).toBe(1);
      }

      test("after an outage", () =>
        withReader(async (chat, wire, where) => {
          wire.stall();
          const failing = chat.history.messages(where, { limit: 1 });
          await expect(chat.polling(failing)).rejects.toThrow();
          await addEntries(wire, newChat(), 2 * FEED_LENGTH);
          wire.heal();
          await expectGap(chat, where);
        }));

      test("by a slow reader, without an outage", () =>
        withReader(async (chat, wire, where) => {
          await addEntries(wire, newChat(), 2 * FEED_LENGTH);
          await expectGap(chat, where);
        }));

      test("but not while everything is still in the stream", () =>
        withReader(async (chat, wire, where) => {
          const count = 1_300;
          wire.stall();
          await addEntries(wire, where, count);
          wire.heal();
          await chat.polling(chat.delivered.has(where, 1 + count));
          expect(chat.gaps).toBe(0);
          const marks = Array.from({ length: count }, (_, n) => `user read ${n + 1}`);
          expect(chat.delivered.of(where)).toEqual(["before", ...marks]);
        }));
    });
  });
}

describeWith("redis-server")("over HTTP, where a request may be carried out twice", () => {
  test("messages without a ref are stored and delivered once", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    const transport = upstashTransport(bridge);
    const clock = fakeClock();
    const feed = createFeed({ transport: upstashTransport(bridge), clock, log: () => {} });
    const history = redisChatHistory({ transport, feed, clock });
    const delivered = deliveriesOf(history);
    feed.start({ isNeeded: () => true, onGap: () => {} });
    await feed.ready();
    const where = newChat();
    await begin(history, where);
    bridge.fault = "twice";
    const texts = Array.from({ length: 50 }, (_, n) => `${n}`);
    const ids = await Promise.all(texts.map((text) => write(history, where, text)));
    bridge.fault = undefined;
    expect(new Set(ids).size).toBe(50);
    const page = await history.messages(where, { limit: 200 });
    expect(page?.messages.map(({ content }) => content)).toEqual(["begin", "answer", ...texts]);
    expect(page?.messages.slice(2).map(({ id }) => id)).toEqual(ids);
    while (delivered.of(where).length < 52) {
      clock.advance(50);
      await settle(4);
    }
    expect(delivered.of(where)).toEqual(["begin", "answer", ...texts]);
    await feed.close();
  });
});
