const PREFIX = "ws-ticket:";

/** What this browser was to remember; `undefined` also where it keeps nothing for this site. */
export function recall(key: string): string | undefined {
  try {
    return localStorage.getItem(PREFIX + key) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Remembers a choice of the reader's, for as long as the browser does. Never a credential. */
export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + key, value);
  } catch {
    // It isn't remembered, and nothing else is wrong.
  }
}
