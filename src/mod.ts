export { admit, type Admission, type Identity } from "./admit.ts";
export { createApp } from "./app.ts";
export { createChat } from "./chat/hub.ts";
export type { ChatLog, Retention } from "./chat/log.ts";
export { redisChatLog } from "./chat/redis.ts";
export { sqliteChatLog } from "./chat/sqlite.ts";
export { type Clock, systemClock } from "./clock.ts";
export { createDeps, type Deps, type DepsOptions } from "./deps.ts";
export type { AppEnv } from "./http.ts";
export { createLog, type Log, type LogFields, type LogLevel } from "./log.ts";
export { createFeed, type Feed } from "./redis/feed.ts";
export { nativeRedisTransport } from "./redis/native.ts";
export type { RedisReply, RedisTransport } from "./redis/transport.ts";
export { upstashTransport } from "./redis/upstash.ts";
export { type Refusal, type RefusalCode, refusalResponse } from "./refusal.ts";
export { type RunningServer, serve, type ServeOptions } from "./server.ts";
export {
  CLOSE,
  type Socket,
  type SocketData,
  type SocketHandlers,
  type SocketLimits,
} from "./sockets.ts";
export { memoryTicketStore } from "./store/memory.ts";
export { redisTicketStore } from "./store/redis.ts";
export { kick, signOut } from "./revoke.ts";
export type { Credential, Revocation, TicketRecord, TicketStore } from "./store/store.ts";
export { signToken, type TokenKeys } from "./token.ts";
