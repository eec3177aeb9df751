import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseJson } from "../../src/lib/json.ts";

describe("parseJson", () => {
  test("parses what consists of text, however long and odd", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.string({ unit: "grapheme", maxLength: 4_000 }), {
          maxKeys: 20,
        }),
        fc.constantFrom("", '"', "\\", '\\"', "[{:,", "\\".repeat(1_001)),
        (texts, odd) => {
          const value = { ...texts, content: odd.repeat(3_000 / Math.max(1, odd.length)) };
          expect(parseJson(JSON.stringify(value))).toEqual(value);
        },
      ),
    );
  });

  test("parses what is short, whatever it is", () => {
    const nested = "[".repeat(512) + "]".repeat(512);
    expect(parseJson(nested)).toEqual(JSON.parse(nested));
  });

  test.each([
    ["nested arrays", "[".repeat(8_000) + "]".repeat(8_000)],
    ["nested objects", '{"a":'.repeat(2_600) + "1" + "}".repeat(2_600)],
    ["arrays that don't end", "[".repeat(16_000)],
    [
      "many fields",
      JSON.stringify(Object.fromEntries(Array.from({ length: 1_500 }, (_, n) => [n, ""]))),
    ],
    ["many numbers", JSON.stringify(Array.from({ length: 8_000 }, () => 1))],
    ["many empty strings", JSON.stringify(Array.from({ length: 5_000 }, () => ""))],
    ["blanks", `${" ".repeat(16_000)}1`],
    ["much behind an escaped quotation mark", `["\\\\"${",[]".repeat(5_000)}]`],
  ])("refuses %s", (_, text) => {
    expect(() => parseJson(text)).toThrow("JSON is too complex");
  });

  test.each([
    ["strings without an end", '"\\"'.repeat(5_000)],
    ["quotation marks", '"'.repeat(16_001)],
    ["escaped quotation marks", `"${'\\"'.repeat(8_000)}`],
    ["backslashes", `"${"\\".repeat(16_001)}`],
  ])("takes no longer for %s", (_, text) => {
    const startMs = performance.now();
    for (let time = 0; time < 20; time++) expect(() => parseJson(text)).toThrow(SyntaxError);
    // A quadratic time would be seconds.
    expect(performance.now() - startMs).toBeLessThan(1_000);
  });
});
