import { afterEach, describe, expect, test } from "bun:test";
import {
  connect,
  type Connection,
  type ConnectOptions,
  createChatClient,
  Failure,
} from "../../src/client/mod.ts";
import { completeRuntime } from "../../src/client/runtime.ts";
import { problem, scriptedWorld } from "../support/client.ts";

const SERVER = "https://live.example";

/** A connection in a scripted world, as a user unless it says otherwise, with everything that it has emitted. */
function start(options: ConnectOptions = { getToken: "jwt" }) {
  const world = scriptedWorld();
  const connection = connect({ url: SERVER, runtime: world.runtime, ...options });
  const events = listen(connection);
  return { world, connection, events };
}

function listen(connection: Connection): string[] {
  const events: string[] = [];
  connection.on("state", ({ status }) => events.push(`state ${status}`));
  connection.on("open", () => events.push("open"));
  connection.on("message", (text) => events.push(`message ${text}`));
  connection.on("down", ({ code, reason }) => events.push(`down ${code} ${reason}`.trimEnd()));
  return events;
}

/** What a page has that a test doesn't. */
function visit(href: string): void {
  Reflect.set(globalThis, "location", new URL(href));
}
afterEach(() => {
  Reflect.deleteProperty(globalThis, "location");
});

describe("a connection", () => {
  test("gives every text as it is, whatever the protocol, and no binary frames", async () => {
    const { world, events } = start();
    const socket = await world.open(1);
    for (const data of ["pong", "", "{not JSON", '{"type":"EXPIRING"}', "null"]) {
      await socket.sayRaw(data);
    }
    await socket.sayRaw(new Uint8Array([1, 2]));
    await socket.sayRaw(new Blob(["x"]));
    expect(events).toEqual([
      "state open",
      "open",
      "message pong",
      "message ",
      "message {not JSON",
      'message {"type":"EXPIRING"}',
      "message null",
    ]);
    expect(world.sockets).toHaveLength(1);
  });

  test("sends while it is open, and says when it isn't", async () => {
    const { world, connection } = start();
    expect(connection.send('{"n":1}')).toBe(false);
    const socket = await world.open(1);
    expect(connection.send('{"n":2}')).toBe(true);
    await socket.close(1006);
    expect(connection.send('{"n":3}')).toBe(false);
    await world.pass(125);
    const second = await world.open(2);
    expect([socket.sent, second.sent]).toEqual([[{ n: 2 }], []]);
  });

  test("reports every new socket, also one that replaces an open one without another state", async () => {
    let tokens = 0;
    const { world, connection, events } = start({ getToken: () => `token-${++tokens}` });
    await world.open(1);
    await world.pass(5_000);
    connection.renew();
    await world.open(2);
    await world.hint("online");
    await world.open(3);
    connection.check();
    const last = await world.open(4);
    await last.close(4001);
    await world.open(5);
    expect(events).toEqual([
      ...["state open", "open", "open", "open", "open"],
      ...["down 4001", "state connecting", "state open", "open"],
    ]);
    expect(world.sockets.map(({ closedWith }) => closedWith)).toEqual([
      ...[1000, 1000, 1000, undefined, undefined],
    ]);
  });

  test("ends its listening when the returned function is called, and only that", async () => {
    const { world, connection } = start();
    const seen: string[] = [];
    const listener = (text: string) => void seen.push(text);
    const off = connection.on("message", listener);
    connection.on("message", listener);
    const socket = await world.open(1);
    off();
    off();
    await socket.sayRaw("once");
    expect(seen).toEqual(["once"]);
  });

  test("offers the given subprotocols", async () => {
    const { world } = start({ getToken: "jwt", protocols: ["v2.example", "v1.example"] });
    await world.open(1);
    expect(world.sockets[0]?.protocols).toEqual(["v2.example", "v1.example"]);
  });
});

