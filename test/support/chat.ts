import type { Chat, ChatEvent, ChatHistory } from "../../src/chat/history.ts";
import type { Side } from "../../src/wire/frames.ts";
import { toBase64url } from "../../src/lib/encoding.ts";

/** An id as visitors have it. */
export function newVisitorId(): string {
  return toBase64url(crypto.getRandomValues(new Uint8Array(16)));
}

/** Two people who have never met, and whom no other test knows. */
export function newChat(): Chat {
  return { user: `user-${newVisitorId()}`, visitor: newVisitorId() };
}

/** What a log tells. */
export interface Listener {
  /** Everything so far, of all chats. */
  readonly events: readonly ChatEvent[];
  /** The contents (or `<side> read <id>`) of one chat's events so far. */
  of(chat: Chat): string[];
  /** Resolves when one chat has had so many events. */
  has(chat: Chat, count: number): Promise<void>;
}

/** Starts the log and keeps what it tells. */
export function listenTo(chat: ChatHistory): Listener {
  const events: ChatEvent[] = [];
  const waiting = new Set<() => void>();
  chat.start((event) => {
    events.push(event);
    for (const look of waiting) look();
  });
  const within = ({ user, visitor }: Chat) =>
    events.filter(({ chat: at }) => at.user === user && at.visitor === visitor);
  return {
    events,
    of: (where) =>
      within(where).map((event) =>
        event.kind === "message" ? event.message.content : `${event.by} read ${event.upTo}`,
      ),
    has(where, count) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = () => {
        if (within(where).length < count) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      return promise;
    },
  };
}

interface WriteOptions {
  from?: Side;
  atMs?: number;
  ref?: string;
  nickname?: string;
}

/** Keeps a message, which nothing forbids; its id comes back. */
export async function write(
  log: ChatHistory,
  chat: Chat,
  content: string,
  { from = "visitor", atMs = 1_800_000_000_000, ...rest }: WriteOptions = {},
): Promise<string> {
  const kept = await log.append({ chat, from, content, atMs, ...rest });
  if (!kept.ok) throw new Error(`Message wasn't kept: ${kept.error}`);
  return kept.id;
}
