import type { Clock } from "../lib/clock.ts";
import { createRateLimit, type RateLimit } from "../lib/limit.ts";
import type { Side } from "../wire/frames.ts";
import { WRITING_WINDOW_MS } from "./history.ts";

/** Requests for chats per person and minute: reading, deleting, blocking, and each chat that is marked as read. */
export const REQUESTS_PER_MINUTE = 600;
/** Requests per address, and as many chats that are marked as read by frames; loopback excepted. */
const REQUESTS_PER_ADDRESS = 3_000;
/** Characters that a user may write per minute, by default; a visitor may write a quarter. */
export const CHARACTERS_PER_MINUTE = 40_000;
/** What a message costs beside its characters: storing and delivering it takes as much, however short it is. */
const MESSAGE_COST = 50;
const VISITOR_SHARE = 0.25;
/** Visitors' worth of characters that all visitors of an address may write a minute, loopback excepted. */
const VISITORS_PER_ADDRESS = 10;
/** Longest time that a page waits for its turn, in milliseconds. */
export const MAX_PAGE_WAIT_MS = 2_000;
/** Pages per address, 10 at once and then 40 a second, loopback excepted: nothing else here takes as long. */
const PAGES = { allowed: 10, windowMs: 250, debtMs: MAX_PAGE_WAIT_MS };
/** Messages of visitors without an answer per address and ten minutes, loopback excepted. */
const UNANSWERED_PER_ADDRESS = 300;
/** Times that somebody writes, as shown to the partner, per person and minute: three chats at once. */
const TYPING_PER_MINUTE = 60;

/** What a message costs of what its sender may write. */
export function costOf(content: string): number {
  return content.length + MESSAGE_COST;
}

/** How much one person or address may do with chats. */
export interface ChatLimits {
  /** What messages cost, for users and for visitors, by identity, as far as this process has seen. */
  readonly writing: Readonly<Record<Side, RateLimit<string>>>;
  /** What such a cost takes of `WRITING_WINDOW_MS`, for what all processes have seen together. */
  costMs(side: Side, cost: number): number;
  /** What visitors' messages cost, by address: a new cookie is a new visitor. */
  readonly visitors: RateLimit<string>;
  /** Chats marked as read by frames, by identity, as far as this process has seen; and by address. */
  readonly marks: RateLimit<string>;
  readonly marksOfAddress: RateLimit<string>;
  /** `TYPING` frames, by identity. */
  readonly typing: RateLimit<string>;
  /** Requests over HTTP, by address. */
  readonly requests: RateLimit<string>;
  /** Pages, by address: whoever is early waits. */
  readonly pages: RateLimit<string>;
  /** Messages that nobody has answered yet, by address. */
  readonly unanswered: RateLimit<string>;
}

/** `charactersPerMinute`: per user; 0 for no limit. */
export function createChatLimits(options: {
  charactersPerMinute: number;
  clock: Clock;
}): ChatLimits {
  const { charactersPerMinute, clock } = options;
  const allowed = {
    user: (charactersPerMinute * WRITING_WINDOW_MS) / 60_000,
    visitor: (charactersPerMinute * VISITOR_SHARE * WRITING_WINDOW_MS) / 60_000,
  };
  const inWindow = (most: number) =>
    createRateLimit<string>({ allowed: most, windowMs: WRITING_WINDOW_MS, clock });
  const perMinute = (allowed: number, debtMs = 0) =>
    createRateLimit<string>({ allowed, windowMs: 60_000, debtMs, clock });
  return {
    writing: { user: inWindow(allowed.user), visitor: inWindow(allowed.visitor) },
    costMs(side, cost) {
      if (charactersPerMinute === 0) return 0;
      return Math.min(1, cost / allowed[side]) * WRITING_WINDOW_MS;
    },
    visitors: createRateLimit<string>({
      allowed: charactersPerMinute * VISITOR_SHARE * VISITORS_PER_ADDRESS,
      windowMs: 60_000,
      clock,
    }),
    marks: perMinute(REQUESTS_PER_MINUTE),
    marksOfAddress: perMinute(REQUESTS_PER_ADDRESS),
    typing: perMinute(TYPING_PER_MINUTE),
    // What a page costs is known once it is there.
    requests: perMinute(REQUESTS_PER_ADDRESS, 60_000),
    pages: createRateLimit<string>({ ...PAGES, clock }),
    unanswered: createRateLimit<string>({
      allowed: UNANSWERED_PER_ADDRESS,
      windowMs: 600_000,
      clock,
    }),
  };
}