describe("a connection that has gone silent", () => {
  test("stays open without the option, since a protocol may have nothing to say", async () => {
    const { world, connection } = start();
    world.beats = false;
    await world.open(1);
    await world.pass(86_400_000);
    expect(connection.state.status).toBe("open");
    expect(world.leftovers).toBe(1);
  });

  test("is lost with 4002 after as long as the option says; every frame counts, a binary one, too", async () => {
    const { world, connection, events } = start({ getToken: "jwt", silenceMs: 3_000 });
    world.beats = false;
    const socket = await world.open(1);
    await world.pass(2_999);
    await socket.sayRaw("tick");
    await world.pass(2_999);
    await socket.sayRaw(new Uint8Array([1]));
    await world.pass(2_999);
    expect(connection.state.status).toBe("open");
    await world.pass(1);
    expect(events.slice(2)).toEqual(["message tick", "down 4002 silent", "state waiting"]);
    connection.dispose();
    expect(world.leftovers).toBe(0);
  });
});

describe("a ticket from a way of one's own", () => {
  test("is asked for before every attempt, and is all that the socket's URL has", async () => {
    let tickets = 0;
    const { world } = start({ getTicket: async () => `t${++tickets}` });
    await (await world.open(1)).close(1006);
    await world.pass(125);
    await world.open(2);
    expect(world.sockets.map(({ url }) => url)).toEqual([
      "wss://live.example/ws/chat?ticket=t1",
      "wss://live.example/ws/chat?ticket=t2",
    ]);
    expect(world.requests).toEqual([]);
  });

  test("that there won't be any more ends the connection", async () => {
    const { world, connection } = start({
      getTicket: () => Promise.reject(new Failure(401, "signed_out")),
    });
    await world.pass(3_600_000);
    expect(connection.state).toMatchObject({
      status: "closed",
      failure: { code: 401, reason: "signed_out" },
    });
    expect(world.sockets).toEqual([]);
  });

  test("that can't be had now is asked for again", async () => {
    let calls = 0;
    const { world, connection } = start({
      getTicket: () => (++calls < 3 ? Promise.reject(new TypeError("offline")) : "t"),
    });
    await world.pass(0);
    expect(connection.state).toMatchObject({ status: "waiting", failure: { code: 0 } });
    await world.pass(125 + 250);
    await world.open(1);
    expect(calls).toBe(3);
  });

  test("is given up on by its signal when it takes too long", async () => {
    let signal: AbortSignal | undefined;
    const { world } = start({
      getTicket: (attempt) => {
        signal = attempt.signal;
        return new Promise(() => {});
      },
    });
    await world.pass(9_999);
    expect(signal?.aborted).toBe(false);
    await world.pass(1);
    expect(signal?.aborted).toBe(true);
  });

  test("is missing in an answer: that ends the connection instead of opening ?ticket=undefined", async () => {
    const { world, connection } = start();
    world.answer = () => Response.json({ token: "something else" });
    await world.pass(3_600_000);
    expect(connection.state).toMatchObject({ status: "closed", failure: { reason: "no_ticket" } });
    expect([world.requests.length, world.sockets.length]).toEqual([1, 0]);
  });

  test("in an answer that isn't JSON is tried again", async () => {
    const { world, connection } = start();
    world.answer = () => new Response("<html>Sign in to this network</html>");
    await world.pass(0);
    expect(connection.state.status).toBe("waiting");
    world.answer = () => undefined;
    await world.pass(125);
    await world.open(1);
  });
});

