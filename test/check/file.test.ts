import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { inspectFile } from "../../src/check/file.ts";
import { SCHEMA_VERSION } from "../../src/chat/database.ts";
import { lockFile } from "../../src/chat/lock.ts";
import { fakeClock } from "../support/clock.ts";
import { openSqlite, withFile } from "../support/history.ts";

function look(path: string, isOwn = false): string[] {
  return inspectFile(path, { isOwn }).map(({ level, found }) => `${level}: ${found}`);
}

const SPACE = expect.stringMatching(/^ok: [\d,]+ MB left on its disk$/);

describe("a chat's file", () => {
  test("that isn't there yet will be created, and isn't by the check", () =>
    withFile(async (path) => {
      expect(look(path)).toEqual(["ok: will be created", SPACE]);
      expect(readdirSync(dirname(path))).toEqual([]);
    }));

  test("of a server that has ended is writable, and left as it is", () =>
    withFile(async (path) => {
      await (await openSqlite(path)).history.close();
      const before = readFileSync(path);
      const files = readdirSync(dirname(path));
      expect(look(path)).toEqual([expect.stringMatching(/^ok: writable, \d+ MB$/), SPACE]);
      expect(readFileSync(path)).toEqual(before);
      expect(readdirSync(dirname(path))).toEqual(files);
    }));

  test("that others may read is a warning", () =>
    withFile(async (path) => {
      await (await openSqlite(path)).history.close();
      chmodSync(path, 0o644);
      expect(look(path)).toContain("warn: has mode 0644");
    }));

  test("that a server has is in use, for everybody but that server, and stays so", () =>
    withFile(async (path) => {
      await (await openSqlite(path)).history.close();
      const lock = { withinMs: 0, clock: fakeClock(), onWait() {} };
      const release = await lockFile(path, lock);
      for (let round = 0; round < 2; round++) expect(look(path)).toContain("warn: in use");
      expect(look(path, true)).not.toContain("warn: in use");
      await expect(lockFile(path, lock)).rejects.toThrow();
      release();
      expect(look(path)).not.toContain("warn: in use");
      (await lockFile(path, lock))();
    }));

  test.each<[string, (path: string) => unknown, string]>([
    [
      "that is no database",
      (path) => Bun.write(path, "Dear diary, ".repeat(20)),
      "no SQLite database",
    ],
    [
      "of a newer version",
      (path) => {
        using db = new Database(path);
        db.run(`PRAGMA user_version = ${SCHEMA_VERSION + 1}`);
      },
      `of version ${SCHEMA_VERSION + 1}`,
    ],
  ])("%s is a fault", async (_, spoil, found) =>
    withFile(async (path) => {
      await spoil(path);
      expect(look(path)).toContain(`fault: ${found}`);
    }),
  );

  test("in a folder that isn't there is a fault", () =>
    withFile(async (path) => {
      expect(look(join(path, "chat.sqlite"))).toEqual(["fault: can't be written: ENOENT"]);
    }));

  test.skipIf(process.getuid?.() === 0 && !Bun.which("setpriv"))(
    "in a folder that can't be written to is a fault",
    () =>
      withFile(async (path) => {
        const folder = join(dirname(path), "closed");
        mkdirSync(folder);
        chmodSync(folder, 0o555);
        const script = `import { inspectFile } from ${JSON.stringify(join(import.meta.dir, "../../src/check/file.ts"))};
          console.log(inspectFile(${JSON.stringify(join(folder, "chat.sqlite"))}, { isOwn: false })[0].found);`;
        const isRoot = process.getuid?.() === 0;
        const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        chmodSync(dirname(path), 0o755);
        const child = Bun.spawnSync([
          ...[...(isRoot ? asNobody : []), process.execPath, "-e", script],
        ]);
        expect(String(child.stdout)).toBe("can't be written: not_permitted\n");
      }),
  );

  test("in memory is a warning", () => {
    expect(look(":memory:")).toEqual(["warn: in memory"]);
  });
});
