import { describe, expect, test } from "bun:test";
import type { SocketHandlers } from "../../src/sockets/socket.ts";
import { closing, frame, OPCODE, openRawSocket, type RawSocket } from "../support/frame.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { TestSocket } from "../support/socket.ts";

const LIMIT = 1_000;

/** Sends back what comes, and notes every message and close. */
function start(): TestServer & { readonly events: string[] } {
  const events: string[] = [];
  const handlers: SocketHandlers = {
    message(socket, { id }, text) {
      events.push(`${id} ${text}`);
      socket.send(JSON.stringify({ echo: text }));
    },
    close: (_, { id }) => void events.push(`${id} closed`),
  };
  const limits = { maxMessageBytes: LIMIT, messagesPerSecond: 0, maxPerIdentity: 0 };
  return Object.assign(startServer({ handlers, limits }), { events });
}

async function openRaw(server: TestServer, user = "mallory"): Promise<RawSocket> {
  return openRawSocket(server.origin, `/ws/chat?ticket=${await server.ticket(user)}`);
}

async function expectAlive(socket: TestSocket): Promise<void> {
  const mark = crypto.randomUUID();
  socket.send(mark);
  await socket.next(({ echo }) => echo === mark);
}

/** What was echoed so far. */
function echoes({ frames }: RawSocket): string[] {
  return frames
    .filter(({ opcode }) => opcode === OPCODE.text)
    .map(({ payload }) => JSON.parse(payload.toString()).echo);
}

async function tick(until: () => boolean): Promise<void> {
  while (!until()) await new Promise((resolve) => setImmediate(resolve));
}

const half = (text: string) => frame(OPCODE.text, text, { fin: false });
const rest = (text: string, fin = true) => frame(OPCODE.continuation, text, { fin });

describe("bytes that no client may send end that socket alone", () => {
  test.each<[string, number, Uint8Array[]]>([
    ["an unmasked frame", 1002, [frame(OPCODE.text, "hello", { masked: false })]],
    [
      "the first reserved bit, no compression being agreed",
      1002,
      [frame(OPCODE.text, "hello", { rsv: 4 })],
    ],
    ["the second reserved bit", 1002, [frame(OPCODE.text, "hello", { rsv: 2 })]],
    ["the third reserved bit", 1002, [frame(OPCODE.text, "hello", { rsv: 1 })]],
    ["a reserved bit in a ping", 1002, [frame(OPCODE.ping, "", { rsv: 4 })]],
    ...[3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map((opcode): [string, number, Uint8Array[]] => [
      `the unknown kind ${opcode}`,
      1002,
      [frame(opcode, "x")],
    ]),
    ["a continuation of nothing", 1002, [rest("hello")]],
    ["a continuation after a whole message", 1002, [frame(OPCODE.text, "hello"), rest("more")]],
    ["a new message inside one in pieces", 1002, [half("hel"), frame(OPCODE.text, "hello")]],
    ["a binary message inside a text in pieces", 1002, [half("hel"), frame(OPCODE.binary, "lo")]],
    ["a ping in pieces", 1002, [frame(OPCODE.ping, "hel", { fin: false })]],
    ["a Close in pieces", 1002, [frame(OPCODE.close, closing(1000), { fin: false })]],
    ["a ping of 126 bytes", 1002, [frame(OPCODE.ping, "x".repeat(126))]],
    ["a pong of 126 bytes", 1002, [frame(OPCODE.pong, "x".repeat(126))]],
    ["a Close of 126 bytes", 1002, [frame(OPCODE.close, closing(1000, "x".repeat(124)))]],
    ["a message one byte too long", 1009, [frame(OPCODE.text, "x".repeat(LIMIT + 1))]],
    ["a binary message one byte too long", 1009, [frame(OPCODE.binary, "x".repeat(LIMIT + 1))]],
    ["a header that claims 1 TB", 1009, [frame(OPCODE.text, "x", { length: 2n ** 40n })]],
    [
      "a header that claims a negative length",
      1009,
      [frame(OPCODE.text, "x", { length: 2n ** 63n })],
    ],
    ["a header that claims 2^64 - 1", 1009, [frame(OPCODE.text, "x", { length: 2n ** 64n - 1n })]],
    ["pieces that are too long together", 1009, [half("x".repeat(600)), rest("x".repeat(401))]],
    [
      "a thousand pieces of one byte, and one more",
      1009,
      [half("x"), ...Array.from({ length: LIMIT }, () => rest("x", false))],
    ],
    ["bytes that are no UTF-8", 1007, [frame(OPCODE.text, new Uint8Array([0xff, 0xfe]))]],
    ["an overlong encoding", 1007, [frame(OPCODE.text, new Uint8Array([0xc0, 0xaf]))]],
    ["an encoded surrogate", 1007, [frame(OPCODE.text, new Uint8Array([0xed, 0xa0, 0x80]))]],
    ["a character cut off at the end", 1007, [frame(OPCODE.text, new Uint8Array([0xe6, 0xbc]))]],
    ["a binary message", 1003, [frame(OPCODE.binary, "hello")]],
    ["an empty binary message", 1003, [frame(OPCODE.binary)]],
    ["a binary message in pieces", 1003, [frame(OPCODE.binary, "he", { fin: false }), rest("llo")]],
    ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535].map(
      (code): [string, number, Uint8Array[]] => [
        `a Close with the code ${code}`,
        1002,
        [frame(OPCODE.close, closing(code))],
      ],
    ),
    ["a Close of one byte", 1002, [frame(OPCODE.close, new Uint8Array([3]))]],
    [
      "a Close whose reason is no UTF-8",
      1007,
      [frame(OPCODE.close, closing(1000, new Uint8Array([0xff])))],
    ],
  ])("%s: %d", async (_, code, frames) => {
    await using server = start();
    await using other = await server.openUser("bob");
    using socket = await openRaw(server);
    socket.write(Buffer.concat(frames));
    expect(await socket.closeCode).toBe(code);
    await tick(() => server.server.socketCount === 1);
    expect(server.events.filter((event) => event === "mallory closed")).toHaveLength(1);
    await expectAlive(other);
  });
});