describe("addresses", () => {
  async function addressesOf(options: ConnectOptions) {
    const { world } = start(options);
    await world.pass(0);
    const [request] = world.requests;
    return [`${request?.origin}${request?.path}`, world.sockets[0]?.url.replace(/\?.*/, "")];
  }
  const getToken = "jwt";

  test.each<[string, ConnectOptions, string, string]>([
    ["an origin", {}, `${SERVER}/api/auth/ws-ticket`, "wss://live.example/ws/chat"],
    [
      "a base path",
      { url: `${SERVER}/app/v1` },
      `${SERVER}/app/v1/api/auth/ws-ticket`,
      "wss://live.example/app/v1/ws/chat",
    ],
    [
      "a base path with a slash at its end, a query and a fragment",
      { url: new URL(`${SERVER}/app//?x=1#y`) },
      `${SERVER}/app/api/auth/ws-ticket`,
      "wss://live.example/app/ws/chat",
    ],
    [
      "a WebSocket's URL",
      { url: "ws://127.0.0.1:3000" },
      "http://127.0.0.1:3000/api/auth/ws-ticket",
      "ws://127.0.0.1:3000/ws/chat",
    ],
    [
      "other paths",
      { url: `${SERVER}/app`, paths: { auth: "/auth", socket: "live" } },
      `${SERVER}/app/auth/ws-ticket`,
      "wss://live.example/app/live",
    ],
    [
      "other servers",
      { paths: { auth: "https://fn.example/auth", socket: "wss://sockets.example/live" } },
      "https://fn.example/auth/ws-ticket",
      "wss://sockets.example/live",
    ],
  ])("from %s", async (_, options, ticket, socket) => {
    expect(await addressesOf({ getToken, ...options })).toEqual([ticket, socket]);
  });

  test("keep the parameters of the socket's path beside the ticket", async () => {
    const { world } = start({ getTicket: () => "t", paths: { socket: "/live?room=7" } });
    await world.pass(0);
    expect(world.sockets[0]?.url).toBe("wss://live.example/live?room=7&ticket=t");
  });

  test("are a page's own where no url is given, or one that belongs to the page", async () => {
    visit("https://page.example/some/where?x#y");
    for (const [url, prefix] of [
      [undefined, "page.example"],
      ["/app", "page.example/app"],
    ] as const) {
      expect(await addressesOf({ getToken, url })).toEqual([
        `https://${prefix}/api/auth/ws-ticket`,
        `wss://${prefix}/ws/chat`,
      ]);
    }
  });

  test("of the chat's requests have the base path and the gate's path, too", async () => {
    const world = scriptedWorld();
    const chat = createChatClient({
      ...{ url: `${SERVER}/app`, getToken, runtime: world.runtime, paths: { auth: "/auth" } },
    });
    await world.open(1);
    await Promise.all([chat.chats(), chat.remove("a/b"), chat.signOut()]);
    expect(world.requests.map(({ path }) => path)).toEqual([
      "/app/auth/ws-ticket",
      "/app/api/chats?limit=200",
      "/app/api/chats/a%2Fb",
      "/app/auth/sign-out",
    ]);
  });
});

describe("outside a browser", () => {
  test.each([
    ["connect", () => connect()],
    ["createChatClient", () => createChatClient()],
  ])("%s says that a url is missing, and starts nothing", (_, create) => {
    expect(create).toThrow(new TypeError("Option url is required outside a page"));
  });

  test("a visitor ends with a reason, since nothing keeps the cookie", async () => {
    const { world, connection, events } = start({ runtime: {} });
    expect(completeRuntime().keepsCookies).toBe(false);
    connection.dispose();
    const visitor = connect({
      url: SERVER,
      runtime: { ...world.runtime, keepsCookies: completeRuntime().keepsCookies },
    });
    const seen = listen(visitor);
    await world.pass(3_600_000);
    expect(visitor.state).toMatchObject({
      status: "closed",
      failure: { code: 0, reason: "no_cookies" },
    });
    expect(seen).toEqual(["down 0 no_cookies", "state closed"]);
    expect(world.requests).toEqual([]);
    expect(events).toEqual([]);
  });

  test("a user doesn't need cookies", async () => {
    const world = scriptedWorld();
    const runtime = { ...world.runtime, keepsCookies: false };
    connect({ url: SERVER, getToken: "jwt", runtime });
    await world.open(1);
  });

  test("a runtime without WebSocket ends it, with the reason behind it", async () => {
    const world = scriptedWorld();
    const cause = new ReferenceError("WebSocket is not defined");
    const runtime = {
      ...world.runtime,
      openSocket: () => {
        throw cause;
      },
    };
    const connection = connect({ url: SERVER, getToken: "jwt", runtime });
    await world.pass(3_600_000);
    expect(connection.state).toMatchObject({
      status: "closed",
      failure: { reason: "no_socket", cause },
    });
    expect(world.requests).toHaveLength(1);
  });
});

