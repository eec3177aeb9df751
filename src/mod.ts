export type { Admission } from "./gate/admit.ts";
export type { ProveUser } from "./gate/authenticate.ts";
export { createGate, type Gate } from "./gate/gate.ts";
export type {
  GateOptions,
  JwksOptions,
  PublicKeyOptions,
  SecretOptions,
  TokenOptions,
  UserOptions,
} from "./gate/gate-options.ts";
export type { Identity, UserCredential } from "./gate/identity.ts";
export type { KeySet } from "./gate/jwks.ts";
export { memoryTicketStore } from "./gate/memory.ts";
export { redisTicketStore } from "./gate/redis.ts";
export type { Revocation, RevocationFeed, TicketRecord, TicketStore } from "./gate/store.ts";
export type { Identified, IssuedTicket } from "./gate/ticket.ts";
export { signToken } from "./gate/token.ts";
export { type Clock, systemClock } from "./lib/clock.ts";
export { createLog, type Log, type LogEvent, type LogFields, type LogLevel } from "./lib/log.ts";
export type { RedisReply, RedisTransport } from "./redis/transport.ts";
export { upstashTransport } from "./redis/upstash.ts";
export type { ConnectionInfo } from "./request/incoming.ts";
export {
  REFUSALS,
  type Refusal,
  type RefusalCode,
  refusalResponse,
  type TokenFault,
} from "./request/refusal.ts";
export { CLOSE, type Close } from "./wire/close.ts";
