import type { Conversation } from "../../client/mod.ts";
import { MAX_NICKNAME_LENGTH } from "../../wire/frames.ts";
import { cleanText } from "./describe.ts";
import { element } from "./dom.ts";
import { text } from "./language.ts";
import { recall, remember } from "./memory.ts";

/** Asks a visitor for a name, once, after the first message. */
export interface Nickname {
  readonly root: HTMLElement;
  /** What the visitor calls themselves. */
  value(): string | undefined;
  update(): void;
}

export function createNickname(
  conversation: Conversation,
  options: { otherName(): string; onDone(): void },
): Nickname {
  const { otherName, onDone } = options;
  /** By whom one writes to: what one told somebody isn't told to everybody. Empty when one didn't want to. */
  const key = `name:${conversation.peer}`;
  const question = element("label", { for: "nickname" });
  const field = element("input", {
    id: "nickname",
    autocomplete: "nickname",
    placeholder: text("yourName"),
    maxlength: MAX_NICKNAME_LENGTH,
  });
  const skip = element("button", { type: "button", class: "quiet small" }, text("skip"));
  const root = element(
    "form",
    { class: "ask", hidden: true },
    question,
    field,
    element("button", { type: "submit", class: "small" }, text("save")),
    skip,
  );

  /** From this browser, or from what was written in another tab or before. */
  function known(): string | undefined {
    return (
      recall(key) ??
      conversation.messages.findLast(({ isMine, nickname }) => isMine && nickname)?.nickname
    );
  }

  function finish(name: string): void {
    remember(key, name);
    root.hidden = true;
    onDone();
  }

  root.onsubmit = (event) => {
    event.preventDefault();
    const name = cleanText(field.value).slice(0, MAX_NICKNAME_LENGTH).toWellFormed();
    if (name === "") return field.focus();
    finish(name);
  };
  skip.onclick = () => finish("");
  return {
    root,
    value: () => known() || undefined,
    update() {
      const hasWritten = conversation.messages.some(({ isMine }) => isMine);
      question.textContent = text("askName", { name: otherName() });
      root.hidden = !conversation.isLoaded || !hasWritten || known() !== undefined;
    },
  };
}
