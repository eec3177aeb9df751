import type { ChatClient, Conversation, ConversationMessage } from "../../client/mod.ts";
import { element, setText } from "./dom.ts";
import { cleanText, dayOf, describeError, fullTimeOf, timeOf } from "./words.ts";

/** Longest message, in UTF-16 code units; longer ones are refused. */
const MAX_MESSAGE_LENGTH = 4_000;
/** From here on the page says how much room is left. */
const SHOW_LEFT_BELOW = 500;
const MAX_NICKNAME_LENGTH = 40;
/** So far from the end, in pixels, one still reads the end. */
const NEAR_END_PX = 60;

const MARKS = { pending: "Sending", sent: "Sent", read: "Read", received: "", failed: "" } as const;

export interface Thread {
  readonly root: HTMLElement;
  /** Something changed: the conversation, who the other one is. */
  update(): void;
  focus(): void;
  dispose(): void;
}

interface Row {
  readonly item: HTMLLIElement;
  shown: string;
}

/** A conversation on the page: its messages, and the form to write more. */
export function createThread(options: {
  client: ChatClient;
  conversation: Conversation;
  /** What the other one is called now. */
  otherName(): string;
  /** Shown while there are no messages. */
  invitation: string;
  /** Whether the writer may choose a nickname. */
  hasNickname: boolean;
}): Thread {
  const { client, conversation, otherName, hasNickname } = options;
  const rows = new Map<string, Row>();
  const stop = new AbortController();
  let readsEnd = true;

  const older = element(
    "button",
    { type: "button", class: "quiet small older" },
    "Earlier messages",
  );
  const empty = element("p", { class: "empty" });
  const list = element("ol", { class: "messages" });
  const log = element(
    "div",
    { role: "log", class: "log", tabindex: 0, "aria-relevant": "additions", "aria-busy": "true" },
    older,
    empty,
    list,
  );
  const jump = element(
    "button",
    { type: "button", class: "small jump", hidden: true },
    "New messages",
  );
  const nickname = element("input", {
    class: "nickname",
    placeholder: "Your name",
    "aria-label": "Nickname",
    maxlength: MAX_NICKNAME_LENGTH,
    autocomplete: "off",
  });
  const text = element("textarea", {
    rows: 1,
    maxlength: MAX_MESSAGE_LENGTH,
    placeholder: "Write a message",
    "aria-label": "Message",
    "aria-describedby": "left",
  });
  const left = element("p", { class: "left", id: "left" });
  const form = element(
    "form",
    { class: "composer" },
    ...(hasNickname ? [nickname] : []),
    element("div", { class: "field" }, text, left),
    element("button", { type: "submit" }, "Send"),
  );
  const root = element("div", { class: "thread" }, log, jump, form);

  function isNearEnd(): boolean {
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  }

  function update(): void {
    const { messages, isLoaded, hasOlder } = conversation;
    const lastShown = list.lastElementChild;
    render(messages);
    older.hidden = !hasOlder;
    log.setAttribute("aria-busy", String(!isLoaded));
    log.setAttribute("aria-label", `Conversation with ${otherName()}`);
    empty.hidden = messages.length > 0;
    setText(empty, isLoaded ? options.invitation : "Loading messages…");
    recallNickname(messages);

    const isNew = list.lastElementChild !== lastShown;
    if (readsEnd || (isNew && messages.at(-1)?.isMine)) log.scrollTop = log.scrollHeight;
    else if (isNew) jump.hidden = false;
    markRead();
  }

  function render(messages: readonly ConversationMessage[]): void {
    const nowMs = Date.now();
    const keys = new Set(messages.map(({ key }) => key));
    for (const [key, { item }] of rows) {
      if (keys.has(key)) continue;
      item.remove();
      rows.delete(key);
    }
    let place = list.firstElementChild;
    let day = "";
    for (const message of messages) {
      const row = rows.get(message.key) ?? createRow(message);
      rows.set(message.key, row);
      if (row.item === place) place = place.nextElementSibling;
      else list.insertBefore(row.item, place);
      const itsDay = dayOf(message.atMs, nowMs);
      row.item.dataset.day = itsDay === day ? "" : itsDay;
      day = itsDay;
      fill(row, message);
    }
  }

  function createRow(message: ConversationMessage): Row {
    const side = message.isMine ? "mine" : "theirs";
    return { item: element("li", { class: `message ${side}` }), shown: "" };
  }

  function fill(row: Row, message: ConversationMessage): void {
    const { key, content, status, atMs, error, isMine } = message;
    const shown = JSON.stringify([content, status, atMs, error, isMine || otherName()]);
    if (row.shown === shown) return;
    row.shown = shown;
    row.item.dataset.status = status;
    const time = element(
      "time",
      { datetime: new Date(atMs).toISOString(), title: fullTimeOf(atMs) },
      timeOf(atMs),
    );
    const meta = element("p", { class: "meta" }, time);
    if (isMine && status !== "failed") {
      meta.append(
        element("span", { class: `mark ${status}`, title: MARKS[status] }, MARKS[status]),
      );
    }
    const bubble = element(
      "div",
      { class: "bubble" },
      element("span", { class: "unseen" }, isMine ? "You: " : `${otherName()}: `),
      element("p", { class: "content", dir: "auto" }, content),
      meta,
    );
    row.item.replaceChildren(bubble);
    if (status === "failed") {
      const again = element("button", { type: "button", class: "quiet small" }, "Try again");
      again.onclick = () => conversation.retry(key);
      row.item.append(
        element("p", { class: "failure", role: "alert" }, describeError(error), " ", again),
      );
    }
  }

  /** Remembered, so that a returning visitor keeps the same name. */
  function recallNickname(messages: readonly ConversationMessage[]): void {
    if (!hasNickname || nickname.value !== "" || nickname.dataset.touched) return;
    nickname.value =
      messages.findLast(({ isMine, nickname }) => isMine && nickname)?.nickname ?? "";
  }

  function markRead(): void {
    if (!isNearEnd()) return;
    jump.hidden = true;
    if (document.visibilityState === "visible" && client.state.status === "open") {
      conversation.markRead();
    }
  }

  function send(): void {
    const content = cleanText(text.value);
    if (content === "" || content.length > MAX_MESSAGE_LENGTH) return text.focus();
    const name = cleanText(nickname.value).slice(0, MAX_NICKNAME_LENGTH);
    conversation.send(content, { nickname: name || undefined });
    text.value = "";
    showLeft();
    text.focus();
  }

  function showLeft(): void {
    const room = MAX_MESSAGE_LENGTH - text.value.length;
    setText(left, room < SHOW_LEFT_BELOW ? `${room} characters left` : "");
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  text.onkeydown = (event) => {
    // While an input method composes, Enter is its own.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  text.oninput = showLeft;
  nickname.oninput = () => (nickname.dataset.touched = "yes");
  log.onscroll = () => {
    readsEnd = isNearEnd();
    markRead();
  };
  jump.onclick = () => {
    log.scrollTop = log.scrollHeight;
    text.focus();
  };
  older.onclick = async () => {
    const fromEnd = log.scrollHeight - log.scrollTop;
    older.disabled = true;
    await conversation.loadOlder().catch(() => {});
    older.disabled = false;
    log.scrollTop = log.scrollHeight - fromEnd;
  };
  document.addEventListener("visibilitychange", markRead, { signal: stop.signal });
  // The window, or a keyboard on the screen, takes room away: who read the end goes on reading it.
  const resizes = new ResizeObserver(() => {
    if (readsEnd) log.scrollTop = log.scrollHeight;
  });
  resizes.observe(log);
  const stopState = client.on("state", update);
  const stopChanges = client.on("change", (changed) => {
    if (changed === conversation) update();
  });

  return {
    root,
    update,
    focus: () => text.focus(),
    dispose() {
      stop.abort();
      resizes.disconnect();
      stopState();
      stopChanges();
      conversation.close();
      root.remove();
    },
  };
}
