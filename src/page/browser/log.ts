import type { Conversation, ConversationMessage } from "../../client/mod.ts";
import { element, setText } from "./dom.ts";
import { text } from "./language.ts";
import { createRow, type Row } from "./message.ts";

/** Messages on the page while somebody reads the newest, and at most so many wherever they read. */
const SHOWN = 150;
const MAX_SHOWN = 300;
/** Messages that scrolling adds at once. */
const STEP = 100;
/** So far from an end, in pixels, one reads it; so near it more is loaded. */
const NEAR_END_PX = 60;
const LOAD_WITHIN_PX = 400;

/** The messages of a conversation: as many rows as one can scroll through, however many messages there are. */
export interface Log {
  readonly root: HTMLElement;
  /** Whether the newest message is in view. */
  readonly isAtEnd: boolean;
  update(): void;
  jumpToEnd(): void;
  dispose(): void;
}

export function createLog(options: {
  conversation: Conversation;
  otherName(): string;
  /** Shown while there are no messages. */
  invitation: Node;
  /** Shown behind the newest message. */
  end: readonly Node[];
  /** The reader has moved, or the newest message has come into view. */
  onView(): void;
}): Log {
  const { conversation, otherName, onView } = options;
  const rows = new Map<string, Row>();
  /** Keys of the first and the last message on the page; no `last`: whatever is newest. */
  let first: string | undefined;
  let last: string | undefined;
  let newest: string | undefined;
  let readsEnd = true;
  /** Of the log, as it was when it was last scrolled to where it belongs. */
  let size = "";
  let isLoadingOlder = false;
  let hasFailed = false;

  const older = element("button", { type: "button", class: "quiet small older" }, text("earlier"));
  const loading = element("p", { class: "empty" }, text("loading"));
  const empty = element("div", { class: "empty" }, options.invitation);
  const list = element("ol", { class: "messages" });
  // What is new is read out elsewhere: rows come and go here with scrolling, too.
  const log = element(
    "div",
    { role: "log", class: "log", tabindex: 0, "aria-live": "off" },
    ...[older, loading, empty, list, ...options.end],
  );
  const jump = element("button", { type: "button", class: "quiet small jump", hidden: true });
  const root = element("div", { class: "scroll" }, log, jump);

  function isNearEnd(): boolean {
    return last === undefined && log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  }

  function update(): void {
    const { messages, isLoaded, hasOlder } = conversation;
    const latest = messages.at(-1);
    const isNew = latest !== undefined && latest.key !== newest;
    if (isNew && latest.isMine) last = undefined;
    const isWritten = isNew && latest.isMine && newest !== undefined;
    newest = latest?.key;
    if (readsEnd) render(messages);
    else keepingPlace(() => render(messages));
    older.hidden = !hasOlder && (messages.length === 0 || messages[0]?.key === first);
    loading.hidden = isLoaded || messages.length > 0;
    empty.hidden = !isLoaded || messages.length > 0;
    log.setAttribute("aria-label", text("conversationWith", { name: otherName() }));
    if (readsEnd || isWritten) scrollToEnd();
    else if (isNew) setText(jump, text("newMessages"));
    showJump();
    fillScreen();
  }

  function render(messages: readonly ConversationMessage[]): void {
    const [start, end] = range(messages);
    first = messages[start]?.key;
    const name = otherName();
    const shown = messages.slice(start, end);
    const keys = new Set(shown.map(({ key }) => key));
    for (const [key, { item }] of rows) {
      if (keys.has(key)) continue;
      item.remove();
      rows.delete(key);
    }
    let place = list.firstElementChild;
    for (const [at, message] of shown.entries()) {
      const row = rows.get(message.key) ?? createRow(message, conversation);
      rows.set(message.key, row);
      if (row.item === place) place = place.nextElementSibling;
      else list.insertBefore(row.item, place);
      const before = messages[start + at - 1];
      row.update(message, { before, after: messages[start + at + 1], otherName: name });
    }
  }

  /** Which messages are on the page, from an index up to, not including, another one. */
  function range(messages: readonly ConversationMessage[]): [start: number, end: number] {
    const at = (key: string | undefined) => messages.findLastIndex((one) => one.key === key);
    const end = last === undefined ? messages.length : at(last) + 1 || messages.length;
    if (end === messages.length) last = undefined;
    const start = first === undefined ? -1 : at(first);
    const fewest = Math.max(end - SHOWN, 0);
    if (start < 0 || start > end) return [fewest, end];
    // Whoever reads the end sees what was loaded before it, too, but not all that has come since.
    const isKept = !readsEnd || (start <= fewest && end - start <= MAX_SHOWN);
    return [isKept ? start : fewest, end];
  }

  /** Shows other messages; those that are in view stay where they are. */
  function show(start: number, end: number): void {
    const { messages } = conversation;
    first = messages[Math.max(start, 0)]?.key;
    last = end < messages.length ? messages[end - 1]?.key : undefined;
    keepingPlace(() => render(messages));
  }

  function keepingPlace(change: () => void): void {
    const top = log.getBoundingClientRect().top;
    const anchor = [...list.children].find((item) => item.getBoundingClientRect().bottom > top);
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (anchor?.isConnected) log.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  async function showOlder(): Promise<void> {
    if (isLoadingOlder) return;
    const indexOf = (key: string | undefined) =>
      conversation.messages.findIndex((message) => message.key === key);
    if (indexOf(first) <= 0) {
      if (!conversation.hasOlder) return;
      isLoadingOlder = older.disabled = true;
      hasFailed = await conversation.loadOlder().then(
        () => false,
        () => true,
      );
      isLoadingOlder = older.disabled = false;
    }
    const start = Math.max(indexOf(first) - STEP, 0);
    show(start, Math.min(indexOf(first) + rows.size, start + MAX_SHOWN));
    older.hidden = start === 0 && !conversation.hasOlder;
  }

  function showNewer(): void {
    if (last === undefined) return;
    const { messages } = conversation;
    const end = messages.findLastIndex(({ key }) => key === last) + 1 + STEP;
    show(Math.min(end, messages.length) - MAX_SHOWN, end);
  }

  /** Where what is there doesn't fill the screen, nobody can scroll for more. */
  function fillScreen(): void {
    const isFull = log.clientHeight === 0 || log.scrollHeight > log.clientHeight + LOAD_WITHIN_PX;
    if (!isFull && conversation.hasOlder && !hasFailed) void showOlder();
  }

  function scrollToEnd(): void {
    readsEnd = true;
    log.scrollTop = log.scrollHeight;
  }

  function showJump(): void {
    const isHidden = isNearEnd() || list.childElementCount === 0;
    if (isHidden) setText(jump, text("newest"));
    jump.hidden = isHidden;
  }

  function jumpToEnd(): void {
    first = last = undefined;
    readsEnd = true;
    render(conversation.messages);
    scrollToEnd();
    showJump();
    onView();
  }

  const sizeOf = () => `${log.clientWidth} ${log.clientHeight}`;

  log.onscroll = () => {
    // Another size moves the messages, too: that isn't the reader's doing.
    if (sizeOf() === size) readsEnd = isNearEnd();
    showJump();
    if (log.scrollTop < LOAD_WITHIN_PX && !hasFailed) void showOlder();
    if (log.scrollHeight - log.scrollTop - log.clientHeight < LOAD_WITHIN_PX) showNewer();
    onView();
  };
  older.onclick = () => void showOlder();
  jump.onclick = jumpToEnd;
  // The window, or a keyboard on the screen, takes room away: who read the end goes on reading it.
  const resizes = new ResizeObserver(() => {
    size = sizeOf();
    if (readsEnd) log.scrollTop = log.scrollHeight;
    fillScreen();
  });
  resizes.observe(log);

  return {
    root,
    get isAtEnd() {
      return isNearEnd();
    },
    update,
    jumpToEnd,
    dispose: () => resizes.disconnect(),
  };
}
