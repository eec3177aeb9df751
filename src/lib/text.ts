// Control characters are those of Unicode's category Cc. A class of code points is tested many times faster.

/** Text of one line: 1 to `maxLength` UTF-16 code units, well-formed, no control characters. */
export function isLine(value: unknown, maxLength: number): value is string {
  return isText(value, maxLength) && !/[\0-\x1f\x7f-\x9f]/.test(value);
}

/** Text of one or more lines that says something: the same, but line feeds are allowed. */
export function isLines(value: unknown, maxLength: number): value is string {
  return (
    isText(value, maxLength) && !/[\0-\x09\x0b-\x1f\x7f-\x9f]/.test(value) && value.trim() !== ""
  );
}

function isText(value: unknown, maxLength: number): value is string {
  return (
    typeof value === "string" &&
    value.length >= 1 &&
    value.length <= maxLength &&
    value.isWellFormed()
  );
}

let lastMs = Number.NaN;
let lastTimestamp = "";

/** A wall-clock time in ISO 8601. What happens in the same millisecond is written once. */
export function toTimestamp(ms: number): string {
  if (ms !== lastMs) {
    lastTimestamp = new Date(ms).toISOString();
    lastMs = ms;
  }
  return lastTimestamp;
}
