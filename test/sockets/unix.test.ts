import { expect, test } from "bun:test";
import { existsSync, renameSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listenPrivately, removeAbandoned } from "../../src/sockets/unix.ts";

test("only a unix socket on which nobody listens is removed, and no other file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ws-ticket-unix-"));
  const listen = (unix: string) => Bun.listen({ unix, socket: { data() {} } });
  const [abandoned, used, file] = ["abandoned", "used", "file"].map((name) => join(folder, name));
  const ended = listen(join(folder, "ended"));
  // Under this name it doesn't go with its listener.
  renameSync(join(folder, "ended"), abandoned as string);
  ended.stop(true);
  using _listener = listen(used as string);
  await Bun.write(file as string, "precious");
  const paths = [abandoned, used, file, join(folder, "none")] as string[];
  expect(paths.map((path) => existsSync(path))).toEqual([true, true, true, false]);
  for (const path of paths) await removeAbandoned(path);
  expect(paths.map((path) => existsSync(path))).toEqual([false, true, true, false]);
  await rm(folder, { recursive: true, force: true });
});

test("files that are made after a unix socket get their usual rights again, also where it failed", () => {
  const usual = process.umask();
  expect(listenPrivately(() => process.umask())).toBe(0o117);
  expect(process.umask()).toBe(usual);
  expect(() =>
    listenPrivately(() => {
      throw new Error("taken");
    }),
  ).toThrow("taken");
  expect(process.umask()).toBe(usual);
});
