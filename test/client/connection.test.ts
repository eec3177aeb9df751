import { describe, expect, test } from "bun:test";
import {
  type ChatClient,
  type ChatClientOptions,
  type ConnectionState,
  createChatClient,
} from "../../src/client/mod.ts";
import { problem, type ScriptedWorld, scriptedWorld } from "../support/client.ts";

const URL_OF_SERVER = "https://chat.example";
const TICKETS = "/api/auth/ws-ticket";
const SESSIONS = "/api/auth/anonymous-session";

/** A client in a scripted world, with everything that it has emitted. */
function start(options: Pick<ChatClientOptions, "getToken" | "silenceMs"> = {}) {
  const world = scriptedWorld();
  const client = createChatClient({ url: URL_OF_SERVER, runtime: world.runtime, ...options });
  const { states, downs } = listen(client);
  return { world, client, states, downs };
}

function listen(client: ChatClient) {
  const states: ConnectionState["status"][] = [];
  const downs: number[] = [];
  client.on("state", ({ status }) => states.push(status));
  client.on("down", ({ code }) => downs.push(code));
  return { states, downs };
}

/** Requests for the credential of a socket. */
function attempts({ requests }: ScriptedWorld) {
  return requests.filter(({ path }) => path === TICKETS || path === SESSIONS);
}

describe("an attempt", () => {
  test("gets the visitor's cookie before the socket, whose URL has no parameter", async () => {
    const { world, client, states } = start();
    expect(client.state.status).toBe("connecting");
    await world.pass(0);
    expect(world.requests).toMatchObject([
      {
        ...{ method: "POST", path: SESSIONS, credentials: "include", authorization: undefined },
        cache: "no-store",
      },
    ]);
    expect(world.sockets.map(({ url }) => url)).toEqual(["wss://chat.example/ws/chat"]);
    expect(client.state.status).toBe("connecting");
    await world.sockets[0]?.open();
    expect(client.state.status).toBe("open");
    expect(states).toEqual(["open"]);
  });

  test("swaps the user's token for a ticket, and puts nothing but that into the URL", async () => {
    const { world } = start({ getToken: "the.jwt.itself" });
    await world.pass(0);
    expect(world.requests).toMatchObject([
      { path: TICKETS, credentials: "omit", authorization: "Bearer the.jwt.itself" },
    ]);
    expect(world.sockets[0]?.url).toBe("wss://chat.example/ws/chat?ticket=ticket-1");
  });

  test("calls getToken and gets a ticket each time, so that a renewed token is used", async () => {
    let asked = 0;
    const { world } = start({ getToken: async () => `token-${++asked}` });
    await (await world.open(1)).close(1006);
    await world.pass(1_000);
    expect(world.requests.map(({ authorization }) => authorization)).toEqual([
      "Bearer token-1",
      "Bearer token-2",
    ]);
    expect(new Set(world.sockets.map(({ url }) => url)).size).toBe(2);
  });
});

describe("a socket that is closed", () => {
  for (const code of [1000, 1001, 1003, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 3000, 4000]) {
    test(`with ${code} is replaced after a wait`, async () => {
      const { world, client, states, downs } = start();
      await (await world.open(1)).close(code);
      expect(client.state).toMatchObject({ status: "waiting", failure: { code } });
      await world.pass(2_000);
      expect(world.sockets).toHaveLength(2);
      await world.sockets[1]?.open();
      expect(states).toEqual(["open", "waiting", "connecting", "open"]);
      expect(downs).toEqual([code]);
    });
  }

  for (const code of [4002, 4003, 4499]) {
    test(`with ${code} is replaced with a new ticket`, async () => {
      const { world } = start({ getToken: "jwt" });
      await (await world.open(1)).close(code);
      await world.pass(2_000);
      await world.open(2);
      expect(attempts(world)).toHaveLength(2);
    });
  }

  for (const code of [4500, 4501, 4502, 4999]) {
    test(`with ${code} stays closed in spite of every hint, until retry is called`, async () => {
      const { world, client, downs } = start();
      await (await world.open(1)).close(code, "Why not");
      expect(client.state).toMatchObject({
        status: "closed",
        failure: { code, reason: "Why not" },
      });
      await world.hint("online");
      await world.hint("visible");
      await world.pass(3_600_000);
      expect(world.sockets).toHaveLength(1);
      expect(downs).toEqual([code]);
      client.retry();
      await world.open(2);
      expect(client.state.status).toBe("open");
    });
  }

  test("because its credential has expired is replaced at once, with a new ticket", async () => {
    const { world, states } = start({ getToken: "jwt" });
    const socket = await world.open(1);
    await world.pass(60_000);
    await socket.close(4001);
    await world.open(2);
    expect(attempts(world).map(({ atMs }) => atMs)).toEqual([0, 60_000]);
    expect(states).toEqual(["open", "connecting", "open"]);
  });

  test("as expired as soon as it is open is replaced at once only the first time", async () => {
    const { world, client } = start({ getToken: "jwt" });
    await (await world.open(1)).close(4001);
    await (await world.open(2)).close(4001);
    expect(client.state.status).toBe("waiting");
    await world.pass(0);
    expect(world.sockets).toHaveLength(2);
  });

  test("by a restart is replaced at a random time within two seconds", async () => {
    for (const [random, atMs] of [
      [0.01, 20],
      [0.99, 1_980],
    ] as const) {
      const { world } = start();
      world.random = random;
      await (await world.open(1)).close(1012);
      await world.pass(2_000);
      expect(world.sockets[1]?.atMs).toBe(atMs);
    }
  });
});

