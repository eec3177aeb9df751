import { createBatcher } from "../lib/batch.ts";
import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import type { Feed } from "../redis/feed.ts";
import { feedKeys, requirePrefix } from "../redis/keys.ts";
import { createMemoryGuard } from "../redis/memory.ts";
import { createScriptRunner } from "../redis/script.ts";
import { SPEND } from "../redis/spend.ts";
import type { RedisTransport } from "../redis/transport.ts";
import type { ChatSummary, Message, Side } from "../wire/frames.ts";
import {
  type AppendError,
  type Appended,
  type Chat,
  type ChatHistory,
  DEFAULT_RETENTION,
  type Draft,
  FAILING_MS,
  previewOf,
  REF_TTL_MS,
  type Retention,
  toMessage,
} from "./history.ts";
import { REQUESTS_PER_MINUTE } from "./limits.ts";
import { APPEND, LIST, MARK_READ, PAGE, PROBE, REMOVE, SET_BLOCKED } from "./scripts.ts";

/** Written to find out whether anything can be. */
const PROBES = ["value", "stream", "hash", "set"];
/** Text in one script, and in one entry of the feed, about; in UTF-16 code units. */
const MAX_BATCH_LENGTH = 64_000;
/** Scripts in progress at once, so that Redis works on one while this process prepares the next. */
const PARALLEL = 6;
/** What a message takes beside its content. */
const ENVELOPE_LENGTH = 250;

/** Chats in a Redis that several servers share. Every write is one script; events arrive through the feed. */
export function redisChatHistory(options: {
  transport: RedisTransport;
  /** Lent: the ticket store closes it. */
  feed: Feed;
  prefix?: string | undefined;
  clock: Clock;
  retention?: Partial<Retention> | undefined;
}): ChatHistory {
  const { transport, feed, clock } = options;
  const shared = requirePrefix(options.prefix);
  const feedOf = feedKeys(shared);
  /** Start of every key of the chat's. */
  const prefix = `${shared}chat:`;
  const { maxMessages, maxAgeMs } = { ...DEFAULT_RETENTION, ...options.retention };
  const run = createScriptRunner(transport);
  const memory = createMemoryGuard({ transport, clock });

  /** A chat's part of a key: the visitor first, whose id has a fixed length, so that no two chats share one. */
  function nameOf({ user, visitor }: Chat): string {
    return `${visitor}:${user}`;
  }

  function messagesKey(chat: Chat): string {
    return `${prefix}messages:${nameOf(chat)}`;
  }

  function chatKey(chat: Chat): string {
    return `${prefix}chat:${nameOf(chat)}`;
  }

  function indexKey(side: Side, id: string): string {
    return `${prefix}of-${side}:${id}`;
  }

  function blockedKey(user: string): string {
    return `${prefix}blocked:${user}`;
  }

  function profileKey(user: string): string {
    return `${prefix}profile:${user}`;
  }

  function oldestMs(): number {
    return maxAgeMs === 0 ? 0 : clock.nowMs() - maxAgeMs;
  }

  /** Keeps the order: only a transport that does so, too, has more than one batch in progress. */
  const appends = createBatcher<Draft, Appended>(
    async (drafts) => {
      if (await memory.isNearlyFull()) throw new Error("Redis is nearly full");
      const outcomes = (await run(
        APPEND,
        [`${prefix}sequence`, ...feedOf],
        [REF_TTL_MS, maxMessages, maxAgeMs, prefix, ...drafts.flatMap(argumentsOf)],
      )) as string[];
      feed.wake();
      return outcomes.map(toAppended);
    },
    {
      clock,
      deadlineMs: DEPENDENCY_DEADLINE_MS,
      senderOf: ({ chat, from }) => `${from}:${chat[from]}`,
      failingMs: FAILING_MS,
      weigh: ({ content }) => content.length + ENVELOPE_LENGTH,
      maxWeight: MAX_BATCH_LENGTH,
      parallel: transport.isOrdered ? PARALLEL : 1,
    },
  );

  return {
    start(deliver) {
      feed.on("messages", ({ frames = "" }) => {
        // Neither a user's id nor JSON has a tab or a line feed.
        for (const line of frames.split("\n")) {
          const [name = "", frame = ""] = line.split("\t");
          deliver({ kind: "message", chat: chatOf(name), frame });
        }
      });
      feed.on("read", ({ user = "", visitor = "", by, upTo = "" }) => {
        deliver({ kind: "read", chat: { user, visitor }, by: by as Side, upTo });
      });
      feed.on("deleted", ({ user = "", visitor = "", upTo = "" }) => {
        deliver({ kind: "deleted", chat: { user, visitor }, upTo });
      });
      feed.on("blocked", ({ user = "", visitor = "", blocked }) => {
        deliver({ kind: "blocked", chat: { user, visitor }, blocked: blocked === "1" });
      });
    },
    append: (draft) => appends.add(transport.isOrdered ? draft : withRef(draft)),
    async isOpen(chat) {
      return String(await transport.command(["HGET", chatKey(chat), "blocked"])) === "0";
    },
    async markRead(chat, by) {
      const { user, visitor } = chat;
      const upTo = await run(
        MARK_READ,
        [messagesKey(chat), chatKey(chat), ...feedOf],
        [by, user, visitor],
      );
      feed.wake();
      return typeof upTo === "string" ? upTo : undefined;
    },
    async chats({ side, id }, { beforeId, limit }) {
      const reply = await run(
        LIST,
        [indexKey(side, id), blockedKey(id)],
        [beforeId === undefined ? "+inf" : `(${beforeId}`, limit, prefix, side, id, oldestMs()],
      );
      const rows = reply as unknown as [string, number, string, number, string, string][];
      return rows.map(([peer, unread, nickname, blocked, lastId, body]): ChatSummary => {
        return {
          peer,
          unread,
          ...(nickname !== "" && { nickname }),
          ...(side === "user" && { blocked: blocked === 1 }),
          lastMessage: previewOf(toStored(lastId, body)),
        };
      });
    },
    async messages(chat, { afterId = "0", beforeId, limit }) {
      const range =
        beforeId === undefined
          ? ["XRANGE", `(${afterId}-0`, "+"]
          : ["XREVRANGE", String(Math.max(0, Number(beforeId) - 1)), "-"];
      const reply = await run(
        PAGE,
        [messagesKey(chat), chatKey(chat)],
        [...range, limit, oldestMs()],
      );
      if (!reply) return undefined;
      const [entries, user, visitor, isCut] = reply as unknown as [
        StreamEntry[],
        string,
        string,
        number,
      ];
      const messages = entries.map(fromStream);
      if (beforeId !== undefined) messages.reverse();
      const more = isCut === 1 || messages.length === limit;
      return { messages, readUpTo: { user, visitor }, more };
    },
    async remove(chat) {
      const { user, visitor } = chat;
      const keys = [messagesKey(chat), chatKey(chat)];
      const indexes = [indexKey("user", user), indexKey("visitor", visitor)];
      const removed = await run(REMOVE, [...keys, ...indexes, ...feedOf], [user, visitor]);
      feed.wake();
      return removed === 1;
    },
    async setBlocked(chat, blocked) {
      const { user, visitor } = chat;
      const keys = [chatKey(chat), blockedKey(user), ...feedOf];
      const outcome = await run(SET_BLOCKED, keys, [user, visitor, blocked ? 1 : 0]);
      feed.wake();
      return outcome as "done" | "not_found" | "too_many";
    },
    async setProfile(user, profile) {
      const isEmpty = Object.keys(profile).length === 0;
      const key = profileKey(user);
      // Half of the room is for tickets and sign-outs, and a name can wait.
      if (!isEmpty && (await memory.isNearlyFull())) return;
      await transport.command(isEmpty ? ["DEL", key] : ["SET", key, JSON.stringify(profile)]);
    },
    async profile(user) {
      const json = await transport.command(["GET", profileKey(user)]);
      return typeof json === "string" ? JSON.parse(json) : {};
    },
    async spendRequests(key, count) {
      const args = [(count * 60_000) / REQUESTS_PER_MINUTE, 60_000];
      return Number(await run(SPEND, [`${prefix}requests:${key}`], args));
    },
    async probe() {
      await run(
        PROBE,
        PROBES.map((kind) => `${prefix}probe:${kind}`),
        [],
      );
    },
    close: () => transport.close(),
  };
}

