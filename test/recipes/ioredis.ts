import { Redis } from "ioredis";
import { type RedisReply, redisTicketStore, type TicketStore } from "ws-ticket";

/** A ticket store over ioredis, which must send each command once at most. */
export function openStore(url: string): TicketStore {
  const client = new Redis(url, { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false });
  // Commands reject by themselves; unheard, ioredis would log the event.
  client.on("error", () => {});
  return redisTicketStore({
    isOrdered: true,
    command: ([name = "", ...args]) => client.call(name, ...args) as Promise<RedisReply>,
    close: async () => client.disconnect(),
  });
}
