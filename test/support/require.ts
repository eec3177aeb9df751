import { describe } from "bun:test";

type Program =
  | "redis-server"
  | "chromium"
  | "firefox-esr"
  | "openssl"
  | "curl"
  | "nginx"
  | "caddy"
  | "haproxy"
  | "systemd-analyze"
  | "sqlite3"
  | "fail2ban-regex";

/**
 * `describe` for tests that need programs of the machine's. Without them they are skipped, and say so; with
 * `CI=true` they run, and fail.
 */
export function describeWith(...programs: readonly Program[]): typeof describe {
  const missing = programs.filter((program) => !Bun.which(program));
  if (missing.length === 0 || process.env.CI === "true") return describe;
  const names = missing.join(", ");
  console.warn(`Skipped: these tests need ${names}, which is not on this machine's PATH`);
  return describe.skip as typeof describe;
}
