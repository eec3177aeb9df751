const PREFIX = "ws-ticket:";

/** What the browser has no room for, or may not keep for this site, as long as the page is open. */
const unkept = new Map<string, string>();

/** What this browser was to remember. */
export function recall(key: string): string | undefined {
  try {
    return unkept.get(key) ?? localStorage.getItem(PREFIX + key) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Remembers a choice of the reader's, for as long as the browser does. Never a credential. */
export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + key, value);
    unkept.delete(key);
  } catch {
    unkept.set(key, value);
  }
}