describe("a refused attempt", () => {
  for (const [status, code] of [
    [401, "token_invalid"],
    [403, "origin_refused"],
  ] as const) {
    test(`with ${status} ends it, by the same event as a lost socket`, async () => {
      const { world, client, downs } = start({ getToken: "jwt" });
      world.answer = () => problem(status, code);
      await world.pass(0);
      expect(client.state).toMatchObject({
        status: "closed",
        failure: { code: status, reason: code },
      });
      await world.hint("online");
      await world.pass(3_600_000);
      expect(world.requests).toHaveLength(1);
      expect(world.sockets).toHaveLength(0);
      expect(downs).toEqual([status]);
    });
  }

  for (const [status, retryAfter, leastMs] of [
    [429, "7", 7_000],
    [503, "5", 5_000],
    [503, new Date(Date.parse("2026-01-01T00:00:40Z")).toUTCString(), 40_000],
    [429, "86400", 3_600_000],
    [503, new Date(Date.parse("2027-01-01T00:00:00Z")).toUTCString(), 3_600_000],
  ] as const) {
    test(`with ${status} waits for Retry-After: ${retryAfter}, and no hint cuts that short`, async () => {
      const { world, client, downs } = start();
      world.answer = () => problem(status, "later", { "Retry-After": retryAfter });
      await world.pass(0);
      const jitterMs = 125;
      expect(client.state).toMatchObject({
        status: "waiting",
        untilMs: world.runtime.nowMs() + leastMs + jitterMs,
      });
      world.answer = () => undefined;
      await world.hint("online");
      await world.hint("visible");
      await world.pass(leastMs + jitterMs - 1);
      expect(world.requests).toHaveLength(1);
      await world.pass(1);
      await world.open(1);
      expect(downs).toEqual([status]);
    });
  }

  for (const status of [400, 404, 500, 502, 503]) {
    test(`with ${status} and no Retry-After is tried again after a wait`, async () => {
      const { world, downs } = start();
      world.answer = () => new Response("<h1>Bad gateway</h1>", { status });
      await world.pass(0);
      world.answer = () => undefined;
      await world.pass(125);
      await world.open(1);
      expect(downs).toEqual([status]);
    });
  }

  test("without any answer is tried again after a wait", async () => {
    const { world, client, downs } = start();
    world.answer = () => Promise.reject(new TypeError("Failed to fetch"));
    await world.pass(0);
    expect(client.state).toMatchObject({ status: "waiting", failure: { reason: "unreachable" } });
    expect(downs).toEqual([0]);
  });

  test("because there is no token is tried again after a wait", async () => {
    const { world, downs } = start({ getToken: () => Promise.reject(new Error("Not yet")) });
    await world.pass(0);
    await world.pass(125);
    expect(downs).toEqual([0, 0]);
    expect(world.requests).toHaveLength(0);
  });
});

describe("an attempt that hangs is given up after ten seconds", () => {
  test("in the request for the ticket", async () => {
    const { world, client } = start({ getToken: "jwt" });
    world.answer = () => new Promise(() => {});
    await world.pass(9_999);
    expect(client.state.status).toBe("connecting");
    await world.pass(1);
    expect(client.state).toMatchObject({ status: "waiting", failure: { reason: "timeout" } });
    expect(world.requests[0]?.signal.aborted).toBe(true);
    world.answer = () => undefined;
    await world.pass(125);
    await world.open(1);
  });

  test("in getToken, whose late result opens nothing", async () => {
    const late = Promise.withResolvers<string>();
    const { world, client } = start({ getToken: () => late.promise });
    await world.pass(10_000);
    expect(client.state.status).toBe("waiting");
    client.dispose();
    late.resolve("jwt");
    await world.pass(60_000);
    expect(world.requests).toHaveLength(0);
  });

  test("in the socket's opening", async () => {
    const { world, client } = start();
    await world.pass(10_000);
    expect(world.sockets[0]?.closedWith).toBe(1000);
    expect(client.state.status).toBe("waiting");
    await world.pass(125);
    await world.open(2);
  });
});

