import { describe } from "bun:test";

/**
 * `describe` for tests that need a program of the machine's. Without it they are skipped, and say so; with
 * `CI=true` they run, and fail.
 */
export function describeWith(
  program: "redis-server" | "chromium" | "openssl" | "curl",
): typeof describe {
  if (Bun.which(program) || process.env.CI === "true") return describe;
  console.warn(`Skipped: these tests need ${program}, which is not on this machine's PATH`);
  return describe.skip as typeof describe;
}
