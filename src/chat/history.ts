import type { Profile } from "../gate/identity.ts";
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
  /** Refuse it with `too_many_messages` unless the user has answered this visitor before. */
  readonly onlyAnswered?: boolean | undefined;
  /**
   * What it takes of the `WRITING_WINDOW_MS` that its sender has, in milliseconds: a history that several processes
   * share refuses it with `too_many_messages` when less is left. Default 0.
   */
  readonly costMs?: number | undefined;
}

/** A message was stored (now, or when its `ref` came for the first time), or was refused. */
export type Appended =
  | {
      readonly ok: true;
      readonly id: string;
      readonly atMs: number;
      /** It was stored now, a visitor wrote it, and the user has never answered. */
      readonly isUnanswered: boolean;
    }
  | { readonly ok: false; readonly error: AppendError };

/** Why a message was refused. */
export type AppendError = "blocked" | "not_found" | "too_many_messages" | "too_many_recipients";

/** What both sides of a chat receive (`blocked`: the user alone), in the order in which it was stored. */
export type ChatEvent =
  | {
      readonly kind: "message";
      readonly chat: Chat;
      /** The message as text. */
      readonly frame: string;
    }
  | {
      readonly kind: "read";
      readonly chat: Chat;
      readonly by: Side;
      readonly upTo: string;
    }
  /** The chat is gone, with its messages up to this id. */
  | { readonly kind: "deleted"; readonly chat: Chat; readonly upTo: string }
  | { readonly kind: "blocked"; readonly chat: Chat; readonly blocked: boolean };

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
/** Messages of a visitor to a user who has never answered, at most, deleted ones included. */
export const MAX_UNANSWERED_MESSAGES = 20;
/** Time whose worth somebody may write at once, in milliseconds. */
export const WRITING_WINDOW_MS = 600_000;
/** Visitors that a user may have blocked at once. */
export const MAX_BLOCKS = 10_000;
/** Longest page of messages, in UTF-16 code units of their contents, about. */
export const MAX_PAGE_LENGTH = 64_000;
/** Longest last message in a list of chats, in UTF-16 code units. */
export const MAX_PREVIEW_LENGTH = 200;
/** A sender's later messages fail for this long after one has failed, in milliseconds, so that none overtakes it. */
export const FAILING_MS = 1_000;

/** How long a user who hasn't answered counts, in milliseconds: as long as a visitor is remembered. */
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
   * Stores a message. `not_found` for a user who writes first: only visitors start chats; `blocked`;
   * `too_many_recipients` for a visitor who has written to `MAX_UNANSWERED` users who never answered, and
   * `too_many_messages` for one who has written `MAX_UNANSWERED_MESSAGES` to this one. Both within
   * `UNANSWERED_TTL_MS` of the first.
   */
  append(draft: Draft): Promise<Appended>;
  /** Whether both may write to each other: the visitor has begun, and isn't blocked. */
  isOpen(chat: Chat): Promise<boolean>;
  /** Marks a chat as read up to its newest message, and returns that id; `undefined` where there is no such chat. */
  markRead(chat: Chat, by: Side): Promise<string | undefined>;
  /** Newest first, those whose last message is older than `beforeId`. */
  chats(
    of: { side: Side; id: string },
    page: { beforeId?: string | undefined; limit: number },
  ): Promise<ChatSummary[]>;
  /**
   * The first messages after `afterId` (default: the beginning), or the last ones before `beforeId`: `limit`, or
   * fewer and at least one when their contents are longer than `MAX_PAGE_LENGTH`.
   */
  messages(
    chat: Chat,
    page: { afterId?: string | undefined; beforeId?: string | undefined; limit: number },
  ): Promise<MessagePage | undefined>;
  /** Deletes a chat for both sides; `false` where there is none. */
  remove(chat: Chat): Promise<boolean>;
  /**
   * Sets whether the user accepts messages from the visitor. `not_found` when there is nothing to block, and
   * `too_many` for more than `MAX_BLOCKS`.
   */
  setBlocked(chat: Chat, blocked: boolean): Promise<"done" | "not_found" | "too_many">;
  /** Stores what a user shows to visitors, in place of what was there. */
  setProfile(user: string, profile: Profile): Promise<void>;
  /** What a user shows to visitors; empty for a user who has never signed in. */
  profile(user: string): Promise<Profile>;
  /**
   * Spends so many of the requests and read marks that somebody may make per minute, over all processes; returns the
   * milliseconds to wait when there aren't as many left. Less than 0 gives back what was spent.
   */
  spendRequests(identityKey: string, count: number): Promise<number>;
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

/** A message as a list of chats shows it. */
export function previewOf({ nickname: _, ...message }: Message): Message {
  const { content } = message;
  if (content.length <= MAX_PREVIEW_LENGTH) return message;
  return {
    ...message,
    content: `${content.slice(0, MAX_PREVIEW_LENGTH - 1).replace(/[\ud800-\udbff]$/, "")}…`,
  };
}
