/// <reference lib="esnext.disposable" preserve="true" />
import type { ChatFrame, ChatPage, ChatSummary } from "../wire/frames.ts";
import type { ChatClient } from "./chat.ts";
import { FIRST_CEILING_MS, MAX_CEILING_MS } from "./connection.ts";
import { peerOf } from "./conversation.ts";
import { createEmitter } from "./events.ts";
import { Failure } from "./failure.ts";
import { completeRuntime, type Runtime } from "./runtime.ts";

/** Chats on a page. */
const PAGE = 50;
/** Chats that the server gives at once, and that are loaded again after a new socket: what lies beyond is one more page away. */
const MAX_PAGE = 200;
const MAX_RELOADED = 1_000;
/** How long a message of a chat that isn't loaded waits for others, in milliseconds, before its chat is. */
const UNKNOWN_MS = 1_000;
/** As `GET /api/chats` cuts it, in UTF-16 code units. */
const PREVIEW_LENGTH = 200;

/** What `on` listens to. */
export interface ChatListEvents {
  /** Something in the list is different. */
  change: ChatList;
}

/** The chats of a user or visitor, kept up to date. */
export interface ChatList extends Disposable {
  /** Newest first. The same array until the next `change`, with the same objects for what a frame hasn't changed. */
  readonly chats: readonly ChatSummary[];
  /** Whether the first page is there (it may be empty). */
  readonly isLoaded: boolean;
  /** Whether there are older chats on the server. */
  readonly hasMore: boolean;
  /** Unread messages in all the chats here. */
  readonly unread: number;
  /** Why the list couldn't be loaded the last time; it is tried again by itself. */
  readonly failure: Failure | undefined;
  /** Listens until the returned function is called. */
  on<Name extends keyof ChatListEvents>(
    name: Name,
    listener: (event: ChatListEvents[Name]) => void,
  ): () => void;
  /** Loads the page after the oldest chat. Rejects with a `Failure`. */
  loadMore(): Promise<void>;
  /** Stops following the client, which stays as it is. */
  dispose(): void;
}

/**
 * The list of a client's chats. It loads one page, follows the frames that come over the socket, and loads again
 * only after a new socket, so that a message costs no request.
 *
 * @example
 * const list = createChatList(chat);
 * list.on("change", ({ chats, unread }) => console.log(chats[0]?.peer, unread));
 */
