import { INBOX_URL } from "./session.ts";

/** The inbox's address; a chat has the visitor's id behind it. */
const CHAT_ADDRESS = /\/inbox\/([\w-]{22})$/;

/** Which chat the address says, and how to go to another one. */
export interface Route {
  /** The visitor's id; `undefined` for the list. */
  readonly peer: string | undefined;
  /** Goes to a chat, so that Back returns from it. */
  open(peer: string): void;
  /** Goes to the list: back, where that leads there. */
  close(): void;
  dispose(): void;
}

/** Follows the address, which Back and Forward change, too. */
export function createRoute(onChange: () => void): Route {
  const listening = new AbortController();
  const self: Route = {
    get peer() {
      return CHAT_ADDRESS.exec(location.pathname)?.[1];
    },
    open(peer) {
      if (peer === self.peer) return;
      history.pushState({ fromList: self.peer === undefined }, "", `${INBOX_URL}/${peer}`);
      onChange();
    },
    close() {
      if (self.peer === undefined) return;
      if (history.state?.fromList) return history.back();
      history.replaceState(null, "", INBOX_URL);
      onChange();
    },
    dispose: () => listening.abort(),
  };
  addEventListener("popstate", onChange, { signal: listening.signal });
  return self;
}
