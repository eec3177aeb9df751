import { expect, test } from "bun:test";
import { FRAME_ERRORS, otherSide } from "../../src/wire/frames.ts";

test("every error of a frame says what it is, in a sentence of its own", () => {
  const texts = Object.values(FRAME_ERRORS);
  for (const text of texts) expect(text).toMatch(/^[A-Z][\w ,;']{15,}\w$/);
  expect(new Set(texts).size).toBe(texts.length);
  // Part of the protocol: clients have texts of their own for them.
  expect(Object.keys(FRAME_ERRORS)).toEqual([
    ...["malformed", "not_allowed", "invalid_recipient", "invalid_content", "invalid_nickname"],
    ...["invalid_ref", "not_found", "blocked", "too_many_messages", "too_many_recipients"],
    "unavailable",
  ]);
});

test("the other side of each side", () => {
  expect([otherSide("user"), otherSide("visitor")]).toEqual(["visitor", "user"]);
});