export function createChatList(
  client: ChatClient,
  options: { runtime?: Partial<Runtime> | undefined } = {},
): ChatList {
  const runtime = completeRuntime(options.runtime);
  const { on, emit, clear } = createEmitter<ChatListEvents>(runtime);
  /** Never changed in place. */
  let chats: readonly ChatSummary[] = [];
  let isLoaded = false;
  let hasMore = false;
  let failure: Failure | undefined;
  /** The last chat of the last page, whatever has become of it since. */
  let cursor: string | undefined;
  /** Of the loading from the start that counts. */
  let run = 0;
  let failures = 0;
  let more: Promise<void> | undefined;
  let cancelRetry = (): void => {};
  let cancelNewest: (() => void) | undefined;
  /** Frames that have come since each request in progress: its response may be older than they are. */
  const missed = new Set<ChatFrame[]>();

  function put(chat: ChatSummary): void {
    const others = chats.filter(({ peer }) => peer !== chat.peer);
    const at = others.findIndex((one) => idOf(one) < idOf(chat));
    chats = others.toSpliced(at < 0 ? others.length : at, 0, chat);
  }

  /** Applies a frame, once or again: what it says of the past changes nothing. */
  function apply(frame: ChatFrame): void {
    const peer = peerOf(frame, client.side);
    const known = chats.find((chat) => chat.peer === peer);
    if ("content" in frame) return receive(frame, peer, known);
    if (!known) return;
    if (frame.type === "BLOCKED") return put({ ...known, blocked: frame.blocked });
    if (Number(frame.upTo) < idOf(known)) return;
    if (frame.type === "DELETED") chats = chats.filter((chat) => chat !== known);
    else if (known.unread > 0 && (frame.by === frame.user) === (client.side === "user")) {
      put({ ...known, unread: 0 });
    }
  }

  function receive(
    frame: Extract<ChatFrame, { content: string }>,
    peer: string,
    known: ChatSummary | undefined,
  ): void {
    if (known && Number(frame.id) <= idOf(known)) return;
    const { nickname = known?.nickname, content, ...message } = frame;
    const isByVisitor = frame.type === "ANON_TO_USER";
    const isMine = isByVisitor === (client.side === "visitor");
    const name = isByVisitor ? nickname : known?.nickname;
    put({
      ...known,
      peer,
      unread: (known?.unread ?? 0) + (isMine ? 0 : 1),
      ...(name !== undefined && { nickname: name }),
      lastMessage: { ...message, content: content.slice(0, PREVIEW_LENGTH) },
    });
    // It may have been there, further down than was loaded, with more that is unread.
    if (!known && hasMore) {
      cancelNewest ??= runtime.after(UNKNOWN_MS, () => {
        cancelNewest = undefined;
        load({ limit: PAGE }, ({ chats }) => chats.forEach(put)).catch(() => {});
      });
    }
  }

  /** Requests a page, and passes it on with the frames that have come meanwhile behind it. */
  async function load(
    request: { before?: string | undefined; limit: number },
    take: (page: ChatPage) => void,
  ): Promise<void> {
    const frames: ChatFrame[] = [];
    missed.add(frames);
    try {
      const page = await client.chats(request);
      take(page);
      frames.forEach(apply);
      emit("change", list);
    } finally {
      missed.delete(frames);
    }
  }

  /** Loads from the start as many chats as there were. */
  async function reload(): Promise<void> {
    const thisRun = ++run;
    cancelRetry();
    const wanted = Math.min(Math.max(chats.length, PAGE), MAX_RELOADED);
    const fresh: ChatSummary[] = [];
    const frames: ChatFrame[] = [];
    missed.add(frames);
    try {
      let page: ChatPage;
      do {
        const before = fresh.at(-1)?.lastMessage.id;
        page = await client.chats({ before, limit: Math.min(wanted, MAX_PAGE) });
        if (thisRun !== run) return;
        fresh.push(...page.chats);
      } while (page.more && page.chats.length > 0 && fresh.length < wanted);
      chats = fresh;
      cursor = fresh.at(-1)?.lastMessage.id;
      hasMore = page.more;
      isLoaded = true;
      failures = 0;
      failure = undefined;
      frames.forEach(apply);
    } catch (error) {
      if (thisRun !== run) return;
      failure = Failure.from(error);
      const ceilingMs = Math.min(FIRST_CEILING_MS * 2 ** failures++, MAX_CEILING_MS);
      const delayMs = failure.retryAfterMs + runtime.random() * ceilingMs;
      cancelRetry = runtime.after(delayMs, () => void reload());
    } finally {
      missed.delete(frames);
    }
    emit("change", list);
  }

  const stops = [
    client.on("frame", (frame) => {
      if (!("chatId" in frame)) return;
      for (const frames of missed) frames.push(frame);
      const before = chats;
      apply(frame);
      if (chats !== before) emit("change", list);
    }),
    client.on("resumed", () => void reload()),
    client.on("state", ({ status }) => {
      if (status !== "open") {
        // Loading goes on with the next socket.
        run++;
        cancelRetry();
      } else if (!isLoaded) void reload();
    }),
  ];

  function dispose(): void {
    run++;
    for (const stop of stops) stop();
    cancelRetry();
    cancelNewest?.();
    clear();
  }

  const list: ChatList = {
    get chats() {
      return chats;
    },
    get isLoaded() {
      return isLoaded;
    },
    get hasMore() {
      return hasMore;
    },
    get unread() {
      return chats.reduce((sum, { unread }) => sum + unread, 0);
    },
    get failure() {
      return failure;
    },
    on,
    loadMore() {
      const thisRun = run;
      return (more ??= load({ before: cursor, limit: PAGE }, (page) => {
        if (thisRun !== run) return;
        page.chats.forEach(put);
        cursor = page.chats.at(-1)?.lastMessage.id ?? cursor;
        hasMore = page.more;
      }).finally(() => {
        more = undefined;
      }));
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
  if (client.state.status === "open") void reload();
  return list;
}

function idOf({ lastMessage }: ChatSummary): number {
  return Number(lastMessage.id);
}
