import {
  type ChatFrame,
  type ChatPage,
  type ClientFrame,
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
/** Time between two frames that say that one writes, in milliseconds. */
const TYPING_INTERVAL_MS = 3_000;
/** The newest chats, so many of them. */
export const CHATS = `${CHATS_PATH}?limit=`;
/** Greater than any id: the page before it is the newest. */
const END = 999_999_999_999_999;

/** Where a chat is. */
export function chatPath(peer: string): string {
  return `${CHATS_PATH}/${encodeURIComponent(peer)}`;
}

/** The other one in the chat that a frame is about, seen from `side`. */
export function peerOf(frame: ChatFrame, side: Side): string {
  if (side === "user") return frame.chatId;
  if ("user" in frame) return frame.user;
  return frame.type === "ANON_TO_USER" ? frame.to : frame.from;
}

/** A message as its sender or its reader sees it. */
export interface ConversationMessage {
  /** The same for as long as this client knows the message. */
  readonly key: string;
  /** The server's number for it, which rises within a chat; 0 for one that the server hasn't acknowledged. */
  readonly id: number;
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
  readonly error?: FrameErrorCode | "too_big" | "too_old" | undefined;
}

/** A message that the server hasn't acknowledged. */
export interface Unsent {
  /** For whom it is. */
  readonly peer: string;
  /** Its key is the `ref` under which it is sent. */
  readonly message: ConversationMessage;
}

/** Keeps unsent messages when the page can't; `createOutbox` makes one. */
export interface Outbox {
  /** What was saved last, oldest first. */
  load(): readonly Unsent[];
  /** All that are unsent now, oldest first; called at every change. */
  save(messages: readonly Unsent[]): void;
  /** Forgets all of them, as after a sign-out. */
  clear(): void;
}

/** A message on its way, kept until the server has acknowledged it. */
export interface Draft extends Unsent {
  message: ConversationMessage;
  /** Number of the socket that it went over last; 0 for none, -1 for one of a page before this one. */
  sentOver: number;
  /** A stored message may be this one, whose ACK is still to come. */
  hasTwin?: boolean;
}

/** What is known about one chat: what was stored, in order and without doubles, then what is on its way. */
export interface Conversation {
  /** The other one's id. */
  readonly peer: string;
  /** Oldest first; those without an answer from the server last. The same array until the next `change`. */
  readonly messages: readonly ConversationMessage[];
  /** Whether the first page is there (it may be empty). */
  readonly isLoaded: boolean;
  /** Whether the other side or another tab has deleted the chat, and nobody has written since. */
  readonly isDeleted: boolean;
  /** Whether there are older messages on the server. */
  readonly hasOlder: boolean;
  /** Received, and not yet marked as read. */
  readonly unread: number;
  /** Keeps trying until the server has acknowledged it, or has refused it for good. */
  send(content: string, options?: { nickname?: string | undefined }): void;
  /** Tries a failed message again. */
  retry(key: string): void;
  /** Removes a failed message. */
  discard(key: string): void;
  /** Marks everything received as read. */
  markRead(): void;
  /** Shows the other side that this one writes: to be called at every input. Sends a frame every 3 s at most. */
  typing(): void;
  /** Loads the page before the oldest message. */
  loadOlder(): Promise<void>;
  /** Stops following it. What is on its way stays so. */
  close(): void;
}

/** A conversation, and how the client feeds it. */
export interface TrackedConversation {
  readonly conversation: Conversation;
  /** Catches up with the server, from the newest message that is known for sure. */
  sync(): Promise<void>;
  add(message: Message): void;
  acknowledge(draft: Draft, ack: { id: string; timestamp: string }): void;
  read(by: Side, upTo: string): void;
  /** The chat was deleted, with its messages up to this id. */
  forget(upTo: number): void;
  /** To be called after any of these, and when what is on its way is different. */
  changed(): void;
  /** Frames may be missed from now on. */
  disconnect(): void;
}

export function createConversation(options: {
  peer: string;
  side: Side;
  api: Api;
  runtime: Runtime;
  /** Drafts of all conversations by their refs, in the order in which they were written. */
  drafts: Map<string, Draft>;
  /** Drafts are different: keeps them, and sends what can be sent. */
  flush(): void;
  onChange(conversation: Conversation): void;
  send(frame: ClientFrame): void;
  onClose(): void;
}): TrackedConversation {
  const { peer, side, api, runtime, drafts, flush, send } = options;
  const path = `${chatPath(peer)}/messages`;
  const other = otherSide(side);
  /** What was stored, by rising ids. */
  const stored: ConversationMessage[] = [];
  /** The same until something changes: whoever renders compares it. */
  let snapshot: readonly ConversationMessage[] | undefined;
  const readUpTo = { user: 0, visitor: 0 };
  /** Up to here the chat was deleted, whatever response is still on its way. */
  let deletedUpTo = 0;
  let isDeleted = false;
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
  let typingAgainMs = 0;

  function changed(): void {
    snapshot = undefined;
    options.onChange(conversation);
  }

  /** Keeps a message in its place, unless it is there already. Costs the same however many there are: most come last. */
  function insert(
    { content, nickname }: Pick<ConversationMessage, "content" | "nickname">,
    given: { id: string; timestamp: string },
    isMine: boolean,
    key = given.id,
  ): boolean {
    const [id, atMs] = [Number(given.id), Date.parse(given.timestamp)];
    const at = lastUpTo(id);
    if (id <= deletedUpTo || stored[at]?.id === id) return false;
    const status = !isMine ? "received" : id <= readUpTo[other] ? "read" : "sent";
    stored.splice(at + 1, 0, { key, id, isMine, content, nickname, atMs, status });
    isDeleted = false;
    return true;
  }

  function take(message: Message): void {
    const isMine = (message.type === "USER_TO_ANON") === (side === "user");
    chatId = message.chatId;
    if (!insert(message, message, isMine) || !isMine) return;
    // Stored, but its ACK was lost or is slower: one of the two is enough to look at.
    const twin = own().find(
      (draft) => draft.sentOver && !draft.hasTwin && draft.message.content === message.content,
    );
    if (twin) twin.hasTwin = true;
  }

  function takePage(page: MessagePage): void {
    for (const message of page.messages) take(message);
    for (const by of ["user", "visitor"] as const) read(by, page.readUpTo[by]);
  }

  function read(by: Side, given: string): void {
    const before = readUpTo[by];
    readUpTo[by] = Math.max(before, Number(given));
    if (by === side) return;
    const end = lastUpTo(before);
    for (let at = lastUpTo(readUpTo[by]); at > end; at--) {
      const message = stored[at] as ConversationMessage;
      if (message.isMine) stored[at] = { ...message, status: "read" };
    }
  }

  /** The place of the last message up to this id. Seeks from the end, where nearly all of them are. */
  function lastUpTo(id: number): number {
    return stored.findLastIndex((one) => one.id <= id);
  }

  function forget(upTo: number): void {
    deletedUpTo = upTo;
    stored.splice(0, lastUpTo(upTo) + 1);
    isDeleted = !stored[0];
    hasOlder = false;
    cursor = 0;
  }

  function own(): Draft[] {
    return [...drafts.values()].filter((draft) => draft.peer === peer);
  }

  /** Sends a message, for the first time or once more. */
  function submit(message: ConversationMessage): void {
    drafts.set(message.key, { peer, message, sentOver: 0 });
    flush();
    changed();
  }

  function disconnect(): void {
    run++;
    isSynced = false;
    cancelRetry();
  }

  /** A visitor may not have written yet. Asked first, because browsers complain loudly about a response that says so. */
  async function exists(): Promise<boolean> {
    if (side === "user") return true;
    const { chats, more } = await api.call<ChatPage>("GET", `${CHATS}200`);
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
        const newest = stored.at(-1);
        const query = isFirst
          ? `before=${END}&limit=${PAGE}`
          : `after=${cursor}&limit=${MISSED_PAGE}`;
        const page = isFirst && !(await exists()) ? undefined : await load(query);
        if (thisRun !== run) return;
        if (page) takePage(page);
        // What came since the question belongs to a new chat.
        else if (newest) forget(newest.id);
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
    changed();
  }

  async function loadOlder(): Promise<void> {
    const page = await load(`before=${stored[0]?.id ?? END}&limit=${PAGE}`);
    if (page) takePage(page);
    hasOlder = page?.more ?? false;
    changed();
  }

  const conversation: Conversation = {
    peer,
    get messages() {
      // One copy of pointers: spreading takes ten times as long.
      return (snapshot ??= stored.concat(
        own()
          .filter(({ message, hasTwin }) => message.error || !hasTwin)
          .map(({ message }) => message),
      ));
    },
    get isLoaded() {
      return isLoaded;
    },
    get isDeleted() {
      return isDeleted;
    },
    get hasOlder() {
      return hasOlder;
    },
    get unread() {
      return stored.slice(lastUpTo(readUpTo[side]) + 1).filter(({ isMine }) => !isMine).length;
    },
    send(content, { nickname } = {}) {
      const [key, atMs] = [runtime.newRef(), runtime.nowMs()];
      submit({ key, id: 0, isMine: true, content, nickname, atMs, status: "pending" });
    },
    retry(key) {
      const message = failed(key);
      if (message) submit({ ...message, status: "pending", error: undefined });
    },
    discard(key) {
      if (!failed(key)) return;
      drafts.delete(key);
      flush();
      changed();
    },
    markRead() {
      const last = stored.findLast(({ isMine }) => !isMine)?.id ?? 0;
      if (last <= readUpTo[side] || !isSynced || chatId === undefined) return;
      read(side, String(last));
      send({ type: "MARK_AS_READ", chatId, to: side === "visitor" ? peer : undefined });
      changed();
    },
    typing() {
      const nowMs = runtime.monotonicMs();
      if (nowMs < typingAgainMs) return;
      typingAgainMs = nowMs + TYPING_INTERVAL_MS;
      send({ type: "TYPING", to: peer });
    },
    loadOlder: () =>
      (older ??= loadOlder().finally(() => {
        older = undefined;
      })),
    close() {
      disconnect();
      options.onClose();
    },
  };

  /** A message of this chat's that failed. */
  function failed(key: string): ConversationMessage | undefined {
    return own().find(({ message }) => message.key === key && message.error)?.message;
  }

  return {
    conversation,
    sync,
    add(message) {
      take(message);
      if (isSynced) cursor = Math.max(cursor, Number(message.id));
    },
    acknowledge: ({ message }, ack) => insert(message, ack, true, message.key),
    read,
    forget,
    changed,
    disconnect,
  };
}
