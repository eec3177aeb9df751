import type { ChatSummary } from "../../client/mod.ts";
import { visitorName } from "./describe.ts";
import { element, setText } from "./dom.ts";
import { counted, text } from "./language.ts";
import { whenOf } from "./times.ts";

/** So near its end, in pixels, more of the list is loaded. */
const LOAD_WITHIN_PX = 400;
/** How a press ends. */
const RELEASES = ["pointerup", "pointercancel"] as const;

/** The chats as a list on the page. */
export interface List {
  readonly root: HTMLElement;
  /** Shows these chats, and which of them is open; rows that stay are the same elements. */
  update(chats: readonly ChatSummary[], open: string | undefined): void;
  focus(peer: string): void;
}

interface Row {
  readonly item: HTMLLIElement;
  readonly button: HTMLButtonElement;
  update(chat: ChatSummary, isOpen: boolean): void;
}

export function createList(options: {
  onOpen(peer: string): void;
  /** The reader comes near the end, or looks for something: there may be more. */
  onMore(): void;
}): List {
  const { onOpen, onMore } = options;
  const rows = new Map<string, Row>();
  let shown: { chats: readonly ChatSummary[]; open: string | undefined } = {
    chats: [],
    open: undefined,
  };
  let isPressed = false;

  const search = element("input", {
    type: "search",
    placeholder: text("search"),
    "aria-label": text("search"),
    autocomplete: "off",
  });
  const unreadOnly = element(
    "button",
    { type: "button", class: "quiet small", "aria-pressed": "false" },
    text("unreadOnly"),
  );
  const filters = element("div", { class: "filters" }, search, unreadOnly);
  const list = element("ul");
  const none = element("p", { class: "empty", hidden: true }, text("nothingFound"));
  const scroller = element("div", { class: "chats" }, list, none);
  const root = element("div", { class: "list" }, filters, scroller);

  function matches({ peer, nickname, unread, lastMessage }: ChatSummary): boolean {
    // What one reads doesn't vanish in that moment.
    if (unreadOnly.ariaPressed === "true" && unread === 0 && peer !== shown.open) return false;
    const wanted = search.value.trim().toLowerCase();
    const found = `${visitorName(peer, nickname)}\n${lastMessage.content}`.toLowerCase();
    return wanted === "" || found.includes(wanted);
  }

  function render(): void {
    // A row that moved between pressing and letting go would lose the click.
    if (isPressed) return;
    const chats = shown.chats.filter(matches);
    const isFiltered = search.value !== "" || unreadOnly.ariaPressed === "true";
    filters.hidden = shown.chats.length === 0;
    none.hidden = chats.length > 0 || !isFiltered;
    keepingPlace(() => place(chats));
    if (isFiltered && chats.length === 0) onMore();
  }

  function place(chats: readonly ChatSummary[]): void {
    const peers = new Set(chats.map(({ peer }) => peer));
    for (const [peer, { item }] of rows) {
      if (peers.has(peer)) continue;
      item.remove();
      rows.delete(peer);
    }
    const focused = document.activeElement;
    let next = list.firstElementChild;
    for (const chat of chats) {
      const row = rows.get(chat.peer) ?? createRow(chat.peer, onOpen);
      rows.set(chat.peer, row);
      row.update(chat, chat.peer === shown.open);
      if (row.item === next) next = next.nextElementSibling;
      else list.insertBefore(row.item, next);
    }
    if (focused instanceof HTMLElement && list.contains(focused)) focused.focus();
  }

  /** Rows in view stay where they are, unless the reader looks at the newest. */
  function keepingPlace(change: () => void): void {
    const { top } = scroller.getBoundingClientRect();
    const isAtTop = scroller.scrollTop === 0;
    const anchor = [...list.children].find((item) => item.getBoundingClientRect().top >= top);
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (isAtTop || !anchor?.isConnected) return;
    scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  function release(): void {
    for (const name of RELEASES) removeEventListener(name, release);
    // The click comes after this, and before the timer.
    setTimeout(() => {
      isPressed = false;
      render();
    });
  }

  search.oninput = render;
  unreadOnly.onclick = () => {
    unreadOnly.ariaPressed = String(unreadOnly.ariaPressed !== "true");
    render();
  };
  scroller.onscroll = () => {
    if (scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < LOAD_WITHIN_PX) {
      onMore();
    }
  };
  list.onpointerdown = () => {
    isPressed = true;
    for (const name of RELEASES) addEventListener(name, release);
  };

  return {
    root,
    update(chats, open) {
      shown = { chats, open };
      render();
    },
    focus: (peer) => rows.get(peer)?.button.focus(),
  };
}

function createRow(peer: string, onOpen: (peer: string) => void): Row {
  const [letter, name, when, preview, blocked, unread, read] = [
    element("span", { class: "avatar", "data-hue": hueOf(peer), "aria-hidden": "true" }),
    element("bdi", { class: "name" }),
    element("time"),
    element("span", { class: "preview", dir: "auto" }),
    element("span", { class: "tag", hidden: true }, text("blocked")),
    element("span", { class: "badge", "aria-hidden": "true" }),
    element("span", { class: "unseen" }),
  ] as const;
  const flags = element("span", { class: "flags" }, blocked, unread, read);
  const button = element(
    "button",
    { type: "button", class: "chat", "data-peer": peer },
    ...[letter, name, when, preview, flags],
  );
  button.onclick = () => onOpen(peer);
  let known: ChatSummary | undefined;
  return {
    item: element("li", {}, button),
    button,
    update(chat, isOpen) {
      button.setAttribute("aria-current", String(isOpen));
      if (chat === known) return;
      known = chat;
      const { lastMessage } = chat;
      const [called, said] = [visitorName(peer, chat.nickname), lastMessage.content];
      setText(letter, [...called][0] ?? "?");
      setText(name, called);
      when.dateTime = lastMessage.timestamp;
      setText(when, whenOf(Date.parse(lastMessage.timestamp), Date.now()));
      const isMine = lastMessage.type === "USER_TO_ANON";
      setText(preview, isMine ? text("youSaid", { text: said }) : said);
      blocked.hidden = !chat.blocked;
      unread.hidden = chat.unread === 0;
      setText(unread, String(chat.unread));
      setText(read, chat.unread === 0 ? "" : counted("unread", chat.unread));
    },
  };
}

/** A colour that distinguishes chats at a glance. */
function hueOf(id: string): number {
  return [...id].reduce((sum, char) => sum + char.charCodeAt(0), 0) % 6;
}
