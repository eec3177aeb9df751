import { element } from "./dom.ts";

/** How long a button says that it has copied, in milliseconds. */
const COPIED_FOR_MS = 2_000;

for (const block of document.querySelectorAll(".code")) {
  const text = block.querySelector("code")?.textContent ?? "";
  const button = element("button", { type: "button", class: "quiet small" }, "Copy");
  button.onclick = async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), COPIED_FOR_MS);
  };
  // Elsewhere than on secure origins there is no clipboard.
  if (navigator.clipboard) block.querySelector(".code-head")?.append(button);
}
