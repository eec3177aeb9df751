export {
  type ChatClient,
  type ChatClientEvents,
  type ChatClientOptions,
  createChatClient,
} from "./chat.ts";
export { connect, type ConnectOptions, type Paths, type TokenSource } from "./connect.ts";
export type { Connection, ConnectionEvents, ConnectionState } from "./connection.ts";
export { type ChatList, type ChatListEvents, createChatList } from "./list.ts";
export type { Conversation, ConversationMessage, Outbox, Unsent } from "./conversation.ts";
export { Failure } from "./failure.ts";
export {
  createDrafts,
  createOutbox,
  type Drafts,
  type StorageOptions,
  type TextStorage,
} from "./storage.ts";
export type { ClientSocket, Hint, Runtime } from "./runtime.ts";
export type {
  ChatPage,
  ChatSummary,
  FrameErrorCode,
  Message,
  MessagePage,
  MessageType,
  ServerFrame,
  Side,
} from "../wire/frames.ts";
