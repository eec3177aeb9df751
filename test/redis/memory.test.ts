import { describe, expect, test } from "bun:test";
import { createMemoryGuard } from "../../src/redis/memory.ts";
import { RedisError } from "../../src/redis/transport.ts";
import { fakeClock } from "../support/clock.ts";

/** A guard of a server that says what `info` returns. */
function guardOf(info: () => string) {
  const clock = fakeClock();
  const commands: string[] = [];
  const guard = createMemoryGuard({
    clock,
    transport: {
      isOrdered: true,
      async command(args) {
        commands.push(args.join(" "));
        return info();
      },
      async close() {},
    },
  });
  return { clock, commands, guard };
}

const infoOf = (used: number, most: number) =>
  `# Memory\r\nused_memory:${used}\r\nused_memory_peak:999999\r\nmaxmemory:${most}\r\nmaxmemory_policy:noeviction\r\n`;

describe("a Redis is nearly full", () => {
  test.each([
    [0, 1_000, false],
    [799, 1_000, false],
    [800, 1_000, false],
    [801, 1_000, true],
    [5_000, 1_000, true],
    [5_000, 0, false],
  ])("with %d bytes of %d: %p", async (used, most, isFull) => {
    const { guard, commands } = guardOf(() => infoOf(used, most));
    expect(await guard.isNearlyFull()).toBe(isFull);
    expect(commands).toEqual(["INFO memory"]);
  });

  test("not where the server says nothing of it", async () => {
    for (const text of [
      "",
      "# Memory\r\n",
      "used_memory:1\r\n",
      "maxmemory:1\r\n",
      "maxmemory:x",
    ]) {
      expect(await guardOf(() => text).guard.isNearlyFull()).toBe(false);
    }
  });

  test("is looked up once a second, however often it is asked for", async () => {
    let used = 900;
    const { guard, clock, commands } = guardOf(() => infoOf(used, 1_000));
    const answers = await Promise.all(Array.from({ length: 50 }, () => guard.isNearlyFull()));
    expect(new Set(answers)).toEqual(new Set([true]));
    used = 100;
    clock.advance(999);
    expect(await guard.isNearlyFull()).toBe(true);
    expect(commands).toHaveLength(1);
    clock.advance(1);
    expect(await guard.isNearlyFull()).toBe(false);
    expect(commands).toHaveLength(2);
  });

  test("is looked up once a minute where the server refuses to say, and each second where it is away", async () => {
    for (const [error, pauseMs] of [
      [new RedisError("NOPERM no permission"), 60_000],
      [new Error("Connection closed"), 1_000],
    ] as const) {
      const { guard, clock, commands } = guardOf(() => {
        throw error;
      });
      expect(await guard.isNearlyFull()).toBe(false);
      clock.advance(pauseMs - 1);
      expect(await guard.isNearlyFull()).toBe(false);
      expect(commands).toHaveLength(1);
      clock.advance(1);
      expect(await guard.isNearlyFull()).toBe(false);
      expect(commands).toHaveLength(2);
    }
  });
});
