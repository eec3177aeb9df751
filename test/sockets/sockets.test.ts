import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import { roomOf } from "../../src/sockets/serve.ts";
import { BEAT_MS, type Socket, type SocketHandlers } from "../../src/sockets/socket.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { VISITOR_MAX_AGE_SECONDS } from "../../src/gate/visitor.ts";
import { type FakeClock, underClock } from "../support/clock.ts";
import { frame, OPCODE, openRawSocket, type RawSocket } from "../support/frame.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { watchStore } from "../support/store.ts";
import { startTunnel } from "../support/tunnel.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const DAY_MS = 86_400_000;

/** Handlers that send back what they get, and keep every open socket. */
function echo(): SocketHandlers & { readonly sockets: Set<Socket> } {
  const sockets = new Set<Socket>();
  return {
    sockets,
    open: (socket) => void sockets.add(socket),
    message: (socket, _, text) => void socket.send(JSON.stringify({ echo: text })),
    close: (socket) => void sockets.delete(socket),
  };
}

/** Resolves when everything that the server has sent so far has arrived. */
async function settled(socket: TestSocket): Promise<void> {
  const mark = crypto.randomUUID();
  socket.send(mark);
  await socket.next(({ echo: text }) => text === mark);
}

/** Resolves when the server has read everything written so far, on whichever connection. */
async function arrived(server: TestServer): Promise<void> {
  await server.ask("/healthz");
}

async function openRawUser(server: TestServer, user = "alice"): Promise<RawSocket> {
  return openRawSocket(server.origin, `/ws/chat?ticket=${await server.ticket(user)}`);
}

function countOf(socket: RawSocket, opcode: number): number {
  return socket.frames.filter((one) => one.opcode === opcode).length;
}

/** Events of this name in the log, with their codes. */
function logged(server: TestServer, name: string): { code?: number }[] {
  return server.logLines.map((line) => JSON.parse(line)).filter(({ event }) => event === name);
}

