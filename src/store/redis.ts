import type { RedisTransport } from "../redis/transport.ts";
import { parseTicketRecord, type TicketStore } from "./store.ts";

/** Keys in Redis: this and the hash. */
const KEY_PREFIX = "ws-ticket:";

/** Tickets in a Redis (6.2 or newer, or Valkey) that several servers share, over either transport. */
export function redisTicketStore(transport: RedisTransport): TicketStore {
  return {
    async put(hash, record, ttlMs) {
      const reply = await transport.command([
        "SET",
        KEY_PREFIX + hash,
        JSON.stringify(record),
        "PX",
        String(ttlMs),
      ]);
      if (reply !== "OK") throw new Error("Redis didn't keep the ticket: reply to SET isn't OK");
    },
    async take(hash) {
      const reply = await transport.command(["GETDEL", KEY_PREFIX + hash]);
      if (reply === null) return undefined;
      if (typeof reply !== "string") throw new Error("Redis broke off: reply to GETDEL isn't text");
      return parseTicketRecord(reply);
    },
    close: () => transport.close(),
  };
}
