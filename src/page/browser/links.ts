import { element } from "./dom.ts";

/** Where a link may begin; it ends before a space, a quotation mark or an angle bracket. */
const LINK = /\bhttps?:\/\/[^\s<>"“”„]+/gi;
/** What belongs to the sentence around a link rather than to the link. */
const TRAILING = new Set(".,:;!?'’*_~");

/** A text with its links as links. Only http and https, and none that shows another host than it opens. */
export function linked(content: string): (Node | string)[] {
  const parts: (Node | string)[] = [];
  let end = 0;
  for (const found of content.matchAll(LINK)) {
    const shown = trimmed(found[0]);
    const url = URL.canParse(shown) ? new URL(shown) : undefined;
    if (!url || url.username !== "" || url.password !== "") continue;
    parts.push(
      content.slice(end, found.index),
      element(
        "a",
        { href: url.href, rel: "noopener nofollow ugc", target: "_blank", dir: "ltr" },
        shown,
      ),
    );
    end = found.index + shown.length;
  }
  parts.push(content.slice(end));
  return parts;
}

/** A closing bracket belongs to a link only where it was opened there. */
function trimmed(candidate: string): string {
  let open = candidate.split("(").length - candidate.split(")").length;
  let end = candidate.length;
  for (; ; end--) {
    const last = candidate[end - 1] as string;
    if (last === ")" && open < 0) open++;
    else if (!TRAILING.has(last)) break;
  }
  return candidate.slice(0, end);
}
