import { describe, expect, test } from "bun:test";
import { createGate, type Gate } from "../../src/gate/gate.ts";
import type { GateOptions } from "../../src/gate/gate-options.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import { createLog } from "../../src/lib/log.ts";
import { openRedis } from "../../src/open.ts";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import type { SocketLimits } from "../../src/sockets/limits.ts";
import { serve } from "../../src/sockets/serve.ts";
import {
  BEAT_MS,
  type Socket,
  type SocketData,
  type SocketHandlers,
} from "../../src/sockets/socket.ts";
import { createSockets, type StopOptions } from "../../src/sockets/sockets.ts";
import { fakeClock, type FakeClock, settle, underClock } from "../support/clock.ts";
import { frame, OPCODE, openRawSocket, type RawSocket } from "../support/frame.ts";
import { codeOf } from "../support/gate.ts";
import {
  type People,
  peopleOf,
  SESSION_SECRET,
  TOKEN_SECRET,
  visitorIdOf,
} from "../support/people.ts";
import { handshake, type RawAnswer, sendRaw } from "../support/raw.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { watchStore, type WatchedStore } from "../support/store.ts";

const SECOND_MS = 1_000;

/** Sockets that listen somewhere. */
interface Running {
  readonly url: URL;
  readonly size: number;
  stop(options?: StopOptions): Promise<void>;
  /** Stops the server, too, where it isn't the library's. */
  close(): Promise<void>;
}

/** One way to put sockets on a gate. */
interface Form {
  readonly path: string;
  listen<Claims>(
    gate: Gate<Claims>,
    handlers: SocketHandlers<Claims>,
    limits?: Partial<SocketLimits>,
  ): Running;
}

/** The server that comes with the library. */
const served: Form = {
  path: "/live",
  listen(gate, handlers, limits) {
    const fetch = () => new Response("own route");
    const server = serve(gate, handlers, { path: "/live", limits, fetch });
    return {
      url: server.url,
      get size() {
        return server.socketCount;
      },
      stop: server.stop,
      close: () => server.stop(),
    };
  },
};

/** A server of one's own, with the sockets on one of its paths. */
const embedded: Form = {
  path: "/rooms/live",
  listen<Claims>(
    gate: Gate<Claims>,
    handlers: SocketHandlers<Claims>,
    limits?: Partial<SocketLimits>,
  ): Running {
    const sockets = createSockets(gate, handlers, limits);
    const server = Bun.serve<SocketData<Claims>>({
      hostname: "127.0.0.1",
      port: 0,
      development: false,
      fetch(request, self) {
        const { pathname } = new URL(request.url);
        if (pathname === "/rooms/live") return sockets.upgrade(request, self);
        const socketAddress = self.requestIP(request)?.address;
        if (pathname.startsWith("/api/auth/")) return gate.fetch(request, { socketAddress });
        return new Response("own route");
      },
      websocket: sockets.websocket,
    });
    return {
      url: server.url,
      get size() {
        return sockets.size;
      },
      stop: sockets.stop,
      async close() {
        await sockets.stop();
        await server.stop(true);
      },
    };
  },
};

const FORMS: readonly [name: string, form: Form][] = [
  ["serve", served],
  ["createSockets in a Bun.serve", embedded],
];

/** A gate and its sockets, with people to open them. */
interface Room<Claims = unknown> extends People, AsyncDisposable {
  readonly gate: Gate<Claims>;
  readonly store: WatchedStore;
  readonly clock: FakeClock;
  readonly origin: string;
  readonly port: number;
  readonly path: string;
  readonly running: Running;
  readonly logLines: readonly string[];
  open(ticket: string, search?: string): Promise<TestSocket>;
  openRaw(user?: string): Promise<RawSocket>;
  /** One handshake on a connection of its own. */
  knock(target: string, headers?: Record<string, string>): Promise<RawAnswer>;
}

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

function startRoom<Claims = unknown>(
  form: Form,
  options: Partial<Omit<GateOptions<Claims>, "clock">> & {
    clock?: FakeClock;
    handlers?: SocketHandlers<Claims>;
    limits?: Partial<SocketLimits>;
  } = {},
): Room<Claims> {
  const { clock = fakeClock(), handlers = echo() as SocketHandlers<Claims>, limits } = options;
  const logLines: string[] = [];
  const store = watchStore(options.store ?? memoryTicketStore({ clock }));
  const gate = createGate<Claims>({
    users: { secret: TOKEN_SECRET },
    visitors: { secret: SESSION_SECRET },
    ticketsPerMinute: 0,
    log: createLog({ level: "debug", clock, write: (line) => void logLines.push(line) }),
    ...options,
    store,
    clock,
  });
  const running = form.listen(gate, handlers, limits);
  const { path } = form;
  const { origin } = running.url;
  const port = Number(running.url.port);
  const people = peopleOf(origin, { nowMs: clock.nowMs });
  const socketUrl = `${origin.replace("http", "ws")}${path}`;
  async function opened(socket: TestSocket): Promise<TestSocket> {
    await socket.opened;
    return socket;
  }
  const room: Room<Claims> = {
    ...people,
    ...{ gate, store, clock, origin, port, path, running, logLines },
    open: (ticket, search = "") => opened(openSocket(`${socketUrl}?ticket=${ticket}${search}`)),
    openUser: async (user) => room.open(await people.ticket(user)),
    openVisitor: async (cookie) =>
      opened(
        openSocket(socketUrl, { Origin: origin, Cookie: cookie ?? (await people.visitorCookie()) }),
      ),
    openRaw: async (user) => openRawSocket(origin, `${path}?ticket=${await people.ticket(user)}`),
    knock: (target, headers) =>
      sendRaw(port, handshake(target, headers, { host: `127.0.0.1:${port}` })),
    async [Symbol.asyncDispose]() {
      await underClock(clock, running.close());
      await gate.close();
    },
  };
  return room;
}

