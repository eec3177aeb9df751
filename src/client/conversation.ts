import {
  type ChatPage,
  type FrameErrorCode,
  type Message,
  type MessagePage,
  otherSide,
  type Side,
} from "../wire/frames.ts";
import { CHATS_PATH } from "../wire/paths.ts";
import type { Api } from "./api.ts";
import { FIRST_CEILING_MS, MAX_CEILING_MS } from "./connection.ts";
import type { Failure } from "./failure.ts";
import type { Runtime } from "./runtime.ts";

/** Messages on the first page, and on each of those before it. */
const PAGE = 50;
/** Messages asked for at once when some were missed. */
const MISSED_PAGE = 200;
/** The newest chats. */
export const CHATS = `${CHATS_PATH}?limit=200`;
/** Greater than any id: the page before it is the newest. */
const END = 999_999_999_999_999;

/** Where a chat is. */
export function chatPath(peer: string): string {
  return `${CHATS_PATH}/${encodeURIComponent(peer)}`;
}

/** A message as its sender or its reader sees it. */
export interface ConversationMessage {
  /** The same for as long as this client knows the message. */
  readonly key: string;
  /** Whether this side wrote it. */
  readonly isMine: boolean;
  /** 1 to 4,000 characters. */
  readonly content: string;
  /** What the visitor calls himself. */
  readonly nickname?: string | undefined;
  /** Wall clock of the server; of this machine while it is pending. */
  readonly atMs: number;
  /** What became of it. */
  readonly status: "received" | "pending" | "sent" | "read" | "failed";
  /** Why it failed. */
  readonly error?: FrameErrorCode | "too_big" | undefined;
}

/** A message on its way: kept until the server has acknowledged it. */
export interface Draft {
  readonly ref: string;
  readonly peer: string;
  readonly content: string;
  readonly nickname: string | undefined;
  readonly atMs: number;
  /** Number of the socket that it went over last; 0 for none. */
  sentOver: number;
  error?: FrameErrorCode | "too_big" | undefined;
  /** A stored message that may be this one, whose ACK is still to come. */
  twin?: number | undefined;
}

/** What is known about one chat: what was stored, in order and without doubles, then what is on its way. */
export interface Conversation {
  /** The other one's id. */
  readonly peer: string;
  /** Oldest first; those without an answer from the server last. */
  readonly messages: readonly ConversationMessage[];
  /** Whether the first page is there (it may be empty). */
  readonly isLoaded: boolean;
  /** Whether there are older messages on the server. */
  readonly hasOlder: boolean;
  /** Received, and not yet marked as read. */
  readonly unread: number;
  /** Keeps trying until the server has acknowledged it, or has refused it for good. */
  send(content: string, options?: { nickname?: string | undefined }): void;
  /** Tries a failed message again. */
  retry(key: string): void;
  /** Marks everything received as read. */
  markRead(): void;
  /** Loads the page before the oldest message. */
  loadOlder(): Promise<void>;
  /** Stops following it. What is on its way stays so. */
  close(): void;
}

/** A conversation, and what the client tells it. */
export interface TrackedConversation extends Conversation {
  /** Catches up with the server, from the newest message that is known for sure. */
  sync(): Promise<void>;
  add(message: Message): void;
  acknowledge(draft: Draft, ack: { id: string; timestamp: string }): void;
  read(by: Side, upTo: string): void;
  /** Frames may be missed from now on. */
  disconnect(): void;
}

interface Stored {
  readonly id: number;
  readonly key: string;
  readonly isMine: boolean;
  readonly content: string;
  readonly nickname: string | undefined;
  readonly atMs: number;
}

