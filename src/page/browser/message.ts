import type { ConversationMessage } from "../../client/mod.ts";
import { describeError } from "./describe.ts";
import { element, setText } from "./dom.ts";
import { text } from "./language.ts";
import { linked } from "./links.ts";
import { calendarDay, dayOf, fullTimeOf, timeOf } from "./times.ts";

/** Messages of one side that follow each other within so long are one group. */
const GROUP_MS = 5 * 60_000;

/** A message's place in the conversation. */
export interface Surroundings {
  readonly before: ConversationMessage | undefined;
  readonly after: ConversationMessage | undefined;
  readonly otherName: string;
}

/** A message on the page. */
export interface Row {
  readonly item: HTMLLIElement;
  /** Changes no more of the page than is different, so that nothing is read out twice. */
  update(message: ConversationMessage, around: Surroundings): void;
}

export function createRow(
  { isMine, content, key }: ConversationMessage,
  actions: { retry(key: string): void; discard(key: string): void },
): Row {
  const author = element("span", { class: "unseen" });
  const time = element("time");
  const mark = element("span", { class: "mark" });
  const meta = element("p", { class: "meta" }, time, ...(isMine ? [mark] : []));
  const item = element(
    "li",
    { class: `message ${isMine ? "mine" : "theirs"}` },
    element(
      "div",
      { class: "bubble" },
      author,
      element("p", { class: "content", dir: "auto" }, ...linked(content)),
      meta,
    ),
  );
  let failure: HTMLElement | undefined;
  let shown: [ConversationMessage, Surroundings] | undefined;

  function showFailure(error: ConversationMessage["error"], hasFailed: boolean): void {
    if (!hasFailed) {
      failure?.remove();
      failure = undefined;
      return;
    }
    if (failure) return;
    failure = element(
      "div",
      { class: "failure" },
      element("p", { role: "alert" }, describeError(error)),
      button("tryAgain", () => actions.retry(key)),
      button("discard", () => actions.discard(key)),
    );
    item.append(failure);
  }

  return {
    item,
    update(message, around) {
      if (shown && isSame(shown, message, around)) return;
      shown = [message, around];
      const { status, atMs, error } = message;
      const { before, after, otherName } = around;
      item.dataset.status = status;
      item.dataset.day = before && isSameDay(before, message) ? "" : dayOf(atMs, Date.now());
      item.classList.toggle("joined", before !== undefined && isGroup(before, message));
      setText(author, `${isMine ? text("you") : otherName}: `);
      time.dateTime = new Date(atMs).toISOString();
      time.title = fullTimeOf(atMs);
      setText(time, timeOf(atMs));
      const hasFailed = status === "failed";
      const isLast = !after || !isGroup(message, after) || after.status !== status;
      meta.hidden = !isLast;
      if (isMine) {
        mark.className = `mark ${status}`;
        setText(mark, !isLast || hasFailed || status === "received" ? "" : text(MARKS[status]));
      }
      showFailure(error, hasFailed);
    },
  };
}

const MARKS = { pending: "sending", sent: "sent", read: "read" } as const;

function button(word: "tryAgain" | "discard", onclick: () => void): HTMLButtonElement {
  const made = element("button", { type: "button", class: "quiet small" }, text(word));
  made.onclick = onclick;
  return made;
}

function isSame(
  [message, around]: readonly [ConversationMessage, Surroundings],
  nextMessage: ConversationMessage,
  next: Surroundings,
): boolean {
  return (
    isSameMessage(message, nextMessage) &&
    isSameMessage(around.before, next.before) &&
    isSameMessage(around.after, next.after) &&
    (message.isMine || around.otherName === next.otherName)
  );
}

function isSameMessage(
  one: ConversationMessage | undefined,
  other: ConversationMessage | undefined,
): boolean {
  return (
    one === other ||
    (one?.key === other?.key && one?.status === other?.status && one?.atMs === other?.atMs)
  );
}

function isSameDay(one: ConversationMessage, other: ConversationMessage): boolean {
  return calendarDay(one.atMs) === calendarDay(other.atMs);
}

/** Whether a message goes on where the one before it ended. */
function isGroup(before: ConversationMessage, message: ConversationMessage): boolean {
  return (
    before.isMine === message.isMine &&
    message.atMs - before.atMs < GROUP_MS &&
    isSameDay(before, message)
  );
}
