export {
  type ChatClient,
  type ChatClientEvents,
  type ChatClientOptions,
  createChatClient,
  type ServerFrame,
} from "./chat.ts";
export type { TokenSource } from "./api.ts";
export { type ConnectionState } from "./connection.ts";
export type { ChatPage, Conversation, ConversationMessage } from "./conversation.ts";
export { Failure } from "./failure.ts";
export type { ClientSocket, Hint, Runtime } from "./runtime.ts";
