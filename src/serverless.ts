export { admit, type Admission, type Identity } from "./admit.ts";
export { type AppEnv, createApp } from "./app.ts";
export { createDeps, type Deps, type DepsOptions } from "./deps.ts";
export type { RedisReply, RedisTransport } from "./redis/transport.ts";
export { upstashTransport } from "./redis/upstash.ts";
export { type Refusal, type RefusalCode, refusalResponse } from "./refusal.ts";
export { redisTicketStore } from "./store/redis.ts";
export type { TicketRecord, TicketStore } from "./store/store.ts";