describe("the wait before the next try", () => {
  test("has a ceiling that doubles from 250 ms to 30 s while sockets open and die at once", async () => {
    const { world, client, downs } = start({ getToken: "jwt" });
    const waits: number[] = [];
    for (let count = 1; count <= 100; count++) {
      const socket = await world.open(count);
      await socket.close(1006);
      if (client.state.status !== "waiting") throw new Error(client.state.status);
      const waitMs = client.state.untilMs - world.runtime.nowMs();
      waits.push(waitMs / world.random);
      await world.pass(waitMs);
    }
    expect(waits.slice(0, 8)).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
    expect(new Set(waits.slice(7))).toEqual(new Set([30_000]));
    expect(downs).toHaveLength(100);
    expect(new Set(world.sockets.map(({ url }) => url)).size).toBe(world.sockets.length);
  });

  test("is anywhere below the ceiling", async () => {
    for (const random of [0, 0.25, 0.999]) {
      const { world, client } = start();
      world.random = random;
      await (await world.open(1)).close(1006);
      expect(client.state).toMatchObject({ untilMs: world.runtime.nowMs() + 250 * random });
    }
  });

  test("starts from below again after a socket that lasted", async () => {
    const { world, client } = start();
    const waitMs = () =>
      client.state.status === "waiting" ? client.state.untilMs - world.runtime.nowMs() : 0;
    await (await world.open(1)).close(1006);
    await world.pass(waitMs());
    await (await world.open(2)).close(1006);
    expect(waitMs()).toBe(250);
    await world.pass(waitMs());
    const third = await world.open(3);
    await world.pass(5_000);
    await third.close(1006);
    expect(waitMs()).toBe(125);
  });

  for (const hint of ["online", "visible"] as const) {
    test(`ends at the hint: ${hint}`, async () => {
      const { world } = start();
      world.random = 0.9;
      await (await world.open(1)).close(1006);
      await world.hint(hint);
      await world.open(2);
      expect(world.sockets[1]?.atMs).toBe(0);
    });
  }

  test("continues at the hint: offline", async () => {
    const { world } = start();
    await (await world.open(1)).close(1006);
    await world.hint("offline");
    expect(attempts(world)).toHaveLength(1);
  });

  test("ends when retry is called", async () => {
    const { world, client } = start();
    await (await world.open(1)).close(1006);
    client.retry();
    await world.open(2);
  });
});

describe("an open socket that may be dead", () => {
  for (const hint of ["online", "offline"] as const) {
    test(`is replaced at the hint: ${hint}, without another state`, async () => {
      const { world, states } = start();
      const first = await world.open(1);
      await world.hint(hint);
      expect(first.closedWith).toBeUndefined();
      await world.open(2);
      expect(first.closedWith).toBe(1000);
      expect(states).toEqual(["open"]);
    });
  }

  test("is let go when the server can't be reached", async () => {
    const { world, client, downs } = start();
    const first = await world.open(1);
    world.answer = () => Promise.reject(new TypeError("Failed to fetch"));
    await world.hint("offline");
    expect(first.closedWith).toBe(1000);
    expect(client.state.status).toBe("waiting");
    expect(downs).toEqual([0]);
    world.answer = () => undefined;
    await world.hint("online");
    await world.open(2);
  });

  test("is replaced when the tab comes back after a minute of silence, not before", async () => {
    const { world } = start({ silenceMs: 0 });
    world.beats = false;
    const first = await world.open(1);
    await world.pass(50_000);
    await first.say({ type: "READ", chatId: "v", by: "v", upTo: "1" });
    await world.pass(59_999);
    await world.hint("visible");
    expect(world.sockets).toHaveLength(1);
    await world.pass(1);
    await world.hint("visible");
    await world.open(2);
  });

  test("has one successor when the network comes and goes: the last attempt counts", async () => {
    const { world } = start();
    const first = await world.open(1);
    await world.hint("offline");
    await world.hint("online");
    expect(world.sockets.map(({ closedWith }) => closedWith)).toEqual([undefined, 1000, undefined]);
    await world.sockets[2]?.open();
    expect(first.closedWith).toBe(1000);
  });

  test.each(["visible", "offline"] as const)(
    "while the first attempt hangs, none begins at the hint: %s",
    async (hint) => {
      const { world } = start();
      world.answer = () => new Promise(() => {});
      await world.pass(3_000);
      await world.hint(hint);
      expect(world.requests).toHaveLength(1);
      expect(world.requests[0]?.signal.aborted).toBe(false);
    },
  );

  test("while the first attempt hangs without a network, another one begins when that is back", async () => {
    const { world } = start();
    world.answer = () => new Promise(() => {});
    await world.pass(3_000);
    world.answer = () => undefined;
    await world.hint("online");
    await world.open(1);
    expect(world.requests[0]?.signal.aborted).toBe(true);
  });
});

