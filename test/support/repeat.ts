/**
 * How often a test repeats what only happens sometimes: `few` times in `bun run test`, `many` in
 * `bun run test:long`.
 */
export function repeats(few: number, many: number): number {
  return process.env.LONG === "1" ? many : few;
}
