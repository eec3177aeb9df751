export { type ChatOptions, type ChatService, createChat } from "./chat/chat.ts";
export type {
  AppendError,
  Appended,
  Chat,
  ChatEvent,
  ChatHistory,
  Draft,
  Retention,
} from "./chat/history.ts";
export { sqliteChatHistory } from "./chat/sqlite.ts";
export { openRedis, type RedisSettings, type SharedRedis } from "./open.ts";
export { nativeRedisTransport } from "./redis/native.ts";
export type { SocketLimits } from "./sockets/limits.ts";
export { type RunningServer, serve, type ServeOptions } from "./sockets/serve.ts";
export type { Socket, SocketData, SocketHandlers } from "./sockets/socket.ts";
export { createSockets, type Sockets, type StopOptions } from "./sockets/sockets.ts";
export {
  type ChatSummary,
  FRAME_ERRORS,
  type FrameErrorCode,
  type Message,
  type MessagePage,
  type MessageType,
  type Side,
} from "./wire/frames.ts";