/** Resolves when everything that the server has sent so far has arrived. */
async function settled(socket: TestSocket): Promise<void> {
  const mark = crypto.randomUUID();
  socket.send(mark);
  await socket.next(({ echo: text }) => text === mark);
}

function countOf(socket: RawSocket, opcode: number): number {
  return socket.frames.filter((one) => one.opcode === opcode).length;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

for (const [name, form] of FORMS) {
  describe(`${name}: who gets in`, () => {
    test("a user with a ticket and a visitor with a cookie, known at socket.data and to every handler", async () => {
      const calls: string[] = [];
      await using room = startRoom(form, {
        handlers: {
          open: ({ data }, { kind, id }) =>
            void calls.push(`open ${kind} ${id} ${data.identity.id === id}`),
          message: (socket, { kind, id }, text) => {
            calls.push(`${text} ${kind} ${id} ${socket.data.identity.id === id}`);
            socket.send("{}");
          },
          close: ({ data }, { kind, id }) =>
            void calls.push(`close ${kind} ${id} ${data.identity.id === id}`),
        },
      });
      const cookie = await room.visitorCookie();
      const visitor = visitorIdOf(cookie);
      for (const open of [() => room.openUser("alice"), () => room.openVisitor(cookie)]) {
        const socket = await open();
        socket.send("message");
        await socket.next();
        socket.socket.close();
        await socket.closed;
        await until(() => room.running.size === 0);
      }
      expect(calls).toEqual([
        ...["open user alice true", "message user alice true", "close user alice true"],
        ...["open", "message", "close"].map((call) => `${call} visitor ${visitor} true`),
      ]);
    });

    test("a used ticket, an unknown one, and a page of another origin don't", async () => {
      await using room = startRoom(form);
      const ticket = await room.ticket();
      await using _socket = await room.open(ticket);
      const cookie = await room.visitorCookie();
      const host = { Origin: "https://other.example", Cookie: cookie };
      const answers = [
        await room.knock(`${form.path}?ticket=${ticket}`),
        await room.knock(`${form.path}?ticket=${"A".repeat(43)}`),
        await room.knock(form.path, host),
        await room.knock(form.path),
      ];
      expect(answers.map((answer) => [answer.status, codeOf(answer)])).toEqual([
        [401, "ticket_refused"],
        [401, "ticket_refused"],
        [403, "origin_refused"],
        [401, "session_refused"],
      ]);
      expect(room.running.size).toBe(1);
    });

    test("only at its path; every other one is the server's own", async () => {
      await using room = startRoom(form);
      const ticket = await room.ticket();
      for (const path of ["/ws/chat", "/", `${form.path}/`, `${form.path}/more`]) {
        const { status, body } = await room.knock(`${path}?ticket=${ticket}`);
        expect([path, status, body]).toEqual([path, 200, "own route"]);
      }
      expect((await room.ask("/anything")).text).toBe("own route");
      expect((await room.ask("/api/auth/anything")).body.code).toBe("not_found");
      expect((await room.ask(form.path)).status).toBe(426);
      await using _socket = await room.open(ticket);
    });

    test("the claims of the ticket are typed, at socket.data and in handlers", async () => {
      interface Place {
        readonly room: string;
        readonly roles: readonly string[];
      }
      const handlers: SocketHandlers<Place> = {
        open(socket, { claims }) {
          const place: Place | undefined = socket.data.identity.claims;
          const roles: readonly string[] | undefined = claims?.roles;
          socket.send(JSON.stringify({ place, roles }));
        },
        message() {},
      };
      await using room = startRoom<Place>(form, { handlers });
      const claims = { room: "kitchen", roles: ["cook"] };
      const expiresAtMs = room.clock.nowMs() + 60_000;
      const issued = await room.gate.issue({ user: "alice", expiresAtMs, claims });
      await using socket = await room.open(issued.ok ? issued.ticket : "");
      expect(await socket.next()).toEqual({ place: claims, roles: claims.roles });
      await using plain = await room.openUser("bob");
      expect(await plain.next()).toEqual({});
    });

    test("the parameters of the URL are at socket.data.parameters, without the ticket", async () => {
      await using room = startRoom(form, {
        handlers: {
          open: ({ data }) => void seen.push([...data.parameters]),
          message: (socket) => void socket.send(JSON.stringify([...socket.data.parameters])),
        },
      });
      const seen: [string, string][][] = [];
      await using socket = await room.open(await room.ticket(), "&room=a%20b&room=%26&after=5&x");
      const wanted = [
        ["room", "a b"],
        ["room", "&"],
        ["after", "5"],
        ["x", ""],
      ];
      socket.send("any");
      expect(await socket.next()).toEqual(wanted);
      expect(seen).toEqual([wanted as [string, string][]]);
      await using none = await room.openUser();
      none.send("any");
      expect(await none.next()).toEqual([]);
      const query = `?ticket=${"A".repeat(43)}`;
      await using odd = await room.open(await room.ticket(), `&q=${query}`);
      odd.send("any");
      expect(await odd.next()).toEqual([["q", query]]);
    });

    test.each(["token", "access_token", "JWT", "Ticket", "%74oken", "api-key", "session", "auth"])(
      "a parameter named %s is refused, and the ticket beside it isn't spent",
      async (parameter) => {
        await using room = startRoom(form);
        const ticket = await room.ticket();
        const answer = await room.knock(`${form.path}?${parameter}=x&ticket=${ticket}`);
        expect([answer.status, codeOf(answer)]).toEqual([400, "credential_in_url"]);
        expect(room.store.takes).toEqual([]);
        await using _socket = await room.open(ticket);
      },
    );

    test.each(["chat", "a, b", "bearer.eyJhbGciOiJIUzI1NiJ9.e30.x", "__proto__"])(
      "no subprotocol is agreed to: %s",
      async (offer) => {
        await using room = startRoom(form);
        const { status, text } = await room.knock(`${form.path}?ticket=${await room.ticket()}`, {
          "Sec-WebSocket-Protocol": offer,
        });
        expect(status).toBe(101);
        expect(text.toLowerCase()).not.toContain("protocol:");
        expect(text).not.toContain(offer);
      },
    );

    test("publish sends to every socket that has subscribed", async () => {
      let publish: (topic: string, text: string) => void = () => {};
      let starts = 0;
      await using room = startRoom(form, {
        handlers: {
          start(to) {
            starts++;
            publish = to;
          },
          open: (socket, { id }) => void (id !== "carol" && socket.subscribe("news")),
          message: (socket) => void socket.send('{"echo":true}'),
        },
      });
      expect(starts).toBe(1);
      publish("news", '{"too":"early"}');
      const [alice, bob, carol] = [
        await room.openUser("alice"),
        await room.openUser("bob"),
        await room.openUser("carol"),
      ];
      publish("news", '{"late":"enough"}');
      for (const socket of [alice, bob]) expect(await socket.next()).toEqual({ late: "enough" });
      carol.send("any");
      expect(await carol.next()).toEqual({ echo: true });
      expect(starts).toBe(1);
    });
  });

  describe(`${name}: when a socket ends`, () => {
    test("with 4500 when its session signs out; other sessions and people stay", async () => {
      await using room = startRoom(form);
      const open = async (user: string, sid: string) => {
        const token = await room.token(user, { claims: { sid } });
        const { ticket } = (await (await room.mint(token)).json()) as { ticket: string };
        return { token, socket: await room.open(ticket) };
      };
      const leaving = await open("alice", "phone");
      const second = await open("alice", "phone");
      const staying = [await open("alice", "laptop"), await open("bob", "phone")];
      const answer = await room.ask("/api/auth/sign-out", {
        method: "POST",
        headers: { Authorization: `Bearer ${leaving.token}` },
      });
      expect(answer.status).toBe(204);
      for (const { socket } of [leaving, second]) {
        expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
      }
      for (const { socket } of staying) await settled(socket);
      expect((await room.mint(leaving.token)).status).toBe(401);
    });

    test("with 4500 when its user is revoked, all sessions of it", async () => {
      await using room = startRoom(form);
      const unused = await room.ticket("alice");
      const sockets = [await room.openUser("alice"), await room.openUser("alice")];
      await using other = await room.openUser("bob");
      expect(await room.gate.revoke({ user: "alice" })).toEqual({ ok: true });
      for (const { closed } of sockets) expect((await closed).code).toBe(4500);
      await settled(other);
      expect((await room.knock(`${form.path}?ticket=${unused}`)).status).toBe(401);
    });

    test("with 4500 when its visitor is revoked", async () => {
      await using room = startRoom(form);
      const cookie = await room.visitorCookie();
      const socket = await room.openVisitor(cookie);
      await using other = await room.openVisitor();
      expect(await room.gate.revoke({ visitor: visitorIdOf(cookie) })).toEqual({ ok: true });
      expect((await socket.closed).code).toBe(4500);
      await settled(other);
      const again = await room.knock(form.path, { Origin: room.origin, Cookie: cookie });
      expect([again.status, codeOf(again)]).toEqual([401, "session_refused"]);
    });

    test("with 4001 when its token expires, after one notice to expiring", async () => {
      await using room = startRoom(form, {
        handlers: {
          ...echo(),
          expiring: (socket, { id }, inSeconds) =>
            void socket.send(JSON.stringify({ id, inSeconds })),
        },
      });
      const token = await room.token("alice", { ttlMs: 40_000 });
      const { ticket } = (await (await room.mint(token)).json()) as { ticket: string };
      const socket = await room.open(ticket);
      const notices = () => socket.frames.filter((one) => "inSeconds" in one);
      room.clock.advance(19_000);
      await settled(socket);
      expect(notices()).toEqual([]);
      room.clock.advance(SECOND_MS);
      await settled(socket);
      room.clock.advance(19_000);
      await settled(socket);
      expect(notices()).toEqual([{ id: "alice", inSeconds: 20 }]);
      room.clock.advance(SECOND_MS);
      expect(await socket.closed).toEqual({ code: 4001, reason: "Credential expired" });
      expect(notices()).toHaveLength(1);
    });

    test("with 4002 when it leaves two pings unanswered", async () => {
      await using room = startRoom(form);
      using socket = await room.openRaw();
      for (let beat = 1; beat <= 2; beat++) {
        room.clock.advance(BEAT_MS);
        await socket.until(() => countOf(socket, OPCODE.ping) === beat);
      }
      expect(room.running.size).toBe(1);
      room.clock.advance(BEAT_MS);
      expect(await socket.closeCode).toBe(4002);
    });

    test("with 4003 when it leaves more than 1 MB unread", async () => {
      const handlers = echo();
      await using room = startRoom(form, { handlers });
      using socket = await room.openRaw();
      socket.stopReading();
      const [slow] = [...handlers.sockets] as [Socket];
      const chunk = "x".repeat(64 * 1024);
      while (slow.getBufferedAmount() <= 1024 * 1024) slow.send(chunk);
      expect(room.running.size).toBe(1);
      room.clock.advance(SECOND_MS);
      expect(room.running.size).toBe(0);
      expect(room.logLines.join("")).toContain('"socket_ended","code":4003');
      socket.readOn();
      // Behind so much unsent data the Close frame may get lost in the runtime.
      expect([4003, undefined]).toContain(await socket.closeCode);
    });

    test("with 4501 when its identity sends too many messages, over all its sockets together", async () => {
      await using room = startRoom(form, { limits: { messagesPerSecond: 4 } });
      const [first, second] = [await room.openUser("alice"), await room.openUser("alice")];
      await using other = await room.openUser("bob");
      for (const socket of [first, second, first, second]) await settled(socket);
      for (let message = 0; message < 4; message++) await settled(other);
      first.send("one too many");
      expect((await first.closed).code).toBe(4501);
      // The other one has sent nothing that is too much, and has its share again.
      room.clock.advance(SECOND_MS);
      for (let message = 0; message < 4; message++) await settled(second);
      second.send("one too many");
      expect((await second.closed).code).toBe(4501);
    });

    test("with 4501 when it sends too many pings", async () => {
      await using room = startRoom(form, { limits: { messagesPerSecond: 4 } });
      using socket = await room.openRaw();
      for (let ping = 0; ping < 4; ping++) socket.write(frame(OPCODE.ping, "?"));
      await socket.until(() => countOf(socket, OPCODE.pong) === 4);
      expect(room.running.size).toBe(1);
      socket.write(frame(OPCODE.ping, "?"));
      expect(await socket.closeCode).toBe(4501);
    });

    test("with 4501 when it sends too many pongs that nothing asked for", async () => {
      await using room = startRoom(form, { limits: { messagesPerSecond: 4 } });
      using socket = await room.openRaw();
      room.clock.advance(BEAT_MS);
      await socket.until(() => countOf(socket, OPCODE.ping) === 1);
      // The first one was asked for, and a ping counts, too.
      for (let pong = 0; pong < 4; pong++) socket.write(frame(OPCODE.pong));
      await socket.flushed();
      expect(room.running.size).toBe(1);
      socket.write(frame(OPCODE.pong));
      expect(await socket.closeCode).toBe(4501);
    });

    test("with 4502 when its identity has too many, and never reaches the handlers", async () => {
      const handlers = echo();
      await using room = startRoom(form, { handlers, limits: { maxPerIdentity: 2 } });
      const first = await room.openUser("alice");
      await using second = await room.openUser("alice");
      await using other = await room.openUser("bob");
      expect((await (await room.openUser("alice")).closed).code).toBe(4502);
      expect(handlers.sockets.size).toBe(3);
      first.socket.close();
      await until(() => room.running.size === 2);
      await using third = await room.openUser("alice");
      for (const socket of [second, third, other]) await settled(socket);
    });

    test.each<[string, number, Uint8Array]>([
      ["a binary message", 1003, frame(OPCODE.binary, "hello")],
      ["a message that is too big", 1009, frame(OPCODE.text, "x".repeat(1_001))],
    ])("at %s: %d", async (_, code, bytes) => {
      await using room = startRoom(form, { limits: { maxMessageBytes: 1_000 } });
      await using other = await room.openUser("bob");
      using socket = await room.openRaw("alice");
      socket.write(frame(OPCODE.text, "x".repeat(1_000)));
      await socket.until(() => countOf(socket, OPCODE.text) === 1);
      socket.write(bytes);
      expect(await socket.closeCode).toBe(code);
      await settled(other);
    });

    const fault = new Error("canary-message");
    test.each<[string, SocketHandlers]>([
      [
        "throws in open",
        {
          ...echo(),
          open() {
            throw fault;
          },
        },
      ],
      ["rejects in open", { ...echo(), open: () => Promise.reject(fault) }],
      [
        "throws at a message",
        {
          message() {
            throw fault;
          },
        },
      ],
      ["rejects at a message", { message: () => Promise.reject(fault) }],
      [
        "rejects some time after a message",
        {
          async message() {
            await new Promise((resolve) => setImmediate(resolve));
            throw fault;
          },
        },
      ],
      ["rejects with nothing", { message: () => Promise.reject(undefined) }],
      [
        "throws what is no error",
        {
          message() {
            throw null;
          },
        },
      ],
    ])("with 1011 when a handler %s; the next socket is served", async (_, broken) => {
      let isBroken = true;
      const good = echo();
      const now = () => (isBroken ? broken : good);
      await using room = startRoom(form, {
        handlers: {
          open: (socket, identity) => now().open?.(socket, identity),
          message: (socket, identity, text) => now().message(socket, identity, text),
        },
      });
      const first = await room.openUser();
      first.send("anything");
      expect(await first.closed).toEqual({ code: 1011, reason: "Server error" });
      isBroken = false;
      await using next = await room.openUser();
      await settled(next);
      expect(room.running.size).toBe(1);
      const failures = room.logLines.filter((line) => line.includes('"socket_failed"'));
      expect(failures).toHaveLength(1);
      const { user: who, code } = JSON.parse(failures[0] as string);
      expect([who, code]).toEqual([
        expect.any(String),
        expect.stringMatching(/^(?:Error|unknown)$/),
      ]);
      const ended = room.logLines.find((line) => line.includes('"socket_ended"'));
      expect(JSON.parse(ended as string)).toMatchObject({ user: who, code: 1011 });
      const closed = room.logLines.find((line) => line.includes('"socket_closed"'));
      expect(JSON.parse(closed as string)).toMatchObject({ user: who, code: 1011 });
      expect(room.logLines.join("")).not.toContain("canary");
    });

    test("when a handler throws in close, the next socket is served", async () => {
      await using room = startRoom(form, {
        handlers: {
          ...echo(),
          close() {
            throw fault;
          },
        },
      });
      const first = await room.openUser();
      first.socket.close();
      await first.closed;
      await using next = await room.openUser();
      await settled(next);
    });

    test("after a failure, no further message of that socket is handled", async () => {
      const seen: string[] = [];
      await using room = startRoom(form, {
        handlers: {
          async message(_, __, text) {
            seen.push(text);
            await new Promise((resolve) => setImmediate(resolve));
            throw fault;
          },
        },
      });
      const socket = await room.openUser();
      for (const text of ["1", "2", "3"]) socket.send(text);
      expect((await socket.closed).code).toBe(1011);
      expect(seen).toEqual(["1"]);
    });
  });

  describe(`${name}: too many sockets per address`, () => {
    const from = (address: string) => ({ "X-Forwarded-For": address });

    test("means 429 before the ticket is spent; other addresses get in, and there is room after a close", async () => {
      await using room = startRoom(form, { trustProxy: 1, limits: { maxPerAddress: 2 } });
      const target = async () => `${form.path}?ticket=${await room.ticket()}`;
      const open = async (address: string) =>
        openRawSocket(room.origin, await target(), from(address));
      using first = await open("192.0.2.1");
      using second = await open("192.0.2.1");
      const next = await target();
      const refused = await room.knock(next, from("192.0.2.1"));
      expect([refused.status, codeOf(refused)]).toEqual([429, "too_many_requests"]);
      expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      using _other = await open("192.0.2.2");
      expect(room.running.size).toBe(3);
      first.reset();
      await until(() => room.running.size === 2);
      expect((await room.knock(next, from("192.0.2.1"))).status).toBe(101);
      second.reset();
      await until(() => room.running.size === 1);
      using _third = await open("192.0.2.1");
      using _fourth = await open("192.0.2.1");
    });

    test("means 429 for handshakes beyond it that arrive at once, whose tickets stay good", async () => {
      await using room = startRoom(form, { trustProxy: 1, limits: { maxPerAddress: 2 } });
      const tickets = await Promise.all(Array.from({ length: 10 }, () => room.ticket()));
      const held = room.store.hold();
      const knocks = tickets.map((ticket) =>
        room.knock(`${form.path}?ticket=${ticket}`, from("192.0.2.1")),
      );
      // Those that are refused are so before any ticket is taken.
      let refused = 0;
      for (const knock of knocks)
        void knock.then(({ status }) => (refused += Number(status === 429)));
      await until(() => refused === 8);
      expect(room.store.takes).toHaveLength(2);
      held.release();
      const statuses = (await Promise.all(knocks)).map(({ status }) => status);
      expect(statuses.filter((status) => status === 101)).toHaveLength(2);
      const unspent = tickets.filter((_, at) => statuses[at] === 429);
      for (const ticket of unspent) {
        const target = `${form.path}?ticket=${ticket}`;
        expect((await room.knock(target, from("192.0.2.2"))).status).toBe(101);
        await until(() => room.running.size === 0);
      }
    });

    test("counts a /64 of IPv6 as one address", async () => {
      await using room = startRoom(form, { trustProxy: 1, limits: { maxPerAddress: 1 } });
      const target = async () => `${form.path}?ticket=${await room.ticket()}`;
      using _socket = await openRawSocket(room.origin, await target(), from("2001:db8:1:2::3"));
      const statuses = [];
      for (const address of ["2001:db8:1:2:ffff::9", "2001:db8:1:3::3"]) {
        statuses.push((await room.knock(await target(), from(address))).status);
      }
      expect(statuses).toEqual([429, 101]);
    });

    test.each<[string, Partial<SocketLimits>, string]>([
      ["of loopback", { maxPerAddress: 1 }, "127.0.0.1"],
      ["with the limit off", { maxPerAddress: 0 }, "192.0.2.1"],
    ])("is no limit for addresses %s", async (_, limits, address) => {
      await using room = startRoom(form, { trustProxy: 1, limits });
      const sockets: RawSocket[] = [];
      for (let socket = 0; socket < 5; socket++) {
        const target = `${form.path}?ticket=${await room.ticket()}`;
        sockets.push(await openRawSocket(room.origin, target, from(address)));
      }
      expect(room.running.size).toBe(5);
      for (const socket of sockets) socket.reset();
    });

    test("is a quarter of all sockets by default", async () => {
      await using room = startRoom(form, { trustProxy: 1, limits: { maxSockets: 8 } });
      const target = async () => `${form.path}?ticket=${await room.ticket()}`;
      using _first = await openRawSocket(room.origin, await target(), from("192.0.2.1"));
      using _second = await openRawSocket(room.origin, await target(), from("192.0.2.1"));
      const refused = await room.knock(await target(), from("192.0.2.1"));
      expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    });
  });

  describe(`${name}: a stop`, () => {
    test("closes every socket with 1012, calls the handlers' stop once, and leaves the gate open", async () => {
      let stops = 0;
      const events: string[] = [];
      const room = startRoom(form, {
        handlers: {
          ...echo(),
          close: (_, { id }) => void events.push(`close ${id}`),
          async stop() {
            stops++;
            events.push("stop");
          },
        },
      });
      const sockets = [await room.openUser("alice"), await room.openUser("bob")];
      const { clock, running } = room;
      await underClock(clock, Promise.all([running.stop(), running.stop({ withinMs: 1 })]));
      for (const { closed } of sockets) {
        expect(await closed).toEqual({ code: 1012, reason: "Server restarts" });
      }
      await underClock(clock, running.stop());
      expect(stops).toBe(1);
      expect(events.toSorted()).toEqual(["close alice", "close bob", "stop"]);
      expect(events.at(-1)).toBe("stop");
      expect(running.size).toBe(0);
      const expiresAtMs = clock.nowMs() + 60_000;
      expect(await room.gate.issue({ user: "alice", expiresAtMs })).toMatchObject({ ok: true });
      await room[Symbol.asyncDispose]();
      expect(stops).toBe(1);
      expect([clock.timers, clock.delays]).toEqual([0, 0]);
    });

    test("spreads its goodbyes over the time given", async () => {
      await using room = startRoom(form);
      const sockets = await Promise.all(
        Array.from({ length: 10 }, (_, at) => room.openUser(`user ${at}`)),
      );
      let closed = 0;
      for (const socket of sockets) void socket.closed.then(() => closed++);
      const stopped = room.running.stop({ spreadMs: 1_000 });
      for (let step = 1; step < 10; step++) {
        await until(() => closed === step);
        expect(room.running.size).toBe(10 - step);
        room.clock.advance(100);
      }
      await until(() => closed === 10);
      await stopped;
    });

    test("doesn't wait for a peer that never answers the close", async () => {
      const room = startRoom(form);
      using silent = await room.openRaw();
      silent.stopReading();
      const startedAtMs = room.clock.monotonicMs();
      await underClock(room.clock, room.running.stop());
      expect(room.clock.monotonicMs() - startedAtMs).toBeLessThanOrEqual(2_000);
      expect(room.running.size).toBe(0);
      await room[Symbol.asyncDispose]();
    });

    test("opens no socket whose ticket is being taken: 503", async () => {
      await using room = startRoom(form);
      const held = room.store.hold();
      const opening = room.knock(`${form.path}?ticket=${await room.ticket()}`);
      await held.asked;
      const stopped = room.running.stop();
      held.release();
      const answer = await opening;
      expect([answer.status, codeOf(answer)]).toEqual([503, "shutting_down"]);
      await underClock(room.clock, stopped);
      expect(room.running.size).toBe(0);
    });

    test.each<[string, () => Promise<void>, string]>([
      ["never settles", () => new Promise(() => {}), "DeadlineError"],
      ["rejects", () => Promise.reject(new TypeError("canary")), "TypeError"],
    ])("rejects in time when the handlers' stop %s", async (_, stop, fault) => {
      const room = startRoom(form, { handlers: { ...echo(), stop } });
      const socket = await room.openUser();
      const startedAtMs = room.clock.monotonicMs();
      const stopped = room.running.stop({ withinMs: 100 }).catch((error) => error);
      expect(await underClock(room.clock, stopped)).toMatchObject({ name: fault });
      expect(room.clock.monotonicMs() - startedAtMs).toBeLessThan(2_500);
      expect((await socket.closed).code).toBe(1012);
      await room.running.close().catch(() => {});
      await room.gate.close();
    });
  });

  describeWith("redis-server")(`${name}: several gates on one Redis`, () => {
    test("end a socket with 4500 for a sign-out, a revoked user and a revoked visitor at another one", async () => {
      await using redis = await startRedis();
      const clock = fakeClock();
      const open = async () => (await openRedis(redis, { clock, log: () => {} })).store;
      await using here = startRoom(form, { clock, store: await open() });
      await using there = startRoom(form, { clock, store: await open() });
      const token = await here.token("alice", { claims: { sid: "phone" } });
      const { ticket } = (await (await there.mint(token)).json()) as { ticket: string };
      const alice = await here.open(ticket);
      const bob = await here.openUser("bob");
      const cookie = await there.visitorCookie();
      const visitor = await here.openVisitor(cookie);
      await using staying = await here.openUser("carol");

      const answer = await there.ask("/api/auth/sign-out", {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
      });
      expect(answer.status).toBe(204);
      expect((await alice.closed).code).toBe(4500);
      await there.gate.revoke({ user: "bob" });
      expect((await bob.closed).code).toBe(4500);
      await there.gate.revoke({ visitor: visitorIdOf(cookie) });
      expect((await visitor.closed).code).toBe(4500);
      await settled(staying);
    });
  });

  describe(`${name}: what can't be used`, () => {
    const start = (limits: Partial<SocketLimits>, handlers: unknown = echo()) => {
      const clock = fakeClock();
      const gate = createGate({ users: { secret: TOKEN_SECRET }, clock, log: () => {} });
      try {
        void form.listen(gate, handlers as SocketHandlers, limits).close();
        return undefined;
      } catch (error) {
        // What was started before the fault was found would go on.
        expect(clock.timers).toBe(0);
        return error as Error;
      }
    };

    test("a store that doesn't receive other processes' sign-outs throws an Error that says so", () => {
      const store = redisTicketStore(nativeRedisTransport({ url: "redis://127.0.0.1:1" }));
      const gate = createGate({ users: { secret: TOKEN_SECRET }, store });
      expect(() => form.listen(gate, echo())).toThrow(
        /doesn't receive the sign-outs of other processes.*openRedis/,
      );
    });

    test.each<[keyof SocketLimits, number, number]>([
      ["maxSockets", 1, 10_000_000],
      ["maxPerIdentity", 0, 10_000_000],
      ["maxPerAddress", 0, 10_000_000],
      ["messagesPerSecond", 0, 10_000_000],
      ["maxMessageBytes", 128, 16 * 1024 * 1024],
    ])("%s outside of %d to %d throws an error that names it", (limit, least, most) => {
      for (const value of [least - 1, most + 1, least + 0.5, Number.NaN, Infinity, -Infinity]) {
        const error = start({ [limit]: value });
        expect(error).toBeInstanceOf(RangeError);
        expect(error?.message).toContain(`limits.${limit}`);
      }
      for (const value of ["20", true, [], {}, 20n] as unknown as number[]) {
        const error = start({ [limit]: value });
        expect(error).toBeInstanceOf(TypeError);
        expect(error?.message).toContain(`limits.${limit}`);
      }
      for (const value of [least, most, undefined] as number[]) {
        expect(start({ [limit]: value })).toBeUndefined();
      }
    });

    test.each<[string, unknown]>([
      ["no handlers", null],
      ["handlers without message", { open() {} }],
      ["handlers whose message is no function", { message: "hello" }],
    ])("%s throw a TypeError", (_, handlers) => {
      expect(start({}, handlers)).toBeInstanceOf(TypeError);
      expect(start({}, handlers)?.message).toContain("message");
    });

    test.each<[string, unknown]>([
      ["nothing", undefined],
      ["null", null],
      ["an object that only looks like a gate", { fetch() {}, issue() {}, basePath: "/api/auth" }],
    ])("%s in place of a gate throws a TypeError", (_, gate) => {
      expect(() => form.listen(gate as Gate, echo())).toThrow(TypeError);
    });
  });
}

test("upgrade of createSockets returns the refusal, and nothing once the socket is open", async () => {
  await using gate = createGate({ users: { secret: TOKEN_SECRET } });
  await using sockets = createSockets(gate, echo());
  const returned: unknown[] = [];
  await using server = Bun.serve<SocketData>({
    ...{ hostname: "127.0.0.1", port: 0, websocket: sockets.websocket },
    async fetch(request, self) {
      const response = await sockets.upgrade(request, self);
      returned.push(response?.status);
      return response;
    },
  });
  const knock = (target: string) =>
    sendRaw(Number(server.port), handshake(target, {}, { host: server.url.host }));
  expect((await knock("/")).status).toBe(401);
  const issued = await gate.issue({ user: "alice", expiresAtMs: Date.now() + 60_000 });
  expect((await knock(`/?ticket=${issued.ok && issued.ticket}`)).status).toBe(101);
  expect(returned).toEqual([401, undefined]);
});

describe("a handshake that the runtime doesn't finish", () => {
  function fail(): never {
    throw new RangeError("canary");
  }

  test.each([
    ["throws", fail, [500, "internal_error"], { event: "request_failed", code: "RangeError" }],
    [
      "finds that the client has gone",
      () => false,
      [400, "handshake_invalid"],
      { event: "client_gone", user: "alice" },
    ],
  ])("because it %s is answered and logged", async (_, upgrade, answered, logged) => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    const log = createLog({ level: "info", clock: fakeClock(), write });
    await using gate = createGate({ users: { secret: TOKEN_SECRET }, log });
    await using sockets = createSockets(gate, echo());
    await using server = Bun.serve<SocketData>({
      ...{ hostname: "127.0.0.1", port: 0, websocket: sockets.websocket },
      fetch(request, self) {
        const requestIP = () => self.requestIP(request);
        return sockets.upgrade(request, { requestIP, upgrade } as never);
      },
    });
    const issued = await gate.issue({ user: "alice", expiresAtMs: Date.now() + 60_000 });
    const target = `/?ticket=${issued.ok && issued.ticket}`;
    const request = handshake(target, {}, { host: server.url.host });
    const answer = await sendRaw(Number(server.port), request);
    expect([answer.status, codeOf(answer)]).toEqual(answered as [number, string]);
    expect(JSON.parse(lines.at(-1) as string)).toMatchObject(logged);
    expect(lines.join()).not.toContain("canary");
  });
});

