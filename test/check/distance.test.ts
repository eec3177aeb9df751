import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { editDistance } from "../../src/check/distance.ts";

describe("editDistance", () => {
  test.each([
    ["PUBLIC_URL", "PUBLIC_URL", 0],
    ["PUBLIC_URI", "PUBLIC_URL", 1],
    ["PUBLIC_UR", "PUBLIC_URL", 1],
    ["PUBLICC_URL", "PUBLIC_URL", 1],
    ["PUBLIC_RUL", "PUBLIC_URL", 1],
    ["ALLOWED_ORIGIN", "ALLOWED_ORIGINS", 1],
    ["TRUSTED_PROXY", "TRUST_PROXY", 2],
    ["", "PORT", 4],
    ["abc", "xyz", 3],
  ])("%p and %p: %i", (one, other, distance) => {
    expect(editDistance(one, other)).toBe(distance);
  });

  test("is symmetric, 0 for equal words alone, and at most the longer one's length", () => {
    const word = fc.stringMatching(/^[A-C_]{0,8}$/);
    fc.assert(
      fc.property(word, word, (one, other) => {
        const distance = editDistance(one, other);
        expect(editDistance(other, one)).toBe(distance);
        expect(distance === 0).toBe(one === other);
        expect(distance).toBeLessThanOrEqual(Math.max(one.length, other.length));
        expect(distance).toBeGreaterThanOrEqual(Math.abs(one.length - other.length));
      }),
    );
  });
});
