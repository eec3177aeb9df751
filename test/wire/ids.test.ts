import { describe, expect, test } from "bun:test";
import { isUserId, isVisitorId } from "../../src/wire/ids.ts";

describe("a user's id", () => {
  test.each<[unknown, boolean]>([
    ["a", true],
    ["x".repeat(255), true],
    ["x".repeat(256), false],
    ["", false],
    ["a\n", false],
    ["é 漢字@example.com", true],
    [7, false],
    [undefined, false],
  ])("%j: %p", (value, isId) => {
    expect(isUserId(value)).toBe(isId);
  });
});

describe("a visitor's id: 128 bits in base64url", () => {
  const id = Buffer.from("0123456789abcdef").toString("base64url");

  test("in 22 characters, whose last one has no spare bits", () => {
    expect(isVisitorId(id)).toBe(true);
    for (const last of "AQgw") expect(isVisitorId(id.slice(0, -1) + last)).toBe(true);
    for (const last of "BZ_-09") expect(isVisitorId(id.slice(0, -1) + last)).toBe(false);
  });

  test.each<[string, unknown]>([
    ["a character less", id.slice(1)],
    ["a character more", `A${id}`],
    ["a line feed behind", `${id}\n`],
    ["the standard alphabet", `+${id.slice(1)}`],
    ["nothing", ""],
    ["a list", [id]],
  ])("isn't %s", (_, value) => {
    expect(isVisitorId(value)).toBe(false);
  });
});