describe("a connection whose path has died without a FIN", () => {
  test("is given up after 55 s without any frame, and comes back", async () => {
    const { world, client, states, downs } = start();
    const first = await world.open(1);
    await world.pass(50_000);
    world.beats = false;
    await world.pass(54_999);
    expect(client.state.status).toBe("open");
    await world.pass(1);
    expect(client.state).toMatchObject({ status: "waiting", failure: { code: 4002 } });
    expect(first.closedWith).toBe(1000);
    await world.pass(125);
    await world.open(2);
    expect([states, downs]).toEqual([["open", "waiting", "connecting", "open"], [4002]]);
  });

  test("stays while heartbeats come, or any other frame, and shows nobody the heartbeats", async () => {
    const { world, client, states } = start();
    const frames: string[] = [];
    client.on("frame", ({ type }) => frames.push(type));
    const socket = await world.open(1);
    await world.pass(600_000);
    expect(frames).toEqual([]);
    world.beats = false;
    for (let count = 0; count < 5; count++) {
      await world.pass(54_999);
      await socket.say({ type: "READ", chatId: "v", by: "v", upTo: "1" });
    }
    expect(states).toEqual(["open"]);
    expect(socket.sent).toEqual([]);
  });

  test("isn't mistaken because of a wall clock that jumps", async () => {
    const { world, client } = start();
    await world.open(1);
    world.beats = false;
    world.jumpWall(3_600_000);
    await world.pass(54_999);
    expect(client.state.status).toBe("open");
    world.jumpWall(-7_200_000);
    await world.pass(1);
    expect(client.state.status).toBe("waiting");
  });
});

describe("a credential that ends soon", () => {
  const expiring = { type: "EXPIRING", inSeconds: 30 };

  test("is renewed: the next socket is open before this one is let go", async () => {
    let asked = 0;
    const { world, states, downs } = start({ getToken: () => `token-${++asked}` });
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    expect(world.sockets).toHaveLength(2);
    expect(first.closedWith).toBeUndefined();
    await world.sockets[1]?.open();
    expect(first.closedWith).toBe(1000);
    await first.close(4001);
    await world.pass(60_000);
    expect(world.sockets).toHaveLength(2);
    expect(states).toEqual(["open"]);
    expect(downs).toEqual([]);
  });

  test("is renewed for a visitor by renewing the cookie", async () => {
    const { world } = start();
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    await world.open(2);
    expect(attempts(world).map(({ path }) => path)).toEqual([SESSIONS, SESSIONS]);
  });

  test("spends no ticket on the same token; the socket stays until the server ends it", async () => {
    const { world, client, states } = start({ getToken: "jwt" });
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    await world.pass(30_000);
    expect(attempts(world)).toHaveLength(1);
    expect(states).toEqual(["open"]);
    world.answer = () => problem(401, "token_invalid");
    await first.close(4001);
    await world.pass(0);
    expect(client.state).toMatchObject({ status: "closed", failure: { code: 401 } });
  });

  test("that can't be renewed yet is tried again, while the socket stays open", async () => {
    let asked = 0;
    const { world, states } = start({ getToken: () => `token-${++asked}` });
    const first = await world.open(1);
    await world.pass(60_000);
    world.answer = () => problem(503, "store_unavailable", { "Retry-After": "2" });
    await first.say(expiring);
    expect(states).toEqual(["open"]);
    world.answer = () => undefined;
    await world.pass(2_125);
    await world.open(2);
    expect(first.closedWith).toBe(1000);
    expect(states).toEqual(["open"]);
  });

  test("that can't be renewed is tried again soon, however long it took to connect at first", async () => {
    let asked = 0;
    const { world } = start({ getToken: () => `token-${++asked}` });
    for (let count = 1; count <= 6; count++) {
      await (await world.open(count)).close(1006);
      await world.pass(125 * 2 ** (count - 1));
    }
    const socket = await world.open(7);
    await world.pass(60_000);
    world.answer = () => Promise.reject(new TypeError("Failed to fetch"));
    await socket.say(expiring);
    world.answer = () => undefined;
    await world.pass(125);
    await world.open(8);
  });

  test("and does end while the next socket opens, is replaced by that one", async () => {
    let asked = 0;
    const { world, states } = start({ getToken: () => `token-${++asked}` });
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    await first.close(4001);
    expect(states).toEqual(["open", "connecting"]);
    await world.open(2);
    expect(world.sockets[1]?.closedWith).toBeUndefined();
  });

  test("and is signed out meanwhile opens no next socket", async () => {
    let asked = 0;
    const { world, client } = start({ getToken: () => `token-${++asked}` });
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    await first.close(4500);
    expect(client.state).toMatchObject({ status: "closed", failure: { code: 4500 } });
    expect(world.sockets[1]?.closedWith).toBe(1000);
  });

  test("that ends again as soon as it is new makes no loop", async () => {
    let asked = 0;
    const { world } = start({ getToken: () => `token-${++asked}` });
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say(expiring);
    for (let count = 2; count < 7; count++) {
      await world.sockets[count - 1]?.open();
      await world.sockets[count - 1]?.say(expiring);
      expect(world.sockets).toHaveLength(count);
      await world.pass(125 * 2 ** (count - 2));
    }
    expect(attempts(world)).toHaveLength(7);
  });
});

