import { MAX_CONTENT_LENGTH } from "../../wire/frames.ts";
import { cleanText } from "./describe.ts";
import { element, setText } from "./dom.ts";
import { counted, text } from "./language.ts";

/** From here on the page says how much room is left. */
const SHOW_LEFT_BELOW = 500;
/** What `keyCode` is while an input method has the key: Safari says so and nothing else after a composition. */
const INPUT_METHOD = 229;

/** Fingers have no key for a new line but Enter, and a field that takes the focus covers half their screen. */
export const hasTouch: boolean = matchMedia("(pointer: coarse)").matches;

/** The form to write with. */
export interface Composer {
  readonly root: HTMLElement;
  /** Puts the cursor into the field, where that doesn't bring up a keyboard. */
  focus(): void;
}

export function createComposer(options: {
  /** What was written earlier, and not sent. */
  draft: string;
  onInput(draft: string): void;
  onSend(content: string): void;
}): Composer {
  const { draft, onInput, onSend } = options;
  const field = element("textarea", {
    rows: 1,
    placeholder: text("writeMessage"),
    "aria-label": text("message"),
    "aria-describedby": "left",
    enterkeyhint: hasTouch ? "enter" : "send",
  });
  const left = element("p", { class: "left", id: "left", "aria-live": "polite" });
  const root = element(
    "form",
    { class: "composer" },
    element("div", { class: "field" }, field, left),
    element("button", { type: "submit" }, text("send")),
  );

  /** Characters that may still be written, of the text as it would be sent. */
  function room(): number {
    const isFar = field.value.length * 4 < MAX_CONTENT_LENGTH - SHOW_LEFT_BELOW;
    return isFar ? SHOW_LEFT_BELOW : MAX_CONTENT_LENGTH - cleanText(field.value).length;
  }

  function showLeft(): void {
    const n = room();
    const note = n < 0 ? counted("tooLong", -n) : n < SHOW_LEFT_BELOW ? counted("left", n) : "";
    setText(left, note);
    left.classList.toggle("problem", n < 0);
    field.ariaInvalid = String(n < 0);
  }

  function send(): void {
    const content = cleanText(field.value);
    field.focus();
    if (content === "" || content.length > MAX_CONTENT_LENGTH) return showLeft();
    field.value = "";
    showLeft();
    onInput("");
    onSend(content);
  }

  field.value = draft;
  showLeft();
  root.onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  field.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || hasTouch) return;
    // While an input method composes, Enter is its own.
    if (event.isComposing || event.keyCode === INPUT_METHOD) return;
    event.preventDefault();
    send();
  };
  field.oninput = () => {
    showLeft();
    onInput(field.value);
  };

  return {
    root,
    focus: () => hasTouch || field.focus(),
  };
}
