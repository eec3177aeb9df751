import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../../src/config.ts";
import { runCommand } from "../support/command.ts";
import { peopleOf } from "../support/people.ts";
import { SETTINGS, startProcess, type TestProcess } from "../support/process.ts";
import { handshake } from "../support/raw.ts";

const PROXIED = { PUBLIC_URL: "https://chat.example", TRUST_PROXY: "1" };
const ORIGIN = "https://chat.example";

describe("UNIX_SOCKET", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "ws-ticket-unix-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function serverAt(path: string): TestProcess {
    return startProcess({ ...SETTINGS, ...PROXIED, PORT: "", UNIX_SOCKET: path });
  }

  function ask(path: string, target: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`http://chat.example${target}`, { ...init, unix: path });
  }

  test("serves there and nowhere else, for its owner and group, and leaves nothing behind", async () => {
    const path = join(folder, "one");
    await using server = serverAt(path);
    const { url } = await server.event("listening");
    expect(url).toBe(`unix://${path}`);
    expect(statSync(path).mode & 0o777).toBe(0o660);
    expect((await ask(path, "/readyz")).status).toBe(200);
    const environment = { ...SETTINGS, UNIX_SOCKET: path };
    expect((await runCommand(["healthcheck"], { environment })).code).toBe(0);
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
    const gone = await runCommand(["healthcheck"], { environment });
    expect([gone.code, gone.stderr]).toEqual([1, `ws-ticket: no response from ${path}\n`]);
  });

  test("is looked at by check, which changes nothing", async () => {
    const check = async (path: string) => {
      const environment = { ...SETTINGS, TRUST_PROXY: "1", UNIX_SOCKET: path };
      const { code, stdout } = await runCommand(["check"], { environment });
      return [code, stdout.split("\n").find((line) => line.includes("UNIX_SOCKET"))];
    };
    const path = join(folder, "checked");
    expect(await check(path)).toEqual([0, expect.stringMatching(/^ok .*will be created/)]);
    await Bun.write(path, "precious");
    expect(await check(path)).toEqual([78, expect.stringMatching(/^fault .*no socket/)]);
    expect(await check(join(folder, "none/x"))).toEqual([78, expect.stringContaining("ENOENT")]);
    expect(await Bun.file(path).text()).toBe("precious");
  });

  test("opens sockets, and knows addresses by the proxy's header", async () => {
    const path = join(folder, "two");
    await using server = serverAt(path);
    await server.event("listening");
    const minted = await ask(path, "/api/auth/ws-ticket", {
      method: "POST",
      headers: { Authorization: `Bearer ${await peopleOf(ORIGIN).token("alice")}` },
    });
    const { ticket } = (await minted.json()) as { ticket: string };
    const answered = Promise.withResolvers<string>();
    const socket = await Bun.connect({
      unix: path,
      socket: { data: (_, bytes) => answered.resolve(bytes.toString()) },
    });
    const headers = { Origin: ORIGIN, "X-Forwarded-For": "203.0.113.9, 192.0.2.7" };
    socket.write(handshake(`/ws/chat?ticket=${ticket}`, headers, { host: "chat.example" }));
    expect(await answered.promise).toStartWith("HTTP/1.1 101");
    expect(await server.event("socket_opened")).toMatchObject({ peer: "192.0.2.7" });
    socket.end();
  });

  test("takes the place of a process that was killed, and of none that lives", async () => {
    const path = join(folder, "three");
    await using first = serverAt(path);
    await first.event("listening");
    await using second = serverAt(path);
    expect(await second.exited).toBe(1);
    expect(second.events.at(-1)).toMatchObject({
      ...{ event: "listen_failed", variable: "UNIX_SOCKET", code: "EADDRINUSE" },
    });
    expect((await ask(path, "/healthz")).status).toBe(200);
    first.kill("SIGKILL");
    await first.exited;
    await using third = serverAt(path);
    await third.event("listening");
    expect((await ask(path, "/healthz")).status).toBe(200);
  });

  test("leaves a file alone that is no socket", async () => {
    const path = join(folder, "precious");
    await Bun.write(path, "precious");
    await using server = serverAt(path);
    expect(await server.exited).toBe(1);
    expect(server.events.at(-1)).toMatchObject({ variable: "UNIX_SOCKET" });
    expect(await Bun.file(path).text()).toBe("precious");
  });

  test("stands in place of HOST and PORT, is a path, and needs a trusted proxy", () => {
    const good = { ...SETTINGS, ...PROXIED, UNIX_SOCKET: "/run/ws-ticket/http.sock" };
    expect(readConfig(good)).toMatchObject({
      ...{ ok: true, config: { unixSocket: "/run/ws-ticket/http.sock" } },
    });
    const faultsOf = (environment: Record<string, string>) => {
      const read = readConfig({ ...good, ...environment });
      return read.ok ? [] : read.faults.map(({ variable }) => variable);
    };
    expect(faultsOf({ HOST: "127.0.0.1", PORT: "0" })).toEqual(["HOST", "PORT"]);
    expect(faultsOf({ TRUST_PROXY: "0" })).toEqual(["TRUST_PROXY"]);
    expect(faultsOf({ TRUST_PROXY: "" })).toEqual(["TRUST_PROXY"]);
    for (const UNIX_SOCKET of ["http.sock", `/${"x".repeat(107)}`]) {
      expect(faultsOf({ UNIX_SOCKET })).toEqual(["UNIX_SOCKET"]);
    }
  });
});
