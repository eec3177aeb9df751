/** Longest message, in UTF-16 code units as the browser counts them. */
export const MAX_CONTENT_LENGTH = 4_000;
/** Longest nickname. */
export const MAX_NICKNAME_LENGTH = 40;
/** Longest `ref`: the sender's own id for a message. */
export const MAX_REF_LENGTH = 100;
/** Longest page of messages or chats. */
export const MAX_PAGE = 200;

/** A frame's type says who writes to whom. */
export type MessageType = "ANON_TO_USER" | "USER_TO_ANON";

/** Which of a chat's two people. */
export type Side = "user" | "visitor";

/** The other side of a chat. */
export function otherSide(side: Side): Side {
  return side === "user" ? "visitor" : "user";
}

/** A message as it is stored and delivered. The server sets `id`, `from` and `timestamp`. */
export interface Message {
  /** Who writes to whom. */
  readonly type: MessageType;
  /** A decimal number that rises within a chat. */
  readonly id: string;
  /** The sender's id. */
  readonly from: string;
  /** The recipient's id. */
  readonly to: string;
  /** 1 to 4,000 characters. */
  readonly content: string;
  /** What the visitor calls himself. */
  readonly nickname?: string;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
  /** The visitor's id. */
  readonly chatId: string;
}

/** What can be wrong with a frame: the closed table of `ERROR` codes. */
export const FRAME_ERRORS = {
  malformed: "The frame is not a JSON object of a known type",
  not_allowed: "You can't send this type of message",
  invalid_recipient: "The recipient is not an id",
  invalid_content: "The content is empty, too long, or has control characters",
  invalid_nickname: "The nickname is too long or has control characters",
  invalid_ref: "The ref is too long or has control characters",
  not_found: "There is no such chat",
  blocked: "The recipient doesn't accept messages from you",
  too_many_messages: "You are sending too much; wait before you send more, or for an answer",
  too_many_recipients: "Too many people you wrote to have never answered",
  unavailable: "The message couldn't be stored; send it again with the same ref",
} as const;

/** What is wrong with a frame. */
export type FrameErrorCode = keyof typeof FRAME_ERRORS;

/** What the server sends, as JSON in text frames. */
export type ServerFrame =
  | Message
  /** The message with this `ref` is stored. */
  | {
      readonly type: "ACK";
      readonly ref?: string | undefined;
      readonly id: string;
      readonly timestamp: string;
    }
  | {
      readonly type: "READ";
      readonly chatId: string;
      readonly user: string;
      readonly by: string;
      readonly upTo: string;
    }
  /** The chat was deleted for both sides, with its messages up to this id. */
  | {
      readonly type: "DELETED";
      readonly chatId: string;
      readonly user: string;
      readonly upTo: string;
    }
  /** To the user's sockets alone: whether the visitor's messages are refused from now on. */
  | {
      readonly type: "BLOCKED";
      readonly chatId: string;
      readonly user: string;
      readonly blocked: boolean;
    }
  /** The partner writes. Nothing says that it ends: it comes again every few seconds, or a message does. */
  | { readonly type: "TYPING"; readonly from: string }
  /** Every 25 seconds: without one for 55, the connection is dead. */
  | { readonly type: "HEARTBEAT" }
  /** The socket's credential ends soon. */
  | { readonly type: "EXPIRING"; readonly inSeconds: number }
  | {
      readonly type: "ERROR";
      readonly ref?: string | undefined;
      readonly code: FrameErrorCode;
      readonly message: string;
    };

/** What is about one chat. Beside `chatId`, a message has its user in `from` or `to`, and others have `user`. */
export type ChatFrame = Extract<ServerFrame, { chatId: string }>;

/** What a client sends, as JSON in text frames. */
export type ClientFrame =
  | {
      readonly type: MessageType;
      readonly to: string;
      readonly content: string;
      readonly nickname?: string | undefined;
      readonly ref?: string | undefined;
    }
  | {
      readonly type: "MARK_AS_READ";
      readonly chatId: string;
      /** From a visitor: which user's chat; without it, all of them. */
      readonly to?: string | undefined;
      readonly ref?: string | undefined;
    }
  /** Shown to the partner where messages would arrive, and otherwise dropped: it gets no response. */
  | { readonly type: "TYPING"; readonly to: string };

/** A chat as `GET /api/chats` lists it. */
export interface ChatSummary {
  /** The partner's id. */
  readonly peer: string;
  /** Messages received since the chat was last marked as read. */
  readonly unread: number;
  /** The visitor's latest nickname. */
  readonly nickname?: string;
  /** For users only: whether they have blocked the visitor. */
  readonly blocked?: boolean;
  /** Without its nickname. */
  readonly lastMessage: Message;
}

/** A page of a user's or visitor's chats, newest first. */
export interface ChatPage {
  /** At most 200. */
  readonly chats: readonly ChatSummary[];
  /** Whether there may be further ones. */
  readonly more: boolean;
}

/** A page of a chat, oldest message first. */
export interface MessagePage {
  /** At most 200. */
  readonly messages: readonly Message[];
  /** Ids up to which each side has read. */
  readonly readUpTo: { readonly [side in Side]: string };
  /** Whether there may be further ones. */
  readonly more: boolean;
}
