import { describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { visitorIdOf } from "../support/people.ts";
import { startInstance } from "../support/process.ts";
import { describeWith } from "../support/require.ts";
import type { Frame } from "../support/socket.ts";
import { getAnswer, keptIn, writeOn } from "../support/writing.ts";
import { runLines } from "./folder.ts";
import { temporaryFolder } from "../support/folder.ts";
import { blockWith, fitted, section } from "./readme.ts";

/** Whether tests may have a disk of their own. */
const MAY_MOUNT = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
if (!MAY_MOUNT) console.warn("Skipped: a full disk needs `unshare --mount`, which takes root");

describeWith("sqlite3")("the README's backup", () => {
  test("of a server at work has every message acknowledged before, and is restored over a later file", async () => {
    await using folder = await temporaryFolder();
    const { path } = folder;
    const file = join(path, "ws-ticket.sqlite");
    const environment = { CHAT_DATABASE: file };
    const [line = ""] = /^sqlite3 .*$/m.exec(blockWith("VACUUM INTO")) ?? [];
    const backUp = fitted(line, { "/var/lib/ws-ticket": path, "/var/backups": path });

    const kept: string[] = [];
    let before: string[] = [];
    {
      await using server = await startInstance(environment);
      const sockets = await Promise.all(Array.from({ length: 10 }, () => server.openVisitor()));
      for (const socket of sockets) await getAnswer(server, socket, "alice");
      const frame = { type: "ANON_TO_USER", to: "alice" };
      const writing = sockets.map((socket) => writeOn(socket, frame, kept));
      while (kept.length < 500) await Bun.sleep(1);
      before = [...kept];
      // Not `runLines`, which would keep this process from writing meanwhile.
      const backing = Bun.spawn(["sh", "-c", backUp], { stderr: "inherit" });
      expect(await backing.exited).toBe(0);
      const atEnd = kept.length;
      while (kept.length < atEnd + 100) await Bun.sleep(1);
      expect(server.events.some(({ event }) => event === "chat_failed")).toBe(false);
      server.kill("SIGTERM");
      await Promise.all(writing);
      expect(await server.exited).toBe(0);
    }

    const [name = ""] = await Array.fromAsync(new Bun.Glob("chat-*.sqlite").scan(path));
    expect(section).toContain(
      "`rm` the file's `-wal` and `-shm`, and `cat` the backup into the file",
    );
    runLines(`rm -f ${file}-wal ${file}-shm\ncat ${join(path, name)} > ${file}`, path);
    await using server = await startInstance(environment);
    const stored = keptIn(file);
    expect(before.filter((ref) => !stored.has(ref))).toEqual([]);
    expect(stored.size).toBeLessThan(kept.length);
    const cookie = await server.visitorCookie();
    await using visitor = await server.openVisitor(cookie);
    await getAnswer(server, visitor, "alice");
    const page = await server.ask(`/api/chats/alice/messages`, { cookie });
    expect(page.body.messages).toHaveLength(2);
  }, 60_000);
});

describe.skipIf(!MAY_MOUNT)("a disk that is full", () => {
  test("makes messages unavailable and the server not ready, loses none, and is forgotten once there is room", async () => {
    await using folder = await temporaryFolder();
    const disk = join(folder.path, "disk");
    const lines = `mkdir ${disk}; mount -t tmpfs -o size=2m tmpfs ${disk}; head -c 1m /dev/zero > ${disk}/ballast; exec "$@"`;
    await using server = await startInstance(
      { CHAT_DATABASE: join(disk, "ws-ticket.sqlite") },
      { within: ["unshare", "--mount", "sh", "-eu", "-c", lines, "sh"] },
    );
    const cookie = await server.visitorCookie();
    await using visitor = await server.openVisitor(cookie);
    await getAnswer(server, visitor, "alice");
    const acknowledged: string[] = [];
    let sent = 0;
    async function say(): Promise<Frame> {
      const ref = `${++sent}`;
      visitor.send({
        type: "ANON_TO_USER",
        to: "alice",
        content: `${ref} ${"x".repeat(3_000)}`,
        ref,
      });
      const frame = await visitor.next((one) => one.ref === ref);
      if (frame.type === "ACK") acknowledged.push(ref);
      return frame;
    }
    while ((await say()).type === "ACK") expect(sent).toBeLessThan(2_000);
    for (let n = 0; n < 5; n++) expect(await say()).toMatchObject({ code: "unavailable" });
    expect((await server.ask("/readyz")).status).toBe(503);
    expect((await server.ask("/healthz")).status).toBe(200);
    // Tickets need no disk.
    await using user = await server.openUser("alice");
    expect(await server.event("chat_failed")).toMatchObject({ code: "disk_full" });

    // Through the server's own view of the files.
    await rm(`/proc/${server.pid}/root${disk}/ballast`);
    while ((await say()).type !== "ACK") await Bun.sleep(50);
    // One look serves all who ask within a second.
    while ((await server.ask("/readyz")).status !== 200) await Bun.sleep(50);
    expect((await say()).type).toBe("ACK");
    await user.next(({ content }) => content?.startsWith(`${sent} `));

    const told: string[] = [];
    for (let after = "0"; ;) {
      const path = `/api/chats/${visitorIdOf(cookie)}/messages?limit=200&after=${after}`;
      const { body } = await server.ask(path, { user: "alice" });
      told.push(...body.messages.map(({ content }: Frame) => content.split(" ")[0]));
      if (!body.more) break;
      after = body.messages.at(-1).id;
    }
    expect(told.slice(2)).toEqual(acknowledged);
  }, 60_000);
});
