import type { Identity } from "../gate/admit.ts";
import { toTimestamp } from "../lib/text.ts";
import type { Chat, Message, MessageType } from "../wire/frames.ts";

/** Which of a chat's two people. */
export type Side = Identity["kind"];

/** A message that somebody wants kept. */
export interface Draft {
  readonly chat: Chat;
  readonly from: Side;
  readonly content: string;
  readonly nickname?: string | undefined;
  /** The sender's own id for the message: the same one again is the same message again. */
  readonly ref?: string | undefined;
  /** Wall clock, in milliseconds. */
  readonly atMs: number;
}

/** A message was kept (now, or when its `ref` came for the first time), or may not be. */
export type Appended =
  | { readonly ok: true; readonly id: string; readonly atMs: number }
  | { readonly ok: false; readonly error: "blocked" | "too_many_recipients" };

/** What everybody in a chat is told, in the order in which it was kept. */
export type ChatEvent =
  | {
      readonly kind: "message";
      readonly chat: Chat;
      readonly message: Message;
      /** The message as its frame, where somebody has written that already. */
      readonly frame?: string;
    }
  | { readonly kind: "read"; readonly chat: Chat; readonly by: Side; readonly upTo: string };

/** A chat as its list shows it. */
export interface ChatSummary {
  /** The other one's id. */
  readonly peer: string;
  /** Messages that came since the chat was last marked as read. */
  readonly unread: number;
  /** The visitor's latest nickname. */
  readonly nickname?: string;
  /** For users only: whether they have blocked the visitor. */
  readonly blocked?: boolean;
  readonly lastMessage: Message;
}

/** A page of a chat, oldest message first. */
export interface MessagePage {
  readonly messages: readonly Message[];
  /** Ids up to which each side has read. */
  readonly readUpTo: { readonly [side in Side]: string };
}

/** How much is kept. Oldest messages go first. */
export interface Retention {
  /** Per chat; 0 for no limit. */
  readonly maxMessages: number;
  /** 0 for no limit. */
  readonly maxAgeMs: number;
}

export const DEFAULT_RETENTION: Retention = { maxMessages: 10_000, maxAgeMs: 90 * 86_400_000 };
/** How long a `ref` is recognised, in milliseconds. */
export const REF_TTL_MS = 48 * 3_600_000;
/** How many users that were never seen here a visitor may write to: typing errors, and people yet to sign in. */
export const MAX_UNKNOWN_RECIPIENTS = 10;
/** Longest page of messages or chats. */
export const MAX_PAGE = 200;

/**
 * Where chats are kept. What was appended is on disk (or in Redis) before the promise resolves, and is then
 * handed to `deliver` of every instance, once, in one order per chat. Every method rejects when the log
 * can't do it; nothing is then kept, or the outcome is unknown and the same `ref` settles it.
 */
export interface ChatLog {
  /** Once, before anything is appended. */
  start(deliver: (event: ChatEvent) => void): void;
  append(draft: Draft): Promise<Appended>;
  /** Up to the newest message; its id comes back, `undefined` where there is no such chat. */
  markRead(chat: Chat, by: Side): Promise<string | undefined>;
  /** Newest first, those whose last message is older than `beforeId`. */
  chats(
    of: { side: Side; id: string },
    page: { beforeId?: string | undefined; limit: number },
  ): Promise<ChatSummary[]>;
  /** The first messages after `afterId` (default: the beginning), or the last ones before `beforeId`. */
  messages(
    chat: Chat,
    page: { afterId?: string | undefined; beforeId?: string | undefined; limit: number },
  ): Promise<MessagePage | undefined>;
  /** Deletes a chat for both sides; `false` where there is none. */
  remove(chat: Chat): Promise<boolean>;
  /** Whether the user wants nothing more from the visitor. */
  setBlocked(chat: Chat, blocked: boolean): Promise<void>;
  /** The user exists: visitors may write without counting towards `MAX_UNKNOWN_RECIPIENTS`. */
  meet(user: string): Promise<void>;
  close(): Promise<void>;
}

/** A message as everybody sees it. */
export function toMessage(
  chat: Chat,
  stored: {
    id: string;
    from: Side;
    content: string;
    nickname?: string | null | undefined;
    atMs: number;
  },
): Message {
  const byVisitor = stored.from === "visitor";
  const type: MessageType = byVisitor ? "ANON_TO_USER" : "USER_TO_ANON";
  return {
    type,
    id: stored.id,
    from: byVisitor ? chat.visitor : chat.user,
    to: byVisitor ? chat.user : chat.visitor,
    content: stored.content,
    ...(stored.nickname && { nickname: stored.nickname }),
    timestamp: toTimestamp(stored.atMs),
    chatId: chat.visitor,
  };
}

/** The other side. */
export function otherSide(side: Side): Side {
  return side === "user" ? "visitor" : "user";
}
