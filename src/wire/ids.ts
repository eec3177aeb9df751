import { isLine } from "../lib/text.ts";

/** Longest user id, in UTF-16 code units. */
export const MAX_USER_ID_LENGTH = 255;

/** Whether a value can be a user's id: 1 to 255 well-formed characters, none of them a control character. */
export function isUserId(value: unknown): value is string {
  return isLine(value, MAX_USER_ID_LENGTH);
}

/** Whether a value has the form of a visitor's id: 128 bits in base64url. */
export function isVisitorId(value: unknown): value is string {
  return typeof value === "string" && /^[\w-]{21}[AQgw]$/.test(value);
}
