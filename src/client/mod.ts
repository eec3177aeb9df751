export {
  type ChatClient,
  type ChatClientEvents,
  type ChatClientOptions,
  createChatClient,
} from "./chat.ts";
export type { TokenSource } from "./api.ts";
export { type ConnectionState } from "./connection.ts";
export type { Conversation, ConversationMessage } from "./conversation.ts";
export { Failure } from "./failure.ts";
export type { ClientSocket, Hint, Runtime } from "./runtime.ts";
export {
  type ChatPage,
  type ChatSummary,
  FRAME_ERRORS,
  type FrameErrorCode,
  type Message,
  type MessagePage,
  type MessageType,
  type ServerFrame,
  type Side,
} from "../wire/frames.ts";