test("a stop of createSockets rejects after 10 s by default where its handlers don't stop", async () => {
  const clock = fakeClock();
  await using gate = createGate({ users: { secret: TOKEN_SECRET }, clock });
  const sockets = createSockets(gate, { ...echo(), stop: () => new Promise<void>(() => {}) });
  let outcome = "waits";
  sockets.stop().catch(({ name }) => {
    outcome = name;
  });
  await settle();
  clock.advance(9_999);
  await settle();
  expect(outcome).toBe("waits");
  clock.advance(1);
  await settle();
  expect(outcome).toBe("DeadlineError");
});

test("createSockets refuses handshakes with 503 once it stops, while the server's own routes go on", async () => {
  await using room = startRoom(embedded);
  const ticket = await room.ticket();
  await room.running.stop();
  const answer = await room.knock(`${embedded.path}?ticket=${ticket}`);
  expect([answer.status, codeOf(answer)]).toEqual([503, "shutting_down"]);
  expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(room.store.takes).toEqual([]);
  expect((await room.ask("/anything")).text).toBe("own route");
  expect((await room.mint(await room.token())).status).toBe(200);
});

test.each(["live", "", "/live?a=b", "/live#a", "ws://example.com/live"])(
  "serve refuses a path that is none: %s",
  (path) => {
    const gate = createGate({ users: { secret: TOKEN_SECRET } });
    expect(() => serve(gate, echo(), { path })).toThrow("Option path");
  },
);