function argumentsOf(draft: Draft): (string | number)[] {
  const { chat, from, nickname = "", ref, atMs, onlyAnswered, costMs = 0 } = draft;
  const { id: _, ...message } = toMessage(chat, { ...draft, id: "" });
  // Without the brace before the id, which Redis makes.
  const body = JSON.stringify(message).slice(1);
  const preview = previewOf(message as Message);
  const isCut = preview.content !== message.content;
  return [
    from,
    chat.user,
    chat.visitor,
    nickname,
    atMs,
    ref === undefined ? "" : JSON.stringify([chat.user, ref]),
    onlyAnswered ? 1 : 0,
    body,
    isCut ? JSON.stringify(preview).slice(1) : "",
    Math.round(costMs),
  ];
}

function toAppended(outcome: string): Appended {
  if (isRefusal(outcome)) return { ok: false, error: outcome };
  const [id = "", atMs, unanswered] = outcome.split(" ");
  return { ok: true, id, atMs: Number(atMs), isUnanswered: unanswered !== undefined };
}

/** A message in its chat's stream: its time, and all of it but the id. */
type StreamEntry = readonly [id: string, fields: readonly [at: "at", string, body: "body", string]];

function fromStream([id, [, , , body]]: StreamEntry): Message {
  return toStored(id.split("-")[0] ?? "", body);
}

/** A message as it is in Redis. */
function toStored(id: string, body: string): Message {
  return JSON.parse(`{"id":"${id}",${body}`);
}

/** The chat of a name. */
function chatOf(name: string): Chat {
  const end = name.indexOf(":");
  return { visitor: name.slice(0, end), user: name.slice(end + 1) };
}

function isRefusal(outcome: string): outcome is AppendError {
  return ["blocked", "not_found", "too_many_messages", "too_many_recipients"].includes(outcome);
}

/** Over HTTP a request may be carried out twice on its way: with a `ref` that does no harm. */
function withRef(draft: Draft): Draft {
  return draft.ref === undefined ? { ...draft, ref: crypto.randomUUID() } : draft;
}
