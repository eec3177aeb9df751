export { admit, type Admission, type Identity } from "./gate/admit.ts";
export { createApp } from "./gate/routes.ts";
export { createChat } from "./chat/hub.ts";
export type { ChatLog, Retention } from "./chat/history.ts";
export { redisChatLog } from "./chat/redis.ts";
export { sqliteChatLog } from "./chat/sqlite.ts";
export { type Clock, systemClock } from "./lib/clock.ts";
export { createDeps, type Deps, type DepsOptions } from "./gate/gate.ts";
export type { AppEnv } from "./gate/http.ts";
export { createLog, type Log, type LogFields, type LogLevel } from "./lib/log.ts";
export { createFeed, type Feed } from "./redis/feed.ts";
export { nativeRedisTransport } from "./redis/native.ts";
export type { RedisReply, RedisTransport } from "./redis/transport.ts";
export { upstashTransport } from "./redis/upstash.ts";
export { type Refusal, type RefusalCode, refusalResponse } from "./request/refusal.ts";
export { type RunningServer, serve, type ServeOptions } from "./sockets/serve.ts";
export {
  CLOSE,
  type Socket,
  type SocketData,
  type SocketHandlers,
  type SocketLimits,
} from "./sockets/sockets.ts";
export { memoryTicketStore } from "./gate/memory.ts";
export { redisTicketStore } from "./gate/redis.ts";
export { kick, signOut } from "./gate/revocation.ts";
export type { Credential, Revocation, TicketRecord, TicketStore } from "./gate/store.ts";
export { signToken, type TokenKeys } from "./gate/token.ts";
