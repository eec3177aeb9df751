import { BASE } from "./base.ts";
import { showDialog } from "./dialog.ts";
import { element } from "./dom.ts";
import { text } from "./language.ts";
import { copyButton } from "./copy.ts";

/** How people reach this user: the link, and what a website of the user's own needs. */
export function shareParts(user: string): Node[] {
  const link = new URL(`${BASE}/chat/${encodeURIComponent(user)}`, location.origin).href;
  const parts: Node[] = [
    element("p", {}, text("shareLink")),
    copyable(element("a", { href: link, target: "_blank", rel: "noopener" }, link), link),
  ];
  if (document.documentElement.dataset.embeds === undefined) return parts;
  const snippet = `<script async src="${location.origin}${BASE}/embed.js" data-user="${escaped(user)}"></script>`;
  return [
    ...parts,
    element("p", {}, text("shareEmbed")),
    copyable(element("code", {}, snippet), snippet),
  ];
}

export async function showShare(user: string): Promise<void> {
  const close = element("button", { type: "button", class: "quiet" }, text("close"));
  await showDialog(text("share"), (done) => {
    close.onclick = () => done("");
    return [...shareParts(user), element("div", { class: "actions" }, close)];
  });
}

function copyable(shown: HTMLElement, value: string): HTMLElement {
  return element("div", { class: "copyable" }, shown, copyButton(value));
}

/** A text inside an attribute's quotation marks. */
function escaped(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