describe("a runtime", () => {
  test("may be given in part; the rest is the browser's", () => {
    const fetch = async () => new Response();
    const runtime = completeRuntime({ fetch, random: () => 0 });
    expect(runtime.fetch).toBe(fetch);
    expect(runtime.random()).toBe(0);
    expect(Math.abs(runtime.nowMs() - Date.now())).toBeLessThan(1_000);
    expect(runtime.newRef()).toMatch(/^\d+(-\d+){3}$/);
    expect(runtime.newRef()).not.toBe(runtime.newRef());
  });

  test("has hints of the network, and of the page when it comes into view, until nobody listens", () => {
    const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
    const events = new EventTarget();
    const add = events.addEventListener.bind(events);
    const own = Object.getOwnPropertyDescriptor(globalThis, "addEventListener");
    Object.defineProperty(globalThis, "addEventListener", { value: add, configurable: true });
    Reflect.set(globalThis, "document", document);
    try {
      const hints: string[] = [];
      const stop = completeRuntime().onHint((hint) => void hints.push(hint));
      const dispatchAll = () => {
        document.dispatchEvent(new Event("visibilitychange"));
        for (const name of ["online", "offline"]) events.dispatchEvent(new Event(name));
      };
      dispatchAll();
      document.visibilityState = "visible";
      dispatchAll();
      stop();
      dispatchAll();
      expect(hints).toEqual(["online", "offline", "visible", "online", "offline"]);
    } finally {
      Reflect.deleteProperty(globalThis, "document");
      Reflect.deleteProperty(globalThis, "addEventListener");
      if (own) Object.defineProperty(globalThis, "addEventListener", own);
    }
  });

  test.each(["window", "importScripts"])("with %s keeps cookies", (name) => {
    Reflect.set(globalThis, name, {});
    try {
      expect(completeRuntime().keepsCookies).toBe(true);
    } finally {
      Reflect.deleteProperty(globalThis, name);
    }
  });
});

describe("a listener that throws", () => {
  test("doesn't keep others, or the connection, from their work", async () => {
    const world = scriptedWorld();
    const connection = connect({ url: SERVER, getToken: "jwt", runtime: world.runtime });
    const boom = (name: string) => () => {
      throw new Error(name);
    };
    for (const name of ["state", "open", "message", "down"] as const) {
      connection.on(name, boom(name));
    }
    const events = listen(connection);
    const socket = await world.open(1);
    await socket.sayRaw("hello");
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    expect(events).toEqual([
      ...["state open", "open", "message hello", "down 1006", "state waiting"],
      ...["state connecting", "state open", "open"],
    ]);
    expect(world.errors.map((error) => (error as Error).message)).toEqual([
      ...["state", "open", "message", "down", "state", "state", "state", "open"],
    ]);
  });

  test("doesn't keep the chat from its work either", async () => {
    const world = scriptedWorld();
    const chat = createChatClient({ url: SERVER, runtime: world.runtime });
    const conversation = chat.conversation("alice");
    for (const name of ["state", "change", "frame", "down"] as const) {
      chat.on(name, () => {
        throw new Error(name);
      });
    }
    const seen: string[] = [];
    chat.on("frame", ({ type }) => seen.push(type));
    const socket = await world.open(1);
    conversation.send("Hi");
    await socket.say({ type: "ACK", ref: "ref-1", id: "1", timestamp: "2026-01-01T00:00:00Z" });
    expect(seen).toEqual(["ACK"]);
    expect(conversation.messages).toMatchObject([{ content: "Hi", status: "sent" }]);
    expect(world.errors.length).toBeGreaterThan(2);
  });

  test("is reported as an uncaught error, where nothing else is said", async () => {
    const uncaught = Promise.withResolvers<unknown>();
    const timeout = globalThis.setTimeout;
    globalThis.setTimeout = ((run: () => void) => {
      try {
        run();
      } catch (error) {
        uncaught.resolve(error);
      }
    }) as typeof setTimeout;
    try {
      const error = new Error("mine");
      completeRuntime().reportError(error);
      expect(await uncaught.promise).toBe(error);
    } finally {
      globalThis.setTimeout = timeout;
    }
  });
});

