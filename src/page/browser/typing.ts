import type { ChatClient } from "../../client/mod.ts";
import { element } from "./dom.ts";
import { text, textAround } from "./language.ts";

/** How long somebody is shown as writing after the server has said so, in milliseconds: it says so again every 3 s. */
const SHOWN_MS = 6_000;
/** Least time between two announcements, in milliseconds: whoever listens isn't interrupted at each pause in writing. */
const ANNOUNCED_EVERY_MS = 60_000;

/** A line that says that the other one writes. */
export interface Typing {
  readonly root: HTMLElement;
  dispose(): void;
}

export function createTyping(
  client: ChatClient,
  options: { peer: string; otherName(): string; announce(news: string): void },
): Typing {
  const { peer, otherName, announce } = options;
  const root = element("p", { class: "typing", hidden: true });
  let announcedMs = Number.NEGATIVE_INFINITY;
  let timer = 0;

  function show(): void {
    root.replaceChildren(...textAround("typing", element("bdi", {}, otherName())));
    root.hidden = false;
    clearTimeout(timer);
    timer = window.setTimeout(hide, SHOWN_MS);
    if (performance.now() - announcedMs < ANNOUNCED_EVERY_MS) return;
    announcedMs = performance.now();
    announce(text("typing", { name: otherName() }));
  }

  function hide(): void {
    clearTimeout(timer);
    root.hidden = true;
  }

  // From the other one comes either this or a message, which ends it.
  const stop = client.on("frame", (frame) => {
    if (!("from" in frame) || frame.from !== peer) return;
    if (frame.type === "TYPING") show();
    else hide();
  });
  return {
    root,
    dispose() {
      stop();
      hide();
    },
  };
}
