import { describe, expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import {
  createLineBuffer,
  createLog,
  faultCode,
  LOG_LEVELS,
  type LogFields,
  type LogLevel,
} from "../../src/lib/log.ts";
import { fakeClock } from "../support/clock.ts";
import { anyText } from "../support/text.ts";

/** The lines that `write` makes of a log from `level` upwards. */
function linesOf(
  write: (log: ReturnType<typeof createLog>) => void,
  level: LogLevel = "debug",
): string[] {
  const lines: string[] = [];
  write(createLog({ level, clock: fakeClock(), write: (line) => void lines.push(line) }));
  return lines;
}

test("an event is one line of JSON with time, level, event and its fields, in this order", () => {
  const fields = { user: "alice", code: "token_invalid", durationMs: 3 } satisfies LogFields;
  expect(linesOf((log) => log("info", "socket_opened", fields))).toEqual([
    '{"time":"2026-01-01T00:00:00.000Z","level":"info","event":"socket_opened","code":"token_invalid","user":"alice","durationMs":3}\n',
  ]);
});

test("the time is the clock's, in UTC", () => {
  const clock = fakeClock(Date.parse("2026-06-30T23:59:59.999+02:00"));
  const lines: string[] = [];
  createLog({ level: "info", clock, write: (line) => void lines.push(line) })("info", "listening");
  expect(JSON.parse(lines[0] as string).time).toBe("2026-06-30T21:59:59.999Z");
});

describe("levels", () => {
  test.each<[LogLevel, string[]]>([
    ["debug", ["debug", "info", "warn", "error"]],
    ["info", ["info", "warn", "error"]],
    ["warn", ["warn", "error"]],
    ["error", ["error"]],
    ["silent", []],
  ])("%s lets through what is as grave or graver", (level, expected) => {
    const lines = linesOf((log) => {
      for (const each of ["debug", "info", "warn", "error"] as const) log(each, "refused");
    }, level);
    expect(lines.map((line) => JSON.parse(line).level)).toEqual(expected);
  });

  test("these are all there are", () => {
    expect(LOG_LEVELS).toEqual(["debug", "info", "warn", "error", "silent"]);
  });
});

describe("refusals", () => {
  const PER_ADDRESS = 120;
  const REFUSALS = ["refused", "socket_refused", "ticket_refused"] as const;

  test.each(REFUSALS)("of one address fill no disk: of %s so many lines a minute", (event) => {
    const clock = fakeClock();
    const lines: Record<string, unknown>[] = [];
    const write = (line: string) => void lines.push(JSON.parse(line));
    const log = createLog({ level: "info", clock, write });
    const refuse = (peer: string) => log("info", event, { code: "token_invalid", peer });
    for (let n = 0; n < 10_000; n++) refuse("192.0.2.1");
    expect(lines).toHaveLength(PER_ADDRESS);
    expect(lines.filter(({ skipped }) => skipped !== undefined)).toEqual([]);
    refuse("192.0.2.2");
    expect(lines.at(-1)).toMatchObject({ peer: "192.0.2.2", skipped: 10_000 - PER_ADDRESS });
    clock.advance(60_000 / PER_ADDRESS);
    refuse("192.0.2.1");
    expect(lines.at(-1)).toEqual({
      ...{ time: "2026-01-01T00:00:00.500Z", level: "info", event },
      ...{ code: "token_invalid", peer: "192.0.2.1" },
    });
    refuse("192.0.2.1");
    expect(lines).toHaveLength(PER_ADDRESS + 2);
    refuse("192.0.2.2");
    expect(lines.at(-1)).toMatchObject({ peer: "192.0.2.2", skipped: 1 });
  });

  test("of many addresses don't either, and what isn't a refusal is never left out", () => {
    const lines = linesOf((log) => {
      for (let n = 0; n < 10_000; n++) {
        log("info", "refused", { code: "token_invalid", peer: `192.0.${n >> 8}.${n & 255}` });
        log("info", "socket_opened", { user: "alice" });
      }
    });
    expect(lines.filter((line) => line.includes('"refused"'))).toHaveLength(1_200);
    expect(lines.filter((line) => line.includes('"socket_opened"'))).toHaveLength(10_000);
  });
});

describe("fields", () => {
  test("what isn't in the list has no way in, wherever it comes from", () => {
    const canary = "canary-7f3a";
    const smuggled = {
      ...{ token: canary, ticket: canary, cookie: canary, authorization: canary, headers: canary },
      ...{ message: canary, stack: canary, error: new Error(canary), content: canary },
      ...{ time: canary, level: canary, event: canary, toJSON: () => canary },
      ...{ constructor: canary, hasOwnProperty: canary, user: "alice" },
    } as LogFields;
    Object.setPrototypeOf(smuggled, { password: canary });
    const [line = ""] = linesOf((log) => log("info", "refused", smuggled));
    expect(line).not.toContain(canary);
    expect(Object.keys(JSON.parse(line))).toEqual(["time", "level", "event", "user"]);
  });

  test("those without a value are left out, falsy ones aren't", () => {
    const [line = ""] = linesOf((log) =>
      log("info", "refused", {
        code: 0,
        user: "",
        durationMs: 0,
        ...(Object.fromEntries([["peer", undefined]]) as LogFields),
      }),
    );
    const { time: _, ...rest } = JSON.parse(line);
    expect(rest).toEqual({ level: "info", event: "refused", code: 0, user: "", durationMs: 0 });
  });

  test("a long value is cut, so that it doesn't fill the disk", () => {
    const [line = ""] = linesOf((log) => log("info", "refused", { user: "x".repeat(100_000) }));
    expect(JSON.parse(line).user).toBe("x".repeat(300));
  });
});

describe("whatever a value contains, it makes one line", () => {
  test.each([
    ["CR LF", "alice\r\n{}"],
    ["a forged line", 'alice"}\n{"level":"error","event":"forged"}'],
    ["an ANSI escape", "\x1b[2Jalice\x1b[31m"],
    ["a C1 escape", "\x9b31malice"],
    ["NEL", "alice\x85bob"],
    ["U+2028 and U+2029", "alice\u2028bob\u2029"],
    ["NUL, vertical tab, form feed, DEL", "\0\v\f\x7f"],
    ["half a surrogate pair", "alice\ud800"],
    ["a pair cut in half at the end", `${"x".repeat(299)}🦊`],
  ])("%s", (_, user) => {
    const lines = linesOf((log) => log("info", "refused", { user }));
    expect(lines).toHaveLength(1);
    const line = lines[0] as string;
    expect(line.slice(0, -1)).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
    expect(line.endsWith("}\n")).toBe(true);
    expect(line.isWellFormed()).toBe(true);
    expect(JSON.parse(line).user).toBe(user.slice(0, 300));
    expect(JSON.parse(line).event).toBe("refused");
  });

  test("anything at all", () => {
    const value = anyText(400);
    fc.assert(
      fc.property(value, value, (user, note) => {
        const [line = "", ...more] = linesOf((log) => log("warn", "refused", { user, note }));
        expect(more).toEqual([]);
        expect(line.slice(0, -1)).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
        expect(JSON.parse(line)).toMatchObject({ user: user.slice(0, 300), event: "refused" });
      }),
    );
  });
});

describe("of an error its code or its class is logged, never its message", () => {
  test.each<[string, unknown, string]>([
    ["a code", Object.assign(new Error("secret"), { code: "ECONNRESET" }), "ECONNRESET"],
    ["a class", new TypeError("secret"), "TypeError"],
    [
      "a DOMException, whose code is a number",
      new DOMException("secret", "TimeoutError"),
      "TimeoutError",
    ],
    ["a code that is a sentence", Object.assign(new Error(), { code: "GET secret" }), "Error"],
    ["a code that is too long", Object.assign(new Error(), { code: "x".repeat(61) }), "Error"],
    ["a code with a line feed", Object.assign(new Error(), { code: "E\n" }), "Error"],
    ["a name that is a sentence", Object.assign(new Error(), { name: "secret leaked" }), "unknown"],
    ["a string", "secret", "unknown"],
    ["nothing", undefined, "unknown"],
    ["null", null, "unknown"],
    ["an object with numbers", { code: 7, name: 8 }, "unknown"],
  ])("%s", (_, error, code) => {
    expect(faultCode(error)).toBe(code);
  });
});

test("lines that come together are written together, soon, and at once when they are flushed", async () => {
  const written: string[] = [];
  const lines = createLineBuffer((text) => void written.push(text));
  const hasWritten = async (count: number) => {
    while (written.length < count) await Bun.sleep(1);
  };
  using timers = spyOn(globalThis, "setTimeout");
  for (const line of ["a\n", "b\n"]) lines.add(line);
  expect(timers).toHaveBeenCalledTimes(1);
  expect(written).toEqual([]);
  await hasWritten(1);
  lines.add("c\n");
  await hasWritten(2);
  lines.add("d\n");
  lines.flush();
  lines.flush();
  expect(written).toEqual(["a\nb\n", "c\n", "d\n"]);
});
