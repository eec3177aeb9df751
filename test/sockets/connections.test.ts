import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { connect } from "node:net";
import { openRaw, type RawConnection } from "../support/raw.ts";
import { freePort } from "../support/redis.ts";
import { peopleOf } from "../support/people.ts";
import { startProcess } from "../support/process.ts";

/** Files that the server may have open. */
const FILES = 128;
const MANY = 200;

/** A server with few files, in a process of its own. */
async function start({ HOST = "127.0.0.1" } = {}) {
  const within = ["sh", "-c", `ulimit -n ${FILES} && exec "$@"`, "sh"];
  const server = startProcess({ HOST }, { within, command: ["../test/support/slow.ts"] });
  const { origin, port } = await server.listening;
  const connections: RawConnection[] = [];
  const waiting = new Set<() => void>();
  let ended = 0;
  const open = async (text: string) => {
    const connection = await openRaw(Number(port));
    connections.push(connection);
    void connection.closed.then(() => {
      ended++;
      for (const look of waiting) look();
    });
    connection.write(text);
    return connection;
  };
  return {
    origin,
    server,
    open,
    openMany: (count: number, textOf: (n: number) => string) =>
      Promise.all(Array.from({ length: count }, (_, n) => open(textOf(n)))),
    filesOpen: async () => (await readdir(`/proc/${server.pid}/fd`)).length,
    /** Resolves once so many of the connections have ended. */
    until: (count: number) =>
      new Promise<void>((resolve) => {
        const look = () => void (ended >= count && resolve());
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

function head(path: string, address: string, method = "GET"): string {
  return `${method} ${path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ${address}\r\n`;
}

const whole = (path: string, address: string) => `${head(path, address)}\r\n`;
const isAnswered = (text: string) => text.includes("200 OK");
/** An address for each number. */
const addressOf = (n: number) => `198.51.100.${n}`;

describe("while files are short", () => {
  test.each<[string, string]>([
    ["no request", ""],
    ["a part of a request", head("/", addressOf(1))],
    ["no body", `${head("/", addressOf(1), "POST")}Content-Length: 100\r\n\r\n{`],
    [
      "a body to be continued",
      `${head("/", addressOf(1), "POST")}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n1\r\nx\r\n`,
    ],
  ])("connections with %s end, and others get in", async (_, text) => {
    await using hoard = await start();
    const { origin, server } = hoard;
    await using socket = await peopleOf(origin).openUser();
    await hoard.openMany(MANY, () => text);
    const line = await server.event("files_exhausted");
    expect(line).toMatchObject({ level: "error", note: expect.stringContaining("ulimit -n") });
    // As many as there are beyond what may be open.
    await hoard.until(MANY - FILES);
    for (let n = 0; n < 20; n++) expect((await fetch(`${origin}/`)).status).toBe(200);
    // Again and again.
    await hoard.openMany(MANY, () => text);
    await hoard.until(2 * MANY - FILES);
    for (let n = 0; n < 20; n++) expect((await fetch(`${origin}/`)).status).toBe(200);
    socket.send("here");
    expect(await socket.next()).toEqual({ echo: "here" });
    // A minute passes before the next one.
    expect(server.events.filter(({ event }) => event === "files_exhausted")).toHaveLength(1);
    expect(server.stderr).toBe("");
  });

  test("connections end before there are none left", async () => {
    await using hoard = await start();
    const few = Math.ceil(FILES * 0.95) - (await hoard.filesOpen());
    await hoard.openMany(few, () => head("/", addressOf(1)));
    await hoard.until(few);
  });

  test("connections to other servers don't end", async () => {
    const other = Promise.withResolvers<Bun.Socket<undefined>>();
    let hasEnded = false;
    using listener = Bun.listen({
      ...{ hostname: "127.0.0.1", port: 0 },
      socket: {
        open: (socket) => other.resolve(socket),
        data() {},
        close: () => void (hasEnded = true),
      },
    });
    await using hoard = await start();
    await fetch(`${hoard.origin}/connect?${listener.port}`);
    const { readyState } = await other.promise;
    await hoard.openMany(MANY, () => head("/", addressOf(1)));
    await hoard.until(MANY - FILES);
    expect([readyState > 0, hasEnded]).toEqual([true, false]);
  });

  test.each([
    ["IPv4", "127.0.0.1", "127.0.0.1"],
    ["both families, to one of IPv4", "::", "127.0.0.1"],
    ["both families, to one of IPv6", "::", "::1"],
  ])(
    "with %s, a request in progress isn't ended, but for those of an address that has many",
    async (_, HOST, host) => {
      await using hoard = await start({ HOST });
      const { port } = new URL(hoard.origin);
      const other = connect({ host, port: Number(port) });
      const mineToo = new Promise<string>((resolve) => {
        other.on("data", (chunk) => resolve(`${chunk}`)).on("close", () => resolve("none"));
      });
      other.write(whole("/slow", addressOf(4)));
      const mine = await hoard.open(whole("/slow", addressOf(1)));
      // Its first ones are none too many.
      const first = await hoard.openMany(5, () => whole("/slow", addressOf(2)));
      await hoard.openMany(MANY, () => whole("/slow", addressOf(2)));
      await hoard.until(MANY - FILES);
      const get = (path: string) => fetch(`${hoard.origin}${path}`).then(({ status }) => status);
      for (let n = 0; n < 20; n++) expect(await get("/")).toBe(200);
      expect(await get("/go")).toBe(200);
      for (const one of [mine, ...first]) {
        await one.until(isAnswered);
        expect(one.text).toStartWith("HTTP/1.1 200 OK\r\n");
      }
      expect(await mineToo).toStartWith("HTTP/1.1 200 OK\r\n");
      other.destroy();
    },
  );

  test("connections from the same ports of others don't end with those of an address that has too many", async () => {
    await using hoard = await start();
    const firstPort = await freePort();
    const { port } = new URL(hoard.origin);
    const open = (localAddress: string, localPort: number, text: string) => {
      const socket = connect({ host: "127.0.0.1", port: Number(port), localAddress, localPort });
      const ended = new Promise<string>((resolve) => {
        let all = "";
        socket.on("data", (chunk) => {
          all += chunk;
          if (isAnswered(all)) resolve(all);
        });
        socket.on("close", () => resolve(all));
        socket.on("error", () => {});
      });
      socket.write(text);
      return { socket, ended };
    };
    const honest = [0, 1, 2].map((n) => {
      return open("127.0.0.2", firstPort + n, whole("/slow", addressOf(n)));
    });
    // The same ports are among those beyond its share.
    const greedy = Array.from({ length: FILES }, (_, n) => {
      return open(
        "127.0.0.1",
        firstPort + ((n + FILES - 20) % FILES),
        whole("/slow", addressOf(9)),
      );
    });
    let left = 0;
    await new Promise<void>((resolve) => {
      for (const { ended } of greedy) void ended.then(() => ++left === FILES / 4 && resolve());
    });
    await fetch(`${hoard.origin}/go`);
    for (const { ended } of honest) expect(await ended).toStartWith("HTTP/1.1 200 OK\r\n");
    for (const { socket } of [...honest, ...greedy]) socket.destroy();
  });

  test("connections end that don't read their response", async () => {
    await using hoard = await start();
    const { hostname, port } = new URL(hoard.origin);
    const before = await hoard.filesOpen();
    const readers = await Promise.all(
      Array.from({ length: 3 }, () =>
        Bun.connect({
          ...{ hostname, port: Number(port) },
          socket: {
            open: (socket) => void socket.write(whole("/long", addressOf(1))),
            data: (socket) => void socket.pause(),
          },
        }),
      ),
    );
    const few = Math.ceil(FILES * 0.95) - before - readers.length;
    const slow = await hoard.openMany(few, (n) => whole("/slow", addressOf(n)));
    // All of them are there, before one of the readers ends.
    const all = before + readers.length + few;
    while ((await hoard.filesOpen()) < all);
    while ((await hoard.filesOpen()) >= all);
    await fetch(`${hoard.origin}/go`);
    for (const one of slow) await one.until(isAnswered);
    expect(slow.filter(({ text }) => !text.startsWith("HTTP/1.1 200 OK"))).toEqual([]);
    for (const reader of readers) reader.terminate();
  });

  test("connections that wait for a next request end when nothing else does", async () => {
    await using hoard = await start();
    const idle = await hoard.openMany(FILES / 2, (n) => whole("/", addressOf(n)));
    await Promise.all(idle.map((one) => one.until(isAnswered)));
    const slow = await hoard.openMany(FILES / 2, (n) => whole("/slow", addressOf(n)));
    await hoard.until(idle.length);
    await fetch(`${hoard.origin}/go`);
    for (const one of slow) await one.until(isAnswered);
    expect(slow.filter(({ text }) => !text.startsWith("HTTP/1.1 200 OK"))).toEqual([]);
  });
});

test("while files are scarce, a connection ends after its response", async () => {
  await using hoard = await start();
  const request = whole("/", addressOf(1));
  const few = Math.ceil(FILES * 0.85) - (await hoard.filesOpen());
  const idle = await hoard.openMany(few, () => request);
  await Promise.all(idle.map((one) => one.until(isAnswered)));
  const isLast = ({ text }: RawConnection) => /^connection: close\r$/im.test(text);
  const [first, ...others] = idle.filter((one) => !isLast(one)) as [RawConnection];
  for (let responses = 2; !isLast(first); responses++) {
    first.write(request);
    await first.until((text) => text.split("200 OK").length > responses);
  }
  await first.closed;
  // They had their responses before.
  expect(others.length).toBeGreaterThan(FILES / 4);
  expect(others.filter(isLast)).toEqual([]);
});

test("while as many responses to an address wait as may, further ones end their connections", async () => {
  await using hoard = await start();
  const refuse = async () => {
    const headers = { "X-Forwarded-For": addressOf(1) };
    const { status, headers: got } = await fetch(`${hoard.origin}/api/auth/ws-ticket`, {
      ...{ method: "POST", headers },
    });
    return `${status} ${got.get("connection")}`;
  };
  const refuseSome = () => Promise.all(Array.from({ length: 20 }, refuse));
  for (let n = 0; n < 10; n++) expect(new Set(await refuseSome())).toEqual(new Set(["401 null"]));
  // Some of the first two hundred have been made up for meanwhile.
  let ending = 0;
  for (let n = 0; n < 10; n++) {
    ending += (await refuseSome()).filter((one) => one === "401 close").length;
  }
  expect(ending).toBeGreaterThan(10);
});

test("while there are enough files, a request may take its time", async () => {
  await using hoard = await start();
  const slow = await hoard.open("GET / HTTP/1.1\r\n");
  for (let n = 0; n < MANY; n++) expect((await fetch(`${hoard.origin}/`)).status).toBe(200);
  slow.write("Host: x\r\n\r\n");
  await slow.until(isAnswered);
  expect(slow.text).toStartWith("HTTP/1.1 200 OK\r\n");
});
