import { element } from "./dom.ts";
import { text } from "./language.ts";

/** How long a button says that it has copied, in milliseconds. */
const COPIED_FOR_MS = 2_000;

/** A button that copies a text. For the inbox, which needs a secure origin anyway: elsewhere is no clipboard. */
export function copyButton(value: string): HTMLButtonElement {
  const button = element("button", { type: "button", class: "quiet small" }, text("copy"));
  button.onclick = async () => {
    await navigator.clipboard.writeText(value);
    button.textContent = text("copied");
    setTimeout(() => (button.textContent = text("copy")), COPIED_FOR_MS);
  };
  return button;
}
