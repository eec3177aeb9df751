/**
 * A cookie's name; over https with the prefix that ties it to exactly this host (RFC 6265bis section 4.1.3.2). With
 * that prefix its path is `/`, so that servers with paths of their own (`publicPath`) on one host get cookies of
 * different names.
 */
export function cookieName(name: string, secure: boolean, publicPath = ""): string {
  return `${secure ? "__Host-" : ""}${name}${publicPath.replaceAll("/", ".")}`;
}

/**
 * The value of the one cookie with exactly this name; `undefined` without it, and with two: there is no way to
 * tell which one an attacker has set (RFC 6265bis section 4.2.2).
 */
export function cookieValue(header: string | null, name: string): string | undefined {
  const text = header ?? "";
  const start = `${name}=`;
  let value: string | undefined;
  // Not by splitting: there may be thousands of others.
  for (let at = text.indexOf(start); at >= 0; at = text.indexOf(start, at + 1)) {
    if (!isFirstInPair(text, at)) continue;
    if (value !== undefined) return undefined;
    const end = text.indexOf(";", at);
    value = trimBlanks(text.slice(at, end < 0 ? undefined : end)).slice(start.length);
  }
  return value;
}

/** Whether nothing but blanks stands between the last semicolon and here. */
function isFirstInPair(text: string, at: number): boolean {
  let before = at - 1;
  while (before >= 0 && isBlank(text[before])) before--;
  return before < 0 || text[before] === ";";
}

function isBlank(char: string | undefined): boolean {
  return char === " " || char === "\t";
}

/**
 * Only space and tab; other white space is part of a name. Not a regular expression: on long runs of blanks
 * those take quadratic time.
 */
function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text[start])) start++;
  while (end > start && isBlank(text[end - 1])) end--;
  return text.slice(start, end);
}
