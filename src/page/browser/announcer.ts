import type { ConversationMessage } from "../../client/mod.ts";
import { element } from "./dom.ts";
import { text } from "./language.ts";

/** Messages that are read out when many come at once: the newest. */
const MAX_READ_OUT = 3;
/** How long it is there, in milliseconds: behind the messages it would be read a second time. */
const READ_OUT_MS = 5_000;
/** Messages at the end that are compared with what was there. */
const REMEMBERED = 50;

/** Reads out what is new, each message once, whatever happens to it and to its row afterwards. */
export interface Announcer {
  readonly root: HTMLElement;
  update(messages: readonly ConversationMessage[], otherName: string): void;
  /** Reads out something else. */
  say(news: string): void;
}

export function createAnnouncer(): Announcer {
  const root = element("div", { class: "unseen", "aria-live": "polite" });
  let known: ReadonlySet<string> | undefined;

  function say(news: string): void {
    const line = element("p", {}, news);
    root.append(line);
    setTimeout(() => line.remove(), READ_OUT_MS);
  }

  return {
    root,
    say,
    update(messages, otherName) {
      const latest = messages.slice(-REMEMBERED);
      const before = known;
      known = new Set(latest.map(({ key }) => key));
      // The first page isn't news.
      if (!before) return;
      // Nor is what was loaded from before it.
      const start = latest.findIndex(({ key }) => before.has(key));
      const arrived = latest.slice(Math.max(start, 0)).filter(({ key }) => !before.has(key));
      for (const { isMine, content } of arrived.slice(-MAX_READ_OUT)) {
        say(`${isMine ? text("you") : otherName}: ${content}`);
      }
    },
  };
}
