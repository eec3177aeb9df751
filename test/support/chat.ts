import type { Chat, ChatEvent, ChatHistory } from "../../src/chat/history.ts";
import { toBase64url } from "../../src/lib/encoding.ts";
import type { Side } from "../../src/wire/frames.ts";

/** An id as visitors have it. */
export function newVisitorId(): string {
  return toBase64url(crypto.getRandomValues(new Uint8Array(16)));
}

/** Two people who have never met, and who are in no other test. */
export function newChat(): Chat {
  return { user: `user-${newVisitorId()}`, visitor: newVisitorId() };
}

/** What a history has delivered. */
export interface Delivered {
  /** Everything so far, of all chats. */
  readonly events: readonly ChatEvent[];
  /** The contents (or `<side> read <id>`, `deleted to <id>`, `blocked`) of one chat's events so far. */
  of(chat: Chat): string[];
  /** Resolves when one chat has had so many events. */
  has(chat: Chat, count: number): Promise<void>;
}

/** Starts the history and records its deliveries. */
export function deliveriesOf(history: ChatHistory): Delivered {
  const events: ChatEvent[] = [];
  const waiting = new Set<() => void>();
  history.start((event) => {
    events.push(event);
    for (const look of waiting) look();
  });
  const within = ({ user, visitor }: Chat) =>
    events.filter(({ chat: at }) => at.user === user && at.visitor === visitor);
  return {
    events,
    of: (chat) =>
      within(chat).map((event) => {
        if (event.kind === "message") return JSON.parse(event.frame).content;
        if (event.kind === "read") return `${event.by} read ${event.upTo}`;
        if (event.kind === "deleted") return `deleted to ${event.upTo}`;
        return event.blocked ? "blocked" : "not blocked";
      }),
    has(chat, count) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = () => {
        if (within(chat).length < count) return;
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

/** Stores a message and returns its id. Rejects when it is refused. */
export async function write(
  history: ChatHistory,
  chat: Chat,
  content: string,
  { from = "visitor", atMs = 1_800_000_000_000, ...rest }: WriteOptions = {},
): Promise<string> {
  const stored = await history.append({ chat, from, content, atMs, ...rest });
  if (!stored.ok) throw new Error(`Message wasn't stored: ${stored.error}`);
  return stored.id;
}

/** One message and its answer, after which the visitor may send any number. */
export async function begin(
  history: ChatHistory,
  chat: Chat,
  options: Pick<WriteOptions, "atMs"> = {},
): Promise<void> {
  await write(history, chat, "begin", options);
  await write(history, chat, "answer", { ...options, from: "user" });
}
