import { expect, test } from "bun:test";
import { readLimits } from "../../src/sockets/limits.ts";

test.each([
  [1, 1],
  [4, 1],
  [5, 2],
  [1_000, 250],
])("of %d sockets one address may have %d by default, and never none", (maxSockets, most) => {
  expect(readLimits({ maxSockets }).maxPerAddress).toBe(most);
});
