/** Start of every key, unless another was chosen. */
export const DEFAULT_PREFIX = "ws-ticket:";

/** Whether a string can stand at the start of every key: nothing that an ACL's or a cluster's pattern reads as more. */
export function isPrefix(prefix: unknown): prefix is string {
  return typeof prefix === "string" && /^[\w.:-]{1,64}$/.test(prefix);
}

/** The start of every key. Throws a `TypeError` for what can't be one. */
export function requirePrefix(prefix: unknown = DEFAULT_PREFIX): string {
  if (isPrefix(prefix)) return prefix;
  throw new TypeError(
    "Option prefix must be 1 to 64 letters, digits, colons, dots, dashes and underscores",
  );
}

/**
 * Keys of the feed. Its entries have fields `kind` and `epoch`, and others by kind. What belongs to it: `epoch` names
 * this run of the Redis, and changes when the data is lost; `bytes` were added since the entry `mark`.
 */
export function feedKeys(prefix: string = DEFAULT_PREFIX): [stream: string, state: string] {
  return [`${prefix}feed`, `${prefix}feed:state`];
}
