import { expect, test } from "bun:test";
import { reasonOf } from "../../src/check/report.ts";

test("each fault of a connection has a reason of its own, and any other code a general one", () => {
  const codes = [
    ...["wrong_password", "not_permitted", "connection_refused", "unknown_host", "bad_certificate"],
    ...["out_of_memory", "read_only", "DeadlineError", "another"],
  ];
  expect(new Set(codes.map(reasonOf)).size).toBe(codes.length);
  for (const code of ["toString", "disk_full"]) expect(reasonOf(code)).toBe(reasonOf("another"));
});
