import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { maxOpenFiles, openFiles } from "../../src/sockets/files.ts";

test("as many files are open as the number of the next one says, and more may be", () => {
  const next = openSync("/dev/null", "r");
  expect(openFiles()).toBeGreaterThan(next);
  closeSync(next);
  expect(openFiles()).toBe(next);
  expect(maxOpenFiles()).toBeGreaterThan(next);
});