export function createConversation(options: {
  peer: string;
  side: Side;
  api: Api;
  runtime: Runtime;
  /** Drafts of all conversations, in the order in which they were written. */
  drafts: Set<Draft>;
  /** Sends what can be sent. */
  flush(): void;
  onChange(): void;
  onMarkRead(chatId: string): void;
  onClose(): void;
}): TrackedConversation {
  const { peer, side, api, runtime, drafts, flush, onChange } = options;
  const path = `${chatPath(peer)}/messages`;
  const other = otherSide(side);
  const stored: Stored[] = [];
  const readUpTo = { user: 0, visitor: 0 };
  /** The chat's name on the wire, once it is known: the visitor's id. */
  let chatId = side === "user" ? peer : undefined;
  /** Nothing up to here is missing. */
  let cursor = 0;
  let isSynced = false;
  let isLoaded = false;
  let hasOlder = false;
  let run = 0;
  let failures = 0;
  let cancelRetry = (): void => {};
  let older: Promise<void> | undefined;

  /** Keeps a message in its place, unless it is there already. */
  function insert(
    { content, nickname }: Pick<Message, "content"> & { nickname?: string | undefined },
    given: { id: string; timestamp: string },
    isMine: boolean,
    key = given.id,
  ): boolean {
    const [id, atMs] = [Number(given.id), Date.parse(given.timestamp)];
    const at = stored.findLastIndex((one) => one.id <= id);
    if (stored[at]?.id === id) return false;
    stored.splice(at + 1, 0, { id, key, isMine, content, nickname, atMs });
    return true;
  }

  function take(message: Message): void {
    const isMine = (message.type === "USER_TO_ANON") === (side === "user");
    chatId = message.chatId;
    if (!insert(message, message, isMine) || !isMine) return;
    // Stored, but its ACK was lost or is slower: one of the two is enough to look at.
    const twin = own().find(
      (draft) =>
        draft.sentOver > 0 && draft.twin === undefined && draft.content === message.content,
    );
    if (twin) twin.twin = Number(message.id);
  }

  function takePage(page: MessagePage): void {
    for (const message of page.messages) take(message);
    for (const by of ["user", "visitor"] as const) read(by, page.readUpTo[by]);
  }

  function read(by: Side, upTo: string): void {
    readUpTo[by] = Math.max(readUpTo[by], Number(upTo));
  }

  function own(): Draft[] {
    return [...drafts].filter((draft) => draft.peer === peer);
  }

  /** Sends a message, for the first time or once more. */
  function submit(draft: Draft): void {
    draft.error = undefined;
    draft.sentOver = 0;
    drafts.add(draft);
    flush();
    onChange();
  }

  function disconnect(): void {
    run++;
    isSynced = false;
    cancelRetry();
  }

  /** Asked before the first page, because browsers complain loudly about an answer that says: not there. */
  async function exists(): Promise<boolean> {
    const { chats, more } = await api.call<ChatPage>("GET", CHATS);
    return more || chats.some((chat) => chat.peer === peer);
  }

  /** A page; none when nobody has written yet, or the chat was deleted. */
  function load(query: string): Promise<MessagePage | undefined> {
    return api.call<MessagePage>("GET", `${path}?${query}`).catch((error: Failure) => {
      if (error.code !== 404) throw error;
      return undefined;
    });
  }

  async function sync(): Promise<void> {
    disconnect();
    const thisRun = run;
    try {
      for (let isDone = false; !isDone;) {
        const isFirst = cursor === 0;
        const newest = stored.at(-1)?.id ?? 0;
        const query = isFirst
          ? `before=${END}&limit=${PAGE}`
          : `after=${cursor}&limit=${MISSED_PAGE}`;
        const page = isFirst && !(await exists()) ? undefined : await load(query);
        if (thisRun !== run) return;
        if (page) takePage(page);
        // What came since the question belongs to a new chat.
        else stored.splice(0, stored.findLastIndex(({ id }) => id <= newest) + 1);
        if (!page) cursor = 0;
        if (isFirst) hasOlder = page?.more ?? false;
        cursor = Math.max(cursor, Number(page?.messages.at(-1)?.id ?? 0));
        isDone = isFirst || !page?.more;
      }
    } catch {
      if (thisRun !== run) return;
      const ceilingMs = Math.min(FIRST_CEILING_MS * 2 ** failures++, MAX_CEILING_MS);
      cancelRetry = runtime.after(runtime.random() * ceilingMs, () => void sync());
      return;
    }
    failures = 0;
    isSynced = isLoaded = true;
    cursor = stored.at(-1)?.id ?? cursor;
    onChange();
  }

  async function loadOlder(): Promise<void> {
    const page = await load(`before=${stored[0]?.id ?? END}&limit=${PAGE}`);
    if (page) takePage(page);
    hasOlder = page?.more ?? false;
    onChange();
  }

  return {
    peer,
    get messages() {
      const shown = stored.map(({ id, ...message }): ConversationMessage => ({
        ...message,
        status: !message.isMine ? "received" : id <= readUpTo[other] ? "read" : "sent",
      }));
      const coming = own()
        .filter(({ error, twin }) => error || twin === undefined)
        .map(({ ref, content, nickname, atMs, error }): ConversationMessage => {
          const status = error ? "failed" : "pending";
          return { key: ref, isMine: true, content, nickname, atMs, status, error };
        });
      return [...shown, ...coming];
    },
    get isLoaded() {
      return isLoaded;
    },
    get hasOlder() {
      return hasOlder;
    },
    get unread() {
      return stored.filter(({ isMine, id }) => !isMine && id > readUpTo[side]).length;
    },
    send(content, { nickname } = {}) {
      const [ref, atMs] = [runtime.newRef(), runtime.nowMs()];
      submit({ ref, peer, content, nickname, atMs, sentOver: 0 });
    },
    retry(key) {
      const draft = own().find(({ ref }) => ref === key);
      if (draft) submit(draft);
    },
    markRead() {
      const last = stored.findLast(({ isMine }) => !isMine)?.id ?? 0;
      if (last <= readUpTo[side] || !isSynced || chatId === undefined) return;
      readUpTo[side] = last;
      options.onMarkRead(chatId);
      onChange();
    },
    loadOlder: () =>
      (older ??= loadOlder().finally(() => {
        older = undefined;
      })),
    close() {
      disconnect();
      options.onClose();
    },

    sync,
    add(message) {
      take(message);
      if (isSynced) cursor = Math.max(cursor, Number(message.id));
      onChange();
    },
    acknowledge(draft, ack) {
      insert(draft, ack, true, draft.ref);
      onChange();
    },
    read(by, upTo) {
      read(by, upTo);
      onChange();
    },
    disconnect,
  };
}
