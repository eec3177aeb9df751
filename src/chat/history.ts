import { toTimestamp } from "../lib/text.ts";
import type { ChatSummary, Message, MessagePage, MessageType, Side } from "../wire/frames.ts";

/** Two people who write to each other: one user and one visitor. Its `chatId` on the wire is the visitor's id. */
export interface Chat {
  /** The user's id. */
  readonly user: string;
  /** The visitor's id. */
  readonly visitor: string;
}

/** A message to be stored. */
export interface Draft {
  /** Between whom. */
  readonly chat: Chat;
  /** By whom. */
  readonly from: Side;
  /** 1 to 4,000 characters. */
  readonly content: string;
  /** What the visitor calls himself. */
  readonly nickname?: string | undefined;
  /** The sender's own id for the message: the same one again is the same message again. */
  readonly ref?: string | undefined;
  /** Wall clock, in milliseconds. */
  readonly atMs: number;
}

/** A message was stored (now, or when its `ref` came for the first time), or was refused. */
export type Appended =
  | { readonly ok: true; readonly id: string; readonly atMs: number }
  | { readonly ok: false; readonly error: "blocked" | "not_found" | "too_many_recipients" };

/** What both sides of a chat receive, in the order in which it was stored. */
export type ChatEvent =
  | {
      readonly kind: "message";
      readonly chat: Chat;
      readonly message: Message;
      /** The message as its frame, where that was written already. */
      readonly frame?: string;
    }
  | { readonly kind: "read"; readonly chat: Chat; readonly by: Side; readonly upTo: string };

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
/** Users who have never answered a visitor, at most, whether they exist or not; nobody can find out which. */
export const MAX_UNANSWERED = 10;
/** How long an unanswered chat counts, in milliseconds: as long as a visitor is remembered. */
export const UNANSWERED_TTL_MS = 30 * 86_400_000;

/**
 * Where chats are stored. What was appended is on disk (or in Redis) before the promise resolves, and is then
 * passed to `deliver` of every instance, once, in one order per chat. Every method rejects when the history
 * fails; then nothing was stored, or the outcome is unknown and the same `ref` settles it.
 */
export interface ChatHistory {
  /** Once, before anything is appended. */
  start(deliver: (event: ChatEvent) => void): void;
  /**
   * Stores a message. `not_found` for a user who writes first: only visitors start chats; `blocked`, and
   * `too_many_recipients` for a visitor with `MAX_UNANSWERED` chats that nobody answered.
   */
  append(draft: Draft): Promise<Appended>;
  /** Marks a chat as read up to its newest message, and returns that id; `undefined` where there is no such chat. */
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
  ): Promise<Omit<MessagePage, "more"> | undefined>;
  /** Deletes a chat for both sides; `false` where there is none. */
  remove(chat: Chat): Promise<boolean>;
  /** Sets whether the user accepts messages from the visitor. */
  setBlocked(chat: Chat, blocked: boolean): Promise<void>;
  /** Rejects while nothing can be stored. Left out: that can't be said. */
  probe?(): Promise<void>;
  /** Closes the database or connection. */
  close(): Promise<void>;
}

/** A stored message as everybody sees it. */
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
  const isByVisitor = stored.from === "visitor";
  const type: MessageType = isByVisitor ? "ANON_TO_USER" : "USER_TO_ANON";
  return {
    type,
    id: stored.id,
    from: isByVisitor ? chat.visitor : chat.user,
    to: isByVisitor ? chat.user : chat.visitor,
    content: stored.content,
    ...(stored.nickname && { nickname: stored.nickname }),
    timestamp: toTimestamp(stored.atMs),
    chatId: chat.visitor,
  };
}