describe("a client that is mounted", () => {
  test("twice at once, as React's StrictMode does, opens one socket", async () => {
    const world = scriptedWorld();
    const mount = () =>
      createChatClient({ url: URL_OF_SERVER, runtime: world.runtime, getToken: "jwt" });
    mount().dispose();
    mount();
    await world.pass(10);
    expect(world.requests).toHaveLength(1);
    expect(world.sockets).toHaveLength(1);
  });

  const moments: [string, (world: ScriptedWorld, client: ChatClient) => Promise<unknown>][] = [
    ["before it began", async () => {}],
    [
      "while it waits for the ticket",
      async (world) => {
        world.answer = () => new Promise(() => {});
        await world.pass(1);
      },
    ],
    [
      "while it reads the ticket",
      async (world) => {
        const body = new ReadableStream({
          pull: async (controller) => {
            // Comes when the client is gone already.
            for (let turn = 0; turn < 30; turn++) await new Promise((done) => setImmediate(done));
            controller.enqueue(new TextEncoder().encode('{"ticket":"late","expiresIn":30}'));
            controller.close();
          },
        });
        world.answer = () => new Response(body);
        await world.pass(0);
      },
    ],
    ["while the socket opens", (world) => world.pass(1)],
    ["when it is connected", (world) => world.open(1)],
    [
      "when messages are on their way",
      async (world, client) => {
        await world.open(1);
        for (let count = 0; count < 15; count++) client.conversation("v").send("Hello");
      },
    ],
    ["while it waits for the next try", async (world) => (await world.open(1)).close(1006)],
    ["when it is closed for good", async (world) => (await world.open(1)).close(4500)],
    [
      "while a page of messages is on its way",
      async (world, client) => {
        await world.open(1);
        world.answer = () => new Promise(() => {});
        client.conversation("v");
        await world.settle();
      },
    ],
  ];
  for (const [moment, reach] of moments) {
    test(`and disposed of ${moment} leaves nothing behind, and emits nothing more`, async () => {
      const { world, client } = start({ getToken: "jwt" });
      await reach(world, client);
      const { states, downs } = listen(client);
      const [requests, sockets] = [world.requests.length, world.sockets.length];
      client.dispose();
      await world.settle();
      expect(world.leftovers).toBe(0);
      for (const socket of world.sockets) await socket.close(1006);
      await world.hint("online");
      await world.pass(60_000);
      expect(world.requests).toHaveLength(requests);
      expect(world.sockets).toHaveLength(sockets);
      for (const { signal } of world.requests.slice(1)) expect(signal.aborted).toBe(true);
      expect([...states, ...downs]).toEqual([]);
      expect(client.state.status).toBe("closed");
    });
  }

  test("by `using` is disposed of at the end of the block", async () => {
    const world = scriptedWorld();
    {
      using client = createChatClient({ url: URL_OF_SERVER, runtime: world.runtime });
      await world.open(1);
      expect(client.state.status).toBe("open");
    }
    expect(world.leftovers).toBe(0);
    expect(world.sockets[0]?.closedWith).toBe(1000);
  });
});
