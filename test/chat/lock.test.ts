import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { FileInUseError, lockFile } from "../../src/chat/lock.ts";
import { openStores } from "../../src/open.ts";
import { DEFAULT_RETENTION } from "../../src/chat/history.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { newFile } from "../support/history.ts";
import { SETTINGS, startInstance, startProcess } from "../support/process.ts";

/** A path for a chat's file, and how a server waits for it. */
async function newLock() {
  const { path, end } = await newFile();
  const clock = fakeClock();
  let waits = 0;
  return {
    ...{ path, clock },
    get waits() {
      return waits;
    },
    lock: (withinMs = 1_000) => lockFile(path, { withinMs, clock, onWait: () => void waits++ }),
    [Symbol.asyncDispose]: end,
  };
}

describe("the lock on a chat's file", () => {
  test("is taken at once where nobody has it, in a file for its owner alone", async () => {
    await using file = await newLock();
    const release = await file.lock();
    expect(file.waits).toBe(0);
    expect(statSync(`${file.path}-lock`).mode & 0o777).toBe(0o600);
    release();
  });

  test("that somebody has is refused after the wait, and not before", async () => {
    await using file = await newLock();
    const release = await file.lock();
    let outcome: unknown;
    void file.lock().catch((error) => (outcome = error));
    await file.clock.pass(999);
    expect([outcome, file.waits]).toEqual([undefined, 1]);
    await file.clock.pass(200);
    expect(outcome).toBeInstanceOf(FileInUseError);
    release();
    (await file.lock())();
  });

  test("is handed over as soon as it is free, and one of two gets it", async () => {
    await using file = await newLock();
    const release = await file.lock();
    const held: (() => void)[] = [];
    for (let n = 0; n < 2; n++)
      void file.lock().then(
        (next) => held.push(next),
        () => {},
      );
    await file.clock.pass(300);
    expect(held).toHaveLength(0);
    release();
    await file.clock.pass(200);
    expect(held).toHaveLength(1);
    held[0]?.();
    await file.clock.pass(200);
    expect(held).toHaveLength(2);
    held[1]?.();
  });
});

describe("a second server on one chat database", () => {
  const settings = (chatDatabase: string) => ({ chatDatabase, retention: DEFAULT_RETENTION });

  test("waits, says so once, and is refused after 15 s", async () => {
    const { path, end } = await newFile();
    const clock = fakeClock();
    const lines: unknown[] = [];
    const options = { clock, log: (...line: unknown[]) => void lines.push(line) };
    const first = await openStores(settings(path), options);
    let outcome: unknown;
    void openStores(settings(path), options).catch((error) => (outcome = error));
    await clock.pass(14_900);
    expect(outcome).toBeUndefined();
    await clock.pass(300);
    expect(outcome).toBeInstanceOf(FileInUseError);
    expect(lines).toEqual([["warn", "open_waits", { variable: "CHAT_DATABASE", code: "in_use" }]]);
    await first.chat.close();
    await (await openStores(settings(path), options)).chat.close();
    await end();
  });

  test("whose file can't be opened leaves no lock behind", async () => {
    const { path, end } = await newFile();
    await Bun.write(path, "Dear diary, ".repeat(1_000));
    const options = { clock: fakeClock(), log: () => {} };
    await expect(openStores(settings(path), options)).rejects.toThrow();
    (await lockFile(path, { withinMs: 0, clock: fakeClock(), onWait() {} }))();
    await end();
  });

  test("in memory is nobody else's", async () => {
    const options = { clock: fakeClock(), log: () => {} };
    const both = await Promise.all([1, 2].map(() => openStores(settings(":memory:"), options)));
    await Promise.all(both.map(({ chat }) => chat.close()));
    await settle();
  });

  test("ends with 1 after 15 s in which the first goes on, and the first isn't disturbed", async () => {
    const { path, end } = await newFile();
    await using first = await startInstance({ CHAT_DATABASE: path });
    const visitor = await first.openVisitor();
    const preload = join(import.meta.dir, "../main/with-fast-clock.ts");
    await using second = startProcess({
      ...{ ...SETTINGS, CHAT_DATABASE: path },
      BUN_OPTIONS: `--preload ${preload}`,
    });
    expect(await second.exited).toBe(1);
    const [waits, failed] = second.events.slice(-2);
    expect(waits).toMatchObject({ level: "warn", event: "open_waits", code: "in_use" });
    expect(failed).toMatchObject({
      ...{ level: "error", event: "open_failed", variable: "CHAT_DATABASE", code: "in_use" },
      note: expect.stringContaining("Another process uses the file"),
    });
    visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
    expect(await visitor.next()).toMatchObject({ type: "ACK", ref: "1" });
    await end();
  });

  test.each(["SIGTERM", "SIGKILL"] as const)(
    "starts once the first has ended by %s, with all that it acknowledged",
    async (signal) => {
      const { path, end } = await newFile();
      await using first = await startInstance({ CHAT_DATABASE: path });
      const cookie = await first.visitorCookie();
      const visitor = await first.openVisitor(cookie);
      visitor.send({ type: "ANON_TO_USER", to: "alice", content: "before", ref: "1" });
      expect(await visitor.next()).toMatchObject({ type: "ACK" });
      await using second = startProcess({ ...SETTINGS, CHAT_DATABASE: path });
      expect(await second.event("open_waits")).toMatchObject({ code: "in_use" });
      first.kill(signal);
      const url = await second.listening;
      const page = await fetch(new URL("/api/chats/alice/messages", url), {
        headers: { Cookie: cookie },
      });
      expect(await page.json()).toMatchObject({ messages: [{ content: "before" }] });
      await end();
    },
  );
});