describe("frames that are unusual and allowed", () => {
  test.each<[string, Uint8Array[], string[]]>([
    [
      "a message of exactly the longest length",
      [frame(OPCODE.text, "x".repeat(LIMIT))],
      ["x".repeat(LIMIT)],
    ],
    [
      "pieces of exactly that length together",
      [half("x".repeat(600)), rest("x".repeat(400))],
      ["x".repeat(LIMIT)],
    ],
    ["an empty message", [frame(OPCODE.text)], [""]],
    ["empty pieces", [half(""), rest("", false), rest("hello", false), rest("")], ["hello"]],
    ["a ping between two pieces", [half("hel"), frame(OPCODE.ping, "?"), rest("lo")], ["hello"]],
    [
      "a character that two pieces share",
      [
        frame(OPCODE.text, new Uint8Array([0xe6, 0xbc]), { fin: false }),
        frame(OPCODE.continuation, new Uint8Array([0xa2])),
      ],
      ["漢"],
    ],
    [
      "a length in two bytes where one would do",
      [frame(OPCODE.text, "hello", { lengthBytes: 2 })],
      ["hello"],
    ],
    [
      "a length in eight bytes where one would do",
      [frame(OPCODE.text, "hello", { lengthBytes: 8 })],
      ["hello"],
    ],
    ["a ping of 125 bytes", [frame(OPCODE.ping, "x".repeat(125))], []],
    ["an unsolicited pong", [frame(OPCODE.pong, "hello")], []],
    [
      "many messages in one packet",
      ["a", "b", "c"].map((text) => frame(OPCODE.text, text)),
      ["a", "b", "c"],
    ],
  ])("%s", async (_, frames, wanted) => {
    await using server = start();
    using socket = await openRaw(server);
    socket.write(Buffer.concat(frames));
    await socket.flushed();
    await tick(() => echoes(socket).length >= wanted.length);
    expect(echoes(socket)).toEqual(wanted);
    expect(server.server.socketCount).toBe(1);
  });

  test("a message that comes byte by byte", async () => {
    await using server = start();
    using socket = await openRaw(server);
    for (const byte of frame(OPCODE.text, "hello")) {
      socket.write(new Uint8Array([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await socket.until(() => echoes(socket).length === 1);
    expect(echoes(socket)).toEqual(["hello"]);
  });

  test("compression isn't agreed to, however it is offered", async () => {
    await using server = start();
    for (const offer of [
      "permessage-deflate",
      "permessage-deflate; client_max_window_bits",
      "x-webkit-deflate-frame",
    ]) {
      using socket = await openRawSocket(
        server.origin,
        `/ws/chat?ticket=${await server.ticket()}`,
        {
          "Sec-WebSocket-Extensions": offer,
        },
      );
      // What would be a compressed "Hello", were it agreed.
      const compressed = new Uint8Array([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
      socket.write(frame(OPCODE.text, compressed, { rsv: 4 }));
      expect(await socket.closeCode).toBe(1002);
    }
    expect(server.events.filter((event) => !event.endsWith("closed"))).toEqual([]);
  });
});

describe("an end", () => {
  test.each([1000, 1001, 1003, 1007, 1011, 3000, 4001, 4500, 4999])(
    "with the code %d is answered, and the server sees it",
    async (code) => {
      await using server = start();
      using socket = await openRaw(server);
      socket.write(frame(OPCODE.close, closing(code, "bye")));
      expect(await socket.closeCode).toBe(code);
      await tick(() => server.server.socketCount === 0);
      const closed = server.logLines
        .map((line) => JSON.parse(line))
        .find(({ event }) => event === "socket_closed");
      expect(closed.code).toBe(code);
    },
  );

  test("without a code is one, too", async () => {
    await using server = start();
    using socket = await openRaw(server);
    socket.write(frame(OPCODE.close));
    await socket.until((frames) => frames.some(({ opcode }) => opcode === OPCODE.close));
    await tick(() => server.server.socketCount === 0);
  });

  test("makes what comes after it nothing", async () => {
    await using server = start();
    using socket = await openRaw(server);
    socket.write(
      Buffer.concat([
        frame(OPCODE.close, closing(1000)),
        frame(OPCODE.text, "too late"),
        frame(OPCODE.close, closing(1000)),
      ]),
    );
    expect(await socket.closeCode).toBe(1000);
    await tick(() => server.server.socketCount === 0);
    expect(server.events).toEqual(["mallory closed"]);
  });

  test.each<[string, (socket: RawSocket) => void]>([
    ["a reset", (socket) => socket.reset()],
    ["half a goodbye: the client's side of the connection closed", (socket) => socket.finish()],
    [
      "half a message and a reset",
      (socket) => {
        socket.write(frame(OPCODE.text, "hello").subarray(0, 4));
        socket.reset();
      },
    ],
  ])("by %s leaves nothing behind", async (_, leave) => {
    await using server = start();
    await using other = await server.openUser("bob");
    using socket = await openRaw(server);
    leave(socket);
    await tick(() => server.server.socketCount === 1);
    expect(server.events).toEqual(["mallory closed"]);
    const codes = server.logLines
      .map((line) => JSON.parse(line))
      .filter(({ event }) => event === "socket_closed");
    expect(codes.map(({ code }) => code)).toEqual([1006]);
    await expectAlive(other);
  });

  test("while answers are on their way: writing to who has gone throws nothing", async () => {
    const gate = Promise.withResolvers<void>();
    const outcomes: unknown[] = [];
    await using server = startServer({
      handlers: {
        async message(socket) {
          await gate.promise;
          outcomes.push(socket.send("too late"), socket.close(), socket.terminate());
        },
      },
    });
    using socket = await openRaw(server);
    socket.write(frame(OPCODE.text, "hello"));
    await socket.flushed();
    socket.reset();
    await tick(() => server.server.socketCount === 0);
    gate.resolve();
    await tick(() => outcomes.length === 3);
    expect(outcomes).toEqual([0, undefined, undefined]);
    expect(server.logLines.join("")).not.toContain("socket_failed");
  });
});

describe("many of them", () => {
  test("200 half-finished messages are held in bounded memory, and end with the heartbeat", async () => {
    await using server = startServer({
      handlers: { message() {} },
      limits: { maxMessageBytes: 65_536, maxPerIdentity: 0 },
    });
    const sockets = await Promise.all(Array.from({ length: 200 }, () => openRaw(server)));
    Bun.gc(true);
    const before = process.memoryUsage.rss();
    const unfinished = frame(OPCODE.text, "x".repeat(65_535)).subarray(0, -1);
    for (const socket of sockets) socket.write(unfinished);
    for (const socket of sockets) await socket.until(() => true);
    for (let beat = 0; beat < 2; beat++) {
      server.clock.advance(25_000);
      for (const socket of sockets) {
        await socket.until(
          (frames) => frames.filter(({ opcode }) => opcode === OPCODE.ping).length > beat,
        );
      }
    }
    // 200 times 64 KB at both ends, and what else the two leave lying about.
    expect(process.memoryUsage.rss() - before).toBeLessThan(120 * 1024 * 1024);
    expect(server.server.socketCount).toBe(200);
    server.clock.advance(25_000);
    const codes = await Promise.all(sockets.map(({ closeCode }) => closeCode));
    expect(new Set(codes)).toEqual(new Set([4002]));
    expect(server.server.socketCount).toBe(0);
  });

  test("a flood of pings and pongs doesn't disturb other sockets", async () => {
    await using server = start();
    using socket = await openRaw(server);
    await using other = await server.openUser("bob");
    const flood = Buffer.concat(
      Array.from({ length: 5_000 }, (_, at) => frame(at % 2 ? OPCODE.ping : OPCODE.pong)),
    );
    socket.write(flood.subarray(0, 30_000));
    await expectAlive(other);
    expect(server.server.socketCount).toBe(2);
  });
});
