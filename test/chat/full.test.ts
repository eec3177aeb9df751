import { expect, test } from "bun:test";
import { openRedis } from "../../src/open.ts";
import { fakeClock } from "../support/clock.ts";
import { mint, MINTED, OPENED, upgrade, upgradeVisitor } from "../support/outage.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";
import { startWire, WIRE_NAMES } from "../support/wire.ts";
import { getAnswer } from "../support/writing.ts";

const USER = "alice";
const MAX_MEMORY = 12 * 1024 * 1024;
/** Messages sent together: far less than what is left when no more are taken. */
const BATCH = 50;

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`a Redis that chats have filled, ${name}`, () => {
    test("takes no more messages, and all else goes on; with room it takes them again", async () => {
      await using wire = await startWire(name);
      await wire.redis.command("CONFIG", "SET", "maxmemory", String(MAX_MEMORY));
      const clock = fakeClock();
      const { store, chat } = await openRedis(wire.settings, { clock, log: () => {} });
      await using server = startServer({
        ...{ clock, store, history: chat, charactersPerMinute: 0 },
        limits: { messagesPerSecond: 0 },
      });
      const cookie = await server.visitorCookie();
      await using visitor = await server.openVisitor(cookie);
      await getAnswer(server, visitor, USER);
      const usedMemory = async () => {
        const info = String(await wire.redis.command("INFO", "memory"));
        return Number(/^used_memory:(\d+)/m.exec(info)?.[1]);
      };
      let refs = 0;
      /** Sends so many messages, and returns what became of them. */
      async function send(count: number): Promise<Set<string>> {
        const outcomes = await Promise.all(
          Array.from({ length: count }, async () => {
            const ref = `ref ${++refs}`;
            // Compression would make less of a single letter.
            const content = crypto.getRandomValues(new Uint8Array(1_900)).toHex();
            visitor.send({ type: "ANON_TO_USER", to: USER, content, ref });
            const { type, code } = await visitor.next((frame) => frame.ref === ref);
            return type === "ACK" ? "stored" : (code as string);
          }),
        );
        return new Set(outcomes);
      }

      await chat.setProfile(USER, { name: "Alice" });
      let batches = 0;
      while ((await send(BATCH)).has("stored")) {
        expect(++batches).toBeLessThan(100);
        await clock.pass(1_000);
      }
      const fullAt = await usedMemory();
      expect(fullAt).toBeGreaterThan(0.8 * MAX_MEMORY);
      expect(fullAt).toBeLessThan(0.95 * MAX_MEMORY);
      for (let round = 0; round < 5; round++) {
        await clock.pass(1_000);
        expect(await send(BATCH)).toEqual(new Set(["unavailable"]));
      }
      expect(await usedMemory()).toBeLessThan(fullAt + 0.05 * MAX_MEMORY);

      expect(await mint(server)).toEqual(MINTED);
      expect(await upgrade(server, await server.ticket("bob"))).toEqual(OPENED);
      expect(await upgradeVisitor(server, cookie)).toEqual(OPENED);
      const headers = { Authorization: `Bearer ${await server.token("bob")}` };
      const signedOut = await server.ask("/api/auth/sign-out", { method: "POST", headers });
      expect(signedOut.status).toBe(204);
      // A name can wait, and one that is taken back takes no room.
      await chat.setProfile(USER, { name: "Alice B." });
      expect(await chat.profile(USER)).toEqual({ name: "Alice" });
      await chat.setProfile(USER, {});
      expect(await chat.profile(USER)).toEqual({});
      const page = await server.ask(`/api/chats/${USER}/messages?limit=10`, { cookie });
      expect([page.status, page.body.messages.length]).toEqual([200, 10]);

      const removed = await server.ask(`/api/chats/${USER}`, { method: "DELETE", cookie });
      expect(removed.status).toBe(204);
      // Redis frees what was deleted in a thread of its own.
      while ((await usedMemory()) > 0.75 * MAX_MEMORY) await Bun.sleep(5);
      await clock.pass(1_000);
      await getAnswer(server, visitor, USER);
      expect(await send(BATCH)).toEqual(new Set(["stored"]));
    }, 30_000);
  });
}