describe("a connection that was disposed of", () => {
  test("stays so, whatever is called", async () => {
    const { world, connection, events } = start();
    await world.open(1);
    connection.dispose();
    const [sockets, requests, before] = [world.sockets.length, world.requests.length, [...events]];
    connection.retry();
    connection.renew();
    connection.check();
    connection.dispose();
    expect(connection.send("{}")).toBe(false);
    await world.hint("online");
    await world.pass(60_000);
    expect(connection.state).toMatchObject({ status: "closed", failure: { reason: "disposed" } });
    expect([world.sockets.length, world.requests.length]).toEqual([sockets, requests]);
    expect(events).toEqual(before);
    expect(world.leftovers).toBe(0);
  });

  test("of the chat: the same", async () => {
    const world = scriptedWorld();
    const chat = createChatClient({ url: SERVER, getToken: "jwt", runtime: world.runtime });
    await world.open(1);
    chat.dispose();
    chat.retry();
    await world.pass(60_000);
    expect([chat.state.status, world.sockets.length, world.leftovers]).toEqual(["closed", 1, 0]);
  });

  test.each(["state", "open", "message", "down"] as const)(
    "by a listener for %s stays so, and no further listener is called",
    async (name) => {
      const world = scriptedWorld();
      const connection = connect({ url: SERVER, getToken: "jwt", runtime: world.runtime });
      connection.on(name, () => connection.dispose());
      let later = 0;
      connection.on(name, () => later++);
      await world.pass(0);
      const socket = world.sockets[0];
      await socket?.open();
      await socket?.sayRaw("hello");
      await socket?.close(1006);
      await world.pass(60_000);
      expect(connection.state).toMatchObject({ status: "closed", failure: { reason: "disposed" } });
      expect([later, world.sockets.length, world.leftovers]).toEqual([0, 1, 0]);
    },
  );
});

test("a connection that is disposed of as it starts again asks for no ticket any more", async () => {
  let tickets = 0;
  const { world, connection } = start({ getTicket: () => `t${++tickets}` });
  await (await world.open(1)).close(1006);
  connection.on("state", ({ status }) => status === "connecting" && connection.dispose());
  await world.pass(60_000);
  expect([tickets, world.sockets.length, world.leftovers]).toEqual([1, 1, 0]);
});

describe("a handshake that is refused", () => {
  test("with an error alone, as Node reports it, is tried again", async () => {
    const { world, connection, events } = start();
    await world.pass(0);
    await world.sockets[0]?.fail();
    expect(connection.state).toMatchObject({ status: "waiting", failure: { code: 1006 } });
    await world.pass(125);
    await world.open(2);
    expect(events.slice(0, 2)).toEqual(["down 1006", "state waiting"]);
  });

  test("with an error and a close, as browsers report it, counts once", async () => {
    const { world, events } = start();
    await world.pass(0);
    const [socket] = world.sockets;
    await socket?.fail();
    await socket?.close(1006);
    await world.pass(125);
    await world.open(2);
    expect(events).toEqual([
      ...["down 1006", "state waiting", "state connecting", "state open", "open"],
    ]);
  });

  test("isn't what an error of an open socket means: its close says more", async () => {
    const { world, events } = start();
    const socket = await world.open(1);
    await socket.fail();
    expect(events).toEqual(["state open", "open"]);
    await socket.close(4500, "Signed out");
    expect(events.slice(2)).toEqual(["down 4500 Signed out", "state closed"]);
  });
});

describe("a chat whose server speaks something else", () => {
  test.each(["hello", "{", "", "null", "7", '"text"', "[]", "{}", '{"type":7}', '{"event":"x"}'])(
    "ignores %p",
    async (text) => {
      const world = scriptedWorld();
      const chat = createChatClient({ url: SERVER, runtime: world.runtime });
      const frames: unknown[] = [];
      chat.on("frame", (frame) => frames.push(frame));
      const socket = await world.open(1);
      await socket.sayRaw(text);
      await socket.say({ type: "READ", chatId: "v", by: "v", upTo: "1" });
      expect(frames).toMatchObject([{ type: "READ" }]);
      expect(chat.state.status).toBe("open");
      expect(world.errors).toEqual([]);
    },
  );

  test("gives frames of types that it doesn't know to whoever listens", async () => {
    const world = scriptedWorld();
    const chat = createChatClient({ url: SERVER, runtime: world.runtime });
    const types: string[] = [];
    chat.on("frame", ({ type }) => types.push(type));
    const socket = await world.open(1);
    await socket.say({ type: "REACTION", from: "alice" });
    expect(types).toEqual(["REACTION"]);
  });

  test("shows its refusals as they come, without a problem's code", async () => {
    const world = scriptedWorld();
    world.answer = () => problem(404, undefined as unknown as string);
    const chat = createChatClient({ url: SERVER, runtime: world.runtime });
    await world.pass(0);
    expect(chat.state).toMatchObject({
      status: "waiting",
      failure: { code: 404, reason: "refused" },
    });
  });
});