describe("a socket's credential", () => {
  /** Opens a user's socket whose token lives so long. */
  async function openFor(server: TestServer, ttlMs: number): Promise<TestSocket> {
    const answer = await server.mint(await server.token("alice", { ttlMs }));
    const { ticket } = (await answer.json()) as { ticket: string };
    const socket = openSocket(`${server.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`);
    await socket.opened;
    return socket;
  }

  test.each<[string, { lifeMs: number; noticeAfterMs: number; inSeconds: number }]>([
    ["an hour", { lifeMs: 3_600_000, noticeAfterMs: 3_570_000, inSeconds: 30 }],
    ["61 s", { lifeMs: 61_000, noticeAfterMs: 31_000, inSeconds: 30 }],
    ["60 s", { lifeMs: 60_000, noticeAfterMs: 30_000, inSeconds: 30 }],
    ["40 s", { lifeMs: 40_000, noticeAfterMs: 20_000, inSeconds: 20 }],
    ["20 s", { lifeMs: 20_000, noticeAfterMs: 10_000, inSeconds: 10 }],
    ["2 s", { lifeMs: 2_000, noticeAfterMs: 1_000, inSeconds: 1 }],
  ])("of %s: one notice before its end, and 4001 on time", async (_, life) => {
    const handlers: SocketHandlers = {
      ...echo(),
      expiring: (socket, __, inSeconds) => void socket.send(JSON.stringify({ inSeconds })),
    };
    await using server = startServer({ handlers });
    const { clock } = server;
    const socket = await openFor(server, life.lifeMs);
    // Beats would end a peer that has no time to answer in a leap of an hour.
    await leap(clock, socket, life.noticeAfterMs - SECOND_MS);
    expect(socket.frames.filter((one) => "inSeconds" in one)).toEqual([]);
    clock.advance(SECOND_MS);
    await settled(socket);
    expect(socket.frames.filter((one) => "inSeconds" in one)).toEqual([
      { inSeconds: life.inSeconds },
    ]);
    await leap(clock, socket, life.lifeMs - life.noticeAfterMs - SECOND_MS);
    expect(socket.frames.filter((one) => "inSeconds" in one)).toHaveLength(1);
    clock.advance(SECOND_MS);
    const { code, reason } = await socket.closed;
    expect([code, reason]).toEqual([4001, "Credential expired"]);
    expect(server.server.socketCount).toBe(0);
  });

  /** Lets time pass in steps between which a socket that lives can answer. */
  async function leap(clock: FakeClock, socket: TestSocket, ms: number): Promise<void> {
    for (let leftMs = ms; leftMs > 0; leftMs -= BEAT_MS) {
      await settled(socket);
      clock.advance(Math.min(leftMs, BEAT_MS));
    }
    await settled(socket);
  }

  test("about to end makes the chat send EXPIRING", async () => {
    await using server = startServer();
    const socket = await openFor(server, 20_000);
    server.clock.advance(10_000);
    expect(await socket.next()).toEqual({ type: "EXPIRING", inSeconds: 10 });
  });

  test("that ends leaves a later one of the same user open", async () => {
    await using server = startServer({ handlers: echo() });
    const first = await openFor(server, 20_000);
    await using second = await openFor(server, 3_600_000);
    server.clock.advance(20_000);
    expect((await first.closed).code).toBe(4001);
    await settled(second);
  });

  test("of a visitor is the cookie: it ends 30 days after it was issued", async () => {
    const handlers = echo();
    await using server = startServer({ handlers });
    const { clock } = server;
    const cookie = await server.visitorCookie();
    clock.advance(VISITOR_MAX_AGE_SECONDS * SECOND_MS - 5 * MINUTE_MS);
    await using socket = await server.openVisitor(cookie);
    await leap(clock, socket, 5 * MINUTE_MS - SECOND_MS);
    clock.advance(SECOND_MS);
    expect((await socket.closed).code).toBe(4001);
    expect(clock.nowMs() % DAY_MS).toBe(0);
  });

  test("ends by the wall clock: one that jumps ahead ends it, one that jumps back doesn't", async () => {
    await using server = startServer({ handlers: echo() });
    const socket = await openFor(server, 3_600_000);
    server.clock.jumpWall(-10 * DAY_MS);
    server.clock.advance(SECOND_MS);
    await settled(socket);
    server.clock.jumpWall(10 * DAY_MS + 3_600_000);
    server.clock.advance(SECOND_MS);
    expect((await socket.closed).code).toBe(4001);
  });
});

