import { expect, test } from "bun:test";
import { join } from "node:path";
import { temporaryFolder } from "../support/folder.ts";
import { startInstance } from "../support/process.ts";
import { getAnswer, keptIn, writeOn } from "../support/writing.ts";

test("a process that is killed at work has every acknowledged message, and none of its sockets, after the restart", async () => {
  await using folder = await temporaryFolder();
  const environment = { CHAT_DATABASE: join(folder.path, "chat.sqlite") };
  const kept: string[] = [];
  {
    await using server = await startInstance(environment);
    const sockets = await Promise.all(Array.from({ length: 20 }, () => server.openVisitor()));
    for (const socket of sockets) await getAnswer(server, socket, "alice");
    const writing = sockets.map((socket) =>
      writeOn(socket, { type: "ANON_TO_USER", to: "alice" }, kept),
    );
    while (kept.length < 500) await Bun.sleep(1);
    server.kill("SIGKILL");
    await Promise.all(writing);
    for (const { closed } of sockets) expect((await closed).code).toBe(1006);
  }
  await using server = await startInstance(environment);
  const stored = keptIn(environment.CHAT_DATABASE);
  expect(kept.filter((ref) => !stored.has(ref))).toEqual([]);
  await using visitor = await server.openVisitor();
  visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Again", ref: "again" });
  expect(await visitor.next()).toMatchObject({ type: "ACK", ref: "again" });
}, 20_000);

test("a process survives what nobody catches, and logs it without its message", async () => {
  const preload = join(import.meta.dir, "with-faults.ts");
  await using server = await startInstance({ BUN_OPTIONS: `--preload ${preload}` });
  process.kill(server.pid, "SIGUSR2");
  const codes = () =>
    server.events.filter(({ event }) => event === "uncaught").map(({ code }) => code);
  while (codes().length < 2) await Bun.sleep(1);
  expect(codes().toSorted()).toEqual(["RangeError", "TypeError"]);
  expect(server.stdout + server.stderr).not.toContain("canary");
  expect((await server.ask("/healthz")).status).toBe(200);
});
