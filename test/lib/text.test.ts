import { describe, expect, test } from "bun:test";
import { isLine, isLines, toTimestamp } from "../../src/lib/text.ts";

const code = (point: number) => String.fromCodePoint(point);
/** Unicode's category Cc. */
const CONTROLS = Array.from({ length: 0xa1 }, (_, point) => point).filter((point) =>
  /\p{Cc}/u.test(code(point)),
);

describe("text", () => {
  test("of one line has no control character", () => {
    for (let point = 0; point <= 0xa1; point++) {
      expect(isLine(`a${code(point)}b`, 3)).toBe(!CONTROLS.includes(point));
    }
  });

  test("of several lines has none but line feeds", () => {
    for (let point = 0; point <= 0xa1; point++) {
      const isAllowed = point === 0x0a || !CONTROLS.includes(point);
      expect(isLines(`a${code(point)}b`, 3)).toBe(isAllowed);
    }
  });

  test.each<[string, unknown, boolean]>([
    ["as long as it may be", "x".repeat(10), true],
    ["longer", "x".repeat(11), false],
    ["of one character", "x", true],
    ["that is empty", "", false],
    ["of half a surrogate pair", "a\ud800", false],
    ["of a whole one", "a😀", true],
    ["that is a number", 7, false],
    ["that is a list", ["x"], false],
    ["that is nothing", undefined, false],
  ])("%s", (_, value, isGood) => {
    expect(isLine(value, 10)).toBe(isGood);
    expect(isLines(value, 10)).toBe(isGood);
  });

  test("of nothing but blanks is a line, and says nothing as several", () => {
    for (const blank of [" ", "\u3000", " \u2003 "]) {
      expect(isLine(blank, 10)).toBe(true);
      expect(isLines(blank, 10)).toBe(false);
    }
    expect(isLines("\n", 10)).toBe(false);
    expect(isLines("\nx\n", 10)).toBe(true);
  });
});

test("a timestamp is the time in ISO 8601, whatever was written before", () => {
  const times = [0, 1, 1, 1_767_225_600_000, 0, 1_767_225_600_001];
  expect(times.map(toTimestamp)).toEqual(times.map((ms) => new Date(ms).toISOString()));
});