describe("a heartbeat", () => {
  /** Lets a beat pass and waits for its ping. */
  async function beat(clock: FakeClock, socket: RawSocket): Promise<void> {
    const before = countOf(socket, OPCODE.ping);
    clock.advance(BEAT_MS);
    await socket.until(() => countOf(socket, OPCODE.ping) > before);
  }

  test("goes out every 25 s, not earlier", async () => {
    await using server = startServer({ handlers: echo() });
    using socket = await openRawUser(server);
    server.clock.advance(BEAT_MS - SECOND_MS);
    await socket.flushed();
    expect(countOf(socket, OPCODE.ping)).toBe(0);
    server.clock.advance(SECOND_MS);
    await socket.flushed();
    expect(countOf(socket, OPCODE.ping)).toBe(1);
  });

  test("left unanswered twice ends the socket with 4002 when the third is due", async () => {
    await using server = startServer({ handlers: echo() });
    using socket = await openRawUser(server);
    await beat(server.clock, socket);
    await beat(server.clock, socket);
    server.clock.advance(BEAT_MS - SECOND_MS);
    await arrived(server);
    expect(server.server.socketCount).toBe(1);
    server.clock.advance(SECOND_MS);
    expect(await socket.closeCode).toBe(4002);
    expect(countOf(socket, OPCODE.ping)).toBe(2);
    expect(server.server.socketCount).toBe(0);
  });

  test("is awaited from each peer that has yet to answer, and from none that has ended", async () => {
    await using server = startServer({ handlers: echo() });
    const room = roomOf(server.server);
    using socket = await openRawUser(server);
    expect(room.awaitsPongs).toBe(false);
    await beat(server.clock, socket);
    expect(room.awaitsPongs).toBe(true);
    socket.write(frame(OPCODE.pong));
    await arrived(server);
    expect(room.awaitsPongs).toBe(false);
    await beat(server.clock, socket);
    await server.gate.revoke({ user: "alice" });
    expect(room.awaitsPongs).toBe(false);
  });

  test.each<[string, Uint8Array]>([
    ["a pong", frame(OPCODE.pong)],
    ["an unsolicited pong with a payload", frame(OPCODE.pong, "anything")],
    ["a message", frame(OPCODE.text, "hello")],
    ["a ping", frame(OPCODE.ping, "hello")],
  ])("is kept up by %s alone", async (_, sign) => {
    await using server = startServer({ handlers: echo() });
    using socket = await openRawUser(server);
    for (let round = 0; round < 6; round++) {
      await beat(server.clock, socket);
      await beat(server.clock, socket);
      socket.write(sign);
      await arrived(server);
    }
    expect(server.server.socketCount).toBe(1);
  });

  test("isn't kept up by what the server sends, nor by a message that stays unfinished", async () => {
    const handlers = echo();
    await using server = startServer({ handlers });
    using socket = await openRawUser(server);
    const message = frame(OPCODE.text, "x".repeat(4_000));
    for (let second = 0; second < (3 * BEAT_MS) / SECOND_MS; second++) {
      expect(server.server.socketCount).toBe(1);
      for (const one of handlers.sockets) one.send("still sending");
      socket.write(message.subarray(second, second + 1));
      await socket.until((frames) => frames.length > second);
      server.clock.advance(SECOND_MS);
    }
    expect(await socket.closeCode).toBe(4002);
  });

  test("finds a peer whose connection went dark while both sides were sending", async () => {
    const handlers = echo();
    await using server = startServer({ handlers });
    await using tunnel = await startTunnel(server.port);
    const socket = openSocket(
      `ws://127.0.0.1:${tunnel.port}/ws/chat?ticket=${await server.ticket()}`,
    );
    await socket.opened;
    // While it is there it answers, and stays.
    for (let round = 0; round < 4; round++) {
      server.clock.advance(BEAT_MS);
      await settled(socket);
    }
    tunnel.stopForwarding();
    let seconds = 0;
    for (; server.server.socketCount > 0 && seconds < 200; seconds++) {
      for (const one of handlers.sockets) one.send("still there?");
      socket.send("I am");
      server.clock.advance(SECOND_MS);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(seconds).toBeLessThanOrEqual((3 * BEAT_MS) / SECOND_MS);
    expect(seconds).toBeGreaterThan((2 * BEAT_MS) / SECOND_MS);
    expect(logged(server, "socket_closed").map(({ code }) => code)).toEqual([4002]);
  });

  test("lets the handlers send one of their own; without a handler only the ping goes out", async () => {
    const beats: string[] = [];
    const heartbeat = (socket: Socket, { id }: { id: string }) => {
      beats.push(id);
      socket.send("beat");
    };
    await using server = startServer({ handlers: { ...echo(), heartbeat } });
    await using other = startServer({ handlers: echo(), clock: server.clock });
    using socket = await openRawUser(server);
    using quiet = await openRawUser(other);
    for (const one of [socket, quiet]) await beat(server.clock, one);
    for (const one of [socket, quiet]) await one.flushed();
    expect(countOf(socket, OPCODE.text)).toBe(beats.length);
    expect([beats[0], countOf(quiet, OPCODE.text)]).toEqual(["alice", 0]);
  });

  test("of the chat is a frame that scripts in a page can see", async () => {
    await using server = startServer();
    await using user = await server.openUser("alice");
    await using visitor = await server.openVisitor(await server.visitorCookie());
    server.clock.advance(BEAT_MS);
    for (const socket of [user, visitor])
      expect(await socket.next()).toEqual({ type: "HEARTBEAT" });
  });

  test("runs on the monotonic clock: jumps of the wall clock change nothing", async () => {
    await using server = startServer({ handlers: echo() });
    using socket = await openRawSocket(server.origin, "/ws/chat", {
      Origin: server.origin,
      Cookie: await server.visitorCookie(),
    });
    server.clock.jumpWall(20 * DAY_MS);
    server.clock.advance(SECOND_MS);
    server.clock.jumpWall(-40 * DAY_MS);
    server.clock.advance(SECOND_MS);
    await socket.flushed();
    expect(countOf(socket, OPCODE.ping)).toBe(0);
    server.clock.advance(BEAT_MS);
    await socket.flushed();
    expect(countOf(socket, OPCODE.ping)).toBe(1);
  });
});

describe("a slow reader", () => {
  const CHUNK = "x".repeat(64 * 1024);

  /** Sends to the only socket until this much waits for it, and returns how many chunks that took. */
  function fill(handlers: ReturnType<typeof echo>, bytes: number): number {
    const [socket] = handlers.sockets;
    let sent = 0;
    for (; socket && socket.getBufferedAmount() < bytes && sent < 1_000; sent++) socket.send(CHUNK);
    return sent;
  }

  test("is closed with 4003 at 1 MB of backlog, and gets all of it before", async () => {
    const handlers = echo();
    await using server = startServer({ handlers });
    using socket = await openRawUser(server);
    socket.stopReading();
    const sent = fill(handlers, 1024 * 1024 + 1);
    expect(server.server.socketCount).toBe(1);
    server.clock.advance(SECOND_MS);
    expect(server.server.socketCount).toBe(0);
    socket.readOn();
    expect(await socket.closeCode).toBe(4003);
    expect(countOf(socket, OPCODE.text)).toBe(sent);
  });

  test("with less backlog stays open", async () => {
    const handlers = echo();
    await using server = startServer({ handlers });
    using socket = await openRawUser(server);
    socket.stopReading();
    const sent = fill(handlers, 512 * 1024);
    for (let second = 0; second < 5; second++) server.clock.advance(SECOND_MS);
    expect(server.server.socketCount).toBe(1);
    socket.readOn();
    await socket.until((frames) => frames.length === sent);
  });

  test.each<[string, (socket: Socket, publish: (text: string) => void) => void]>([
    ["sent to it alone", (socket) => void socket.send(CHUNK)],
    ["published", (_, publish) => publish(CHUNK)],
  ])(
    "is cut off at 4 MB of what is %s, before the next check, and never skips a message",
    async (_, send) => {
      const handlers = echo();
      let publish: (topic: string, text: string) => void = () => {};
      await using server = startServer({
        handlers: {
          ...handlers,
          start(to) {
            publish = to;
          },
          open(socket) {
            handlers.sockets.add(socket);
            socket.subscribe("all");
          },
        },
      });
      using deaf = await openRawUser(server);
      deaf.stopReading();
      await using other = await server.openUser("bob");
      const slow = [...handlers.sockets][0] as Socket;
      let most = 0;
      let sent = 0;
      for (; sent < 2_000 && handlers.sockets.has(slow); sent++) {
        send(slow, (text) => publish("all", JSON.stringify({ text })));
        most = Math.max(most, slow.getBufferedAmount());
        if (sent % 8 === 0) await settled(other);
      }
      expect(sent).toBeLessThan(2_000);
      expect(most).toBeLessThan(6 * 1024 * 1024);
      await settled(other);
      expect(server.server.socketCount).toBe(1);
    },
  );
});

describe("a share of the server", () => {
  test("is a number of sockets per identity: the next gets 4502, the others stay", async () => {
    const calls: string[] = [];
    const handlers: SocketHandlers = {
      ...echo(),
      open: (_, { id }) => void calls.push(`open ${id}`),
      close: (_, { id }) => void calls.push(`close ${id}`),
    };
    await using server = startServer({ handlers, limits: { maxPerIdentity: 2 } });
    const first = await server.openUser("alice");
    await using second = await server.openUser("alice");
    const third = await server.openUser("alice");
    expect((await third.closed).code).toBe(4502);
    // A visitor, and another user.
    await using visitor = await server.openVisitor();
    await using other = await server.openUser("bob");
    for (const socket of [first, second, visitor, other]) await settled(socket);
    expect(calls.filter((line) => line.endsWith("alice"))).toEqual(["open alice", "open alice"]);
    first.socket.close();
    await first.closed;
    while (server.server.socketCount > 3) await new Promise((resolve) => setImmediate(resolve));
    await using again = await server.openUser("alice");
    await settled(again);
  });

  test("has room for the next socket of one that had its notice, and no more", async () => {
    await using server = startServer({ handlers: echo(), limits: { maxPerIdentity: 2 } });
    const open = async (ttlMs: number) => {
      const answer = await server.mint(await server.token("alice", { ttlMs }));
      const { ticket } = (await answer.json()) as { ticket: string };
      const url = `${server.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`;
      const socket = openSocket(url);
      await socket.opened;
      return socket;
    };
    const ending = [await open(60_000), await open(60_000)];
    expect((await (await open(60_000)).closed).code).toBe(4502);
    server.clock.advance(30_000);
    const next = [await open(3_600_000), await open(3_600_000)];
    for (const socket of [...ending, ...next]) await settled(socket);
    expect((await (await open(3_600_000)).closed).code).toBe(4502);
    server.clock.advance(30_000);
    for (const { closed } of ending) expect((await closed).code).toBe(4001);
    for (const socket of next) await settled(socket);
    expect((await (await open(3_600_000)).closed).code).toBe(4502);
  });

  test("of a visitor is per cookie", async () => {
    await using server = startServer({ handlers: echo(), limits: { maxPerIdentity: 1 } });
    const cookie = await server.visitorCookie();
    await using first = await server.openVisitor(cookie);
    const second = await server.openVisitor(cookie);
    expect((await second.closed).code).toBe(4502);
    await settled(first);
  });

  test.each<[string, Uint8Array]>([
    ["with words", frame(OPCODE.text, "hello")],
    ["that are empty", frame(OPCODE.text, "")],
  ])(
    "is a number of messages a second, in one burst or spread out: one more, %s, gets 4501",
    async (_, message) => {
      await using server = startServer({
        handlers: echo(),
        limits: { messagesPerSecond: 5 },
      });
      using socket = await openRawUser(server);
      await using other = await server.openUser("bob");
      const burst = Buffer.concat(Array.from({ length: 5 }, () => message));
      for (let second = 0; second < 3; second++) {
        socket.write(burst);
        await socket.until(() => countOf(socket, OPCODE.text) === 5 * (second + 1));
        server.clock.advance(SECOND_MS);
      }
      socket.write(Buffer.concat([burst, message, message]));
      expect(await socket.closeCode).toBe(4501);
      expect(countOf(socket, OPCODE.text)).toBe(20);
      await settled(other);
    },
  );

  test.each([
    ["short", "x", 24, 5],
    ["long", "x".repeat(8_000), 5, 1],
  ])(
    "is twenty identities' worth of %s messages for an address: who sends more than a little more gets 4501",
    async (_, message, enough, few) => {
      await using server = startServer({
        handlers: { message: (socket, __, { length }) => void socket.send(`{"length":${length}}`) },
        limits: { messagesPerSecond: 10 },
        trustProxy: 1,
        ticketsPerMinute: 0,
      });
      let people = 0;
      const open = async (address: string) => {
        const url = `${server.origin.replace("http", "ws")}/ws/chat`;
        const ticket = await server.ticket(`user ${people++}`);
        const socket = openSocket(`${url}?ticket=${ticket}`, { "X-Forwarded-For": address });
        await socket.opened;
        return socket;
      };
      /** Whether all of so many messages had a response. */
      const send = async (socket: TestSocket, count: number) => {
        for (let n = 0; n < count; n++) socket.send(message);
        const { length } = socket.frames;
        const all = (async () => {
          for (let n = length; n < count; n++) await socket.next();
          return true;
        })();
        return Promise.race([all.catch(() => false), socket.closed.then(() => false)]);
      };
      const [modest, elsewhere] = [await open("192.0.2.1"), await open("192.0.2.2")];
      const fates: boolean[] = [];
      for (let n = 0; n < enough; n++) fates.push(await send(await open("192.0.2.1"), 9));
      expect([fates[0], fates.at(-1)]).toEqual([true, false]);
      expect(await Promise.all([send(modest, few), send(elsewhere, 9)])).toEqual([true, true]);
      const last = await open("192.0.2.1");
      expect(await send(last, 7)).toBe(false);
      expect((await last.closed).code).toBe(4501);
      server.clock.advance(SECOND_MS);
      expect(await send(await open("192.0.2.1"), 5)).toBe(true);
    },
  );

  test("is as much for those at one address who send evenly: three fifths of theirs at once, and then a quarter", async () => {
    await using server = startServer({
      handlers: echo(),
      limits: { messagesPerSecond: 10 },
      ...{ trustProxy: 1, ticketsPerMinute: 0 },
    });
    const url = `${server.origin.replace("http", "ws")}/ws/chat`;
    const sockets: TestSocket[] = [];
    const codes: number[] = [];
    // Three hundred a second in place of two hundred; and one who sends two.
    for (let n = 0; n < 31; n++) {
      const ticket = await server.ticket(`user ${n}`);
      const socket = openSocket(`${url}?ticket=${ticket}`, { "X-Forwarded-For": "192.0.2.1" });
      await socket.opened;
      sockets.push(socket);
      void socket.closed.then(({ code }) => codes.push(code));
    }
    const modest = sockets[0] as TestSocket;
    for (let step = 0; step < 30; step++) {
      const open = sockets.filter(({ socket }) => socket.readyState === WebSocket.OPEN);
      const sending = open.filter((socket) => socket !== modest || step % 5 === 0);
      await Promise.all(
        sending.map((socket) => Promise.race([settled(socket).catch(() => {}), socket.closed])),
      );
      server.clock.advance(100);
    }
    expect(codes.length).toBeGreaterThan(5);
    expect(codes.length).toBeLessThan(16);
    expect(new Set(codes)).toEqual(new Set([4501]));
    await settled(modest);
  });

  test("is 1,024 messages that wait for a slow one: one more gets 4501", async () => {
    const gate = Promise.withResolvers<void>();
    let handled = 0;
    await using server = startServer({
      handlers: {
        async message() {
          handled++;
          await gate.promise;
        },
      },
      limits: { messagesPerSecond: 0 },
    });
    using socket = await openRawUser(server);
    const hello = frame(OPCODE.text, "hello");
    socket.write(Buffer.concat(Array.from({ length: 1_024 }, () => hello)));
    await socket.flushed();
    expect(server.server.socketCount).toBe(1);
    socket.write(hello);
    expect(await socket.closeCode).toBe(4501);
    gate.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    expect(handled).toBe(1);
  });

  test.each([128, 16_384, 70_000])(
    "is a number of bytes a message: %d pass, one more gets 1009",
    async (maxMessageBytes) => {
      await using server = startServer({ handlers: echo(), limits: { maxMessageBytes } });
      await using socket = await server.openUser();
      socket.socket.send("é".repeat(maxMessageBytes / 2));
      await socket.next();
      using raw = await openRawUser(server);
      raw.write(frame(OPCODE.text, "x".repeat(maxMessageBytes)));
      await raw.until((frames) => frames.length === 1);
      raw.write(frame(OPCODE.text, "x".repeat(maxMessageBytes + 1)));
      expect(await raw.closeCode).toBe(1009);
      await settled(socket);
    },
  );

  test("is text: a binary message gets 1003", async () => {
    await using server = startServer({ handlers: echo() });
    const socket = await server.openUser();
    socket.socket.send(new Uint8Array([1, 2, 3]));
    expect((await socket.closed).code).toBe(1003);
  });

  test("of all sockets is bounded: further ones get 429, a ticket isn't spent, and there is room again after a close", async () => {
    await using server = startServer({ handlers: echo(), limits: { maxSockets: 2 } });
    await using first = await server.openUser();
    const second = await server.openVisitor();
    const ticket = await server.ticket("bob");
    const knock = () => sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`));
    for (let attempt = 0; attempt < 3; attempt++) {
      const { status, headers } = await knock();
      expect(status).toBe(429);
      expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
    }
    await settled(first);
    second.socket.close();
    await second.closed;
    while (server.server.socketCount > 1) await new Promise((resolve) => setImmediate(resolve));
    expect((await knock()).status).toBe(101);
  });

  test("of handshakes in progress is bounded, and free again when they are done", async () => {
    const store = watchStore(memoryTicketStore());
    await using server = startServer({ store, handlers: echo() });
    const held = store.hold();
    const strange = handshake(`/ws/chat?ticket=${"A".repeat(43)}`);
    const waiting = Array.from({ length: 1_000 }, () => sendRaw(server.port, strange));
    while (store.takes.length < 1_000) await new Promise((resolve) => setImmediate(resolve));
    const ticket = await server.ticket();
    const knock = () => sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`));
    expect((await knock()).status).toBe(429);
    expect(store.takes).toHaveLength(1_000);
    held.release();
    const statuses = (await Promise.all(waiting)).map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([401]));
    expect((await knock()).status).toBe(101);
  });

  test.each([
    ["sockets", { maxSockets: 5 }],
    ["sockets whose tickets are still being taken", { maxSockets: 5, hold: true }],
  ] as const)(
    "holds when more arrive at once than there is room for: %s",
    async (_, { maxSockets, ...rest }) => {
      const store = watchStore(memoryTicketStore());
      await using server = startServer({ store, handlers: echo(), limits: { maxSockets } });
      const tickets = await Promise.all(Array.from({ length: 20 }, () => server.ticket()));
      const held = "hold" in rest ? store.hold() : undefined;
      const knocks = tickets.map((ticket) =>
        sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`)),
      );
      await held?.asked;
      held?.release();
      const statuses = (await Promise.all(knocks)).map(({ status }) => status);
      expect(statuses.filter((status) => status === 101).length).toBeLessThanOrEqual(maxSockets);
      expect(statuses.filter((status) => status === 101).length).toBeGreaterThan(0);
      expect(statuses.filter((status) => status !== 101 && status !== 429)).toEqual([]);
    },
  );
});

describe("handlers", () => {
  test("get the messages of a socket one after the other, however long each takes", async () => {
    const gates = new Map(["1", "2", "3"].map((text) => [text, Promise.withResolvers<void>()]));
    const events: string[] = [];
    await using server = startServer({
      handlers: {
        async message(_, { id }, text) {
          events.push(`${id} begins ${text}`);
          if (id === "alice") await gates.get(text)?.promise;
          events.push(`${id} ends ${text}`);
        },
      },
    });
    using slow = await openRawUser(server, "alice");
    using quick = await openRawUser(server, "bob");
    for (const text of gates.keys()) slow.write(frame(OPCODE.text, text));
    await slow.flushed();
    quick.write(frame(OPCODE.text, "1"));
    await quick.flushed();
    expect(events).toEqual(["alice begins 1", "bob begins 1", "bob ends 1"]);
    // One that comes while another is in progress waits, whatever was done before.
    gates.get("1")?.resolve();
    await slow.flushed();
    gates.get("2")?.resolve();
    await slow.flushed();
    gates.set("4", Promise.withResolvers());
    slow.write(frame(OPCODE.text, "4"));
    await slow.flushed();
    // The last one is free before its turn.
    for (const text of ["4", "3"]) gates.get(text)?.resolve();
    await slow.flushed();
    expect(events.filter((event) => event.startsWith("alice"))).toEqual(
      ["1", "2", "3", "4"].flatMap((text) => [`alice begins ${text}`, `alice ends ${text}`]),
    );
  });

  test("get any number of messages of a socket that take a while, where few wait at once", async () => {
    let handled = 0;
    await using server = startServer({
      handlers: {
        async message() {
          await Promise.resolve();
          handled++;
        },
      },
      limits: { messagesPerSecond: 0 },
    });
    using socket = await openRawUser(server, "alice");
    for (let sent = 0; sent < 1_200; sent += 100) {
      socket.write(Buffer.concat(Array.from({ length: 100 }, () => frame(OPCODE.text, "x"))));
      await socket.flushed();
    }
    expect(handled).toBe(1_200);
    expect(server.server.socketCount).toBe(1);
  });

  test("may return anything where nothing is expected", async () => {
    const handlers = {
      open: (socket: Socket) => socket.send(JSON.stringify({ hello: true })),
      message: (socket: Socket, _: unknown, text: string) =>
        socket.send(JSON.stringify({ echo: text })),
      expiring: (socket: Socket) => socket.send(JSON.stringify({ expiring: true })),
      close: () => 1,
    } as unknown as SocketHandlers;
    await using server = startServer({ handlers });
    const socket = await server.openUser();
    expect(await socket.next()).toEqual({ hello: true });
    await settled(socket);
    expect(server.server.socketCount).toBe(1);
    expect(logged(server, "socket_failed")).toEqual([]);
  });

  test("that throw in expiring cost that socket alone", async () => {
    await using server = startServer({
      handlers: {
        ...echo(),
        expiring(_, { id }) {
          if (id === "alice") throw new Error("canary");
        },
      },
    });
    const [first, second] = [await server.openUser("alice"), await server.openUser("bob")];
    for (let elapsedMs = 0; elapsedMs < 3_570_000; elapsedMs += BEAT_MS) {
      server.clock.advance(BEAT_MS);
      if (first.socket.readyState === WebSocket.OPEN) first.send("here");
      await settled(second);
    }
    expect((await first.closed).code).toBe(1011);
    expect(server.server.socketCount).toBe(1);
  });

  test("get each message and the close exactly once when a socket leaves while messages wait", async () => {
    const gate = Promise.withResolvers<void>();
    const events: string[] = [];
    await using server = startServer({
      handlers: {
        open: () => void events.push("open"),
        async message(_, __, text) {
          await gate.promise;
          events.push(text);
        },
        close: () => void events.push("close"),
      },
    });
    const socket = await server.openUser();
    socket.send("1");
    socket.send("2");
    socket.socket.close();
    await socket.closed;
    while (server.server.socketCount > 0) await new Promise((resolve) => setImmediate(resolve));
    gate.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    // What was sent before the goodbye counts.
    expect(events).toEqual(["open", "close", "1", "2"]);
  });
});

describe("a stop", () => {
  test.each<[string, () => Promise<void>, string]>([
    ["never settles", () => new Promise(() => {}), "DeadlineError"],
    ["rejects", () => Promise.reject(new TypeError("canary")), "TypeError"],
  ])("rejects in time when the handlers' stop %s", async (_, stop, name) => {
    const server = startServer({ handlers: { ...echo(), stop } });
    const { clock } = server;
    const socket = await server.openUser();
    const startedAtMs = clock.monotonicMs();
    const stopped = server.server.stop({ withinMs: 100 }).catch((reason) => reason);
    expect(await underClock(clock, stopped)).toMatchObject({ name });
    expect(clock.monotonicMs() - startedAtMs).toBeLessThan(2_500);
    expect((await socket.closed).code).toBe(1012);
    expect(server.server.socketCount).toBe(0);
  });
});

describe("what a socket leaves behind", () => {
  test("is nothing: after 1,000 of them no socket, no timer and no memory of one", async () => {
    await using server = startServer({ limits: { maxPerIdentity: 0 } });
    const timers = server.clock.timers;
    const sets = heapStats().objectTypeCounts.Set ?? 0;
    for (let round = 0; round < 20; round++) {
      const sockets = await Promise.all(
        Array.from({ length: 50 }, async (_, at) => {
          const ticket = await server.ticket(`user ${round}-${at}`);
          const socket = openSocket(
            `${server.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`,
          );
          await socket.opened;
          socket.send({ type: "?" });
          await socket.next();
          return socket;
        }),
      );
      // One that checks all of them.
      expect(server.clock.timers).toBe(timers + 1);
      expect(server.server.socketCount).toBe(50);
      for (const { socket } of sockets) socket.close();
      await Promise.all(sockets.map(({ closed }) => closed));
      while (server.server.socketCount > 0) await new Promise((resolve) => setImmediate(resolve));
    }
    Bun.gc(true);
    await new Promise((resolve) => setImmediate(resolve));
    Bun.gc(true);
    const { ServerWebSocket = 0, Set = 0 } = heapStats().objectTypeCounts;
    expect(Set - sets).toBeLessThan(100);
    expect(ServerWebSocket).toBeLessThan(20);
    server.clock.advance(SECOND_MS);
    expect(server.clock.timers).toBe(timers);
  });
});
