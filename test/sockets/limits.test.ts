import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { areFilesShort, readLimits } from "../../src/sockets/limits.ts";

test.each([
  [1, 1],
  [4, 1],
  [5, 2],
  [1_000, 250],
])("of %d sockets one address may have %d by default, and never none", (maxSockets, most) => {
  expect(readLimits({ maxSockets }).maxPerAddress).toBe(most);
});

test("files are short once 95 % of those that the process may open are open", () => {
  const next = openSync("/dev/null", "r");
  closeSync(next);
  expect(areFilesShort(Math.floor(next / 0.95))).toBe(true);
  expect(areFilesShort(Math.ceil(next / 0.95) + 1)).toBe(false);
});
