import { describe, expect, test } from "bun:test";
import { type ChatList, createChatClient, createChatList } from "../../src/client/mod.ts";
import { createTestServer } from "../../src/testing.ts";
import { problem, type ScriptedRequest, scriptedWorld } from "../support/client.ts";

const USER = "alice";

/** A visitor's id: 22 characters, by its number. */
function visitor(number: number): string {
  return String(number).padStart(21, "0").concat("A");
}

function messageOf(number: number, id: number, by: "user" | "visitor" = "visitor") {
  const [from, to] = by === "visitor" ? [visitor(number), USER] : [USER, visitor(number)];
  return {
    ...{ type: by === "visitor" ? "ANON_TO_USER" : "USER_TO_ANON", id: String(id), from, to },
    ...{ content: `message ${id}`, timestamp: "2026-01-01T00:00:00.000Z", chatId: visitor(number) },
  };
}

/** A chat as the server lists it, whose last message has this id. */
function listed(number: number, id: number, unread = 0) {
  return { peer: visitor(number), unread, blocked: false, lastMessage: messageOf(number, id) };
}

const about = (number: number) => ({ chatId: visitor(number), user: USER });

/** A server that lists what a test says, for the user alice. */
function startList(initial: readonly ReturnType<typeof listed>[] = []) {
  const world = scriptedWorld();
  const client = createChatClient({
    url: "https://chat.example",
    getToken: "jwt",
    runtime: world.runtime,
  });
  const list = createChatList(client, { runtime: world.runtime });
  const server = { chats: initial, fails: false };
  const isList = ({ path }: ScriptedRequest) => path.startsWith("/api/chats?");
  world.answer = (request) => {
    if (!isList(request)) return undefined;
    if (server.fails) return problem(503, "store_unavailable");
    const query = new URLSearchParams(request.path.split("?")[1]);
    const before = Number(query.get("before") ?? Number.POSITIVE_INFINITY);
    const limit = Number(query.get("limit"));
    const chats = server.chats
      .filter(({ lastMessage }) => Number(lastMessage.id) < before)
      .slice(0, limit);
    return Response.json({ chats, more: chats.length === limit });
  };
  const queries = () =>
    world.requests.filter(isList).map(({ path }) => path.slice("/api/chats?".length));
  let changes = 0;
  list.on("change", () => changes++);
  return { world, client, list, server, queries, changes: () => changes };
}

/** So many chats, newest first: number n has the message 1,000 - n. */
function many(count: number) {
  return Array.from({ length: count }, (_, number) => listed(number, 1_000 - number));
}

function numbersOf({ chats }: ChatList): number[] {
  return chats.map(({ peer }) => Number(peer.slice(0, -1)));
}

describe("a list of chats", () => {
  test("loads one page, and the following ones when it is told to, each chat once", async () => {
    const { world, list, queries } = startList(many(120));
    expect([list.isLoaded, list.chats]).toEqual([false, []]);
    const socket = await world.open(1);
    expect([list.isLoaded, list.chats.length, list.hasMore]).toEqual([true, 50, true]);
    // Chat 70 comes to the front while the second page is on its way.
    const loading = Promise.all([list.loadMore(), list.loadMore()]);
    await socket.say(messageOf(70, 1_001));
    await loading;
    await list.loadMore();
    expect([list.chats.length, list.hasMore]).toEqual([120, false]);
    expect(numbersOf(list)).toEqual([70, ...many(120).keys()].filter((n, at) => n !== 70 || !at));
    expect(queries().slice(0, 3)).toEqual([
      "limit=50",
      "limit=50&before=951",
      "limit=50&before=901",
    ]);
  });

  test("follows messages without a request: the chat moves to the front, with its preview and count", async () => {
    const { world, list, queries, changes } = startList([listed(1, 12), listed(2, 11, 3)]);
    const socket = await world.open(1);
    const [one] = list.chats;
    const before = changes();
    await socket.say({ ...messageOf(2, 13), nickname: "Vis", content: "x".repeat(4_000) });
    expect(numbersOf(list)).toEqual([2, 1]);
    expect(list.chats[0]).toMatchObject({ unread: 4, nickname: "Vis", blocked: false });
    expect(list.chats[0]?.lastMessage).toMatchObject({ id: "13", content: "x".repeat(200) });
    expect(list.chats[0]?.lastMessage).not.toHaveProperty("nickname");
    expect(list.chats[1]).toBe(one as never);
    await socket.say({ ...messageOf(1, 14, "user"), nickname: "The user's own" });
    expect(list.chats[0]).toMatchObject({ unread: 0, lastMessage: { id: "14" } });
    expect(list.chats[0]).not.toHaveProperty("nickname");
    // Over two sockets a message comes twice.
    await socket.say(messageOf(2, 13), messageOf(1, 14, "user"));
    expect([list.unread, changes() - before, queries().length]).toEqual([4, 2, 1]);
  });

  test("has the chat of somebody new, without a request while it is complete", async () => {
    const { world, list, queries } = startList([listed(1, 1)]);
    const socket = await world.open(1);
    await socket.say(messageOf(9, 2));
    await world.pass(60_000);
    expect(list.chats[0]).toMatchObject({ peer: visitor(9), unread: 1 });
    expect(queries()).toHaveLength(1);
  });

  test("learns once a second what else is unread in chats that weren't loaded", async () => {
    const { world, list, server, queries } = startList(many(120));
    const socket = await world.open(1);
    server.chats = [listed(101, 1_003, 1), listed(100, 1_002, 8), ...many(100)];
    await socket.say(messageOf(100, 1_002), messageOf(101, 1_003));
    expect(list.chats.slice(0, 2).map(({ unread }) => unread)).toEqual([1, 1]);
    await world.pass(1_000);
    expect(list.chats.slice(0, 2).map(({ unread }) => unread)).toEqual([1, 8]);
    expect(queries()).toHaveLength(2);
    // Of a chat that is known, a message says all there is.
    await socket.say(messageOf(101, 1_004));
    await world.pass(1_000);
    expect(queries()).toHaveLength(2);
  });

  test("follows reading, wherever it happened, and not the other side's", async () => {
    const { world, list } = startList([listed(1, 12, 2), listed(2, 11, 3)]);
    const socket = await world.open(1);
    await socket.say({ type: "READ", ...about(1), by: visitor(1), upTo: "12" });
    expect(list.unread).toBe(5);
    // Somebody has written since.
    await socket.say({ type: "READ", ...about(2), by: USER, upTo: "10" });
    expect(list.unread).toBe(5);
    await socket.say({ type: "READ", ...about(1), by: USER, upTo: "12" });
    expect(list.unread).toBe(3);
  });

  test("follows deletions and blocks", async () => {
    const { world, list } = startList([listed(1, 12), listed(2, 11)]);
    const socket = await world.open(1);
    await socket.say({ type: "BLOCKED", ...about(2), blocked: true });
    expect(list.chats[1]?.blocked).toBe(true);
    await socket.say({ type: "DELETED", ...about(1), upTo: "12" });
    expect(numbersOf(list)).toEqual([2]);
    // A chat that has begun anew since.
    await socket.say({ type: "DELETED", ...about(2), upTo: "10" });
    expect(numbersOf(list)).toEqual([2]);
  });

  test("loads again after a new socket, as far as it was loaded; nothing that is gone stays", async () => {
    const { world, list, server, queries } = startList(many(120));
    const socket = await world.open(1);
    await list.loadMore();
    await socket.close(1006);
    server.chats = [listed(119, 1_005, 2), ...many(119).filter((_, number) => number !== 3)];
    await world.pass(125);
    await world.open(2);
    expect(queries().slice(2)).toEqual(["limit=100"]);
    expect(numbersOf(list).slice(0, 4)).toEqual([119, 0, 1, 2]);
    expect([list.chats.length, list.unread, numbersOf(list).includes(3)]).toEqual([100, 2, false]);
    await list.loadMore();
    expect(numbersOf(list)).toHaveLength(119);
  });

  test("loads several pages again where several were loaded", async () => {
    const { world, list, queries } = startList(many(320));
    const socket = await world.open(1);
    for (let page = 2; page <= 5; page++) await list.loadMore();
    expect(list.chats).toHaveLength(250);
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    expect(queries().slice(5)).toEqual(["limit=200", "limit=200&before=801"]);
    expect([list.chats.length, list.hasMore]).toEqual([320, false]);
  });

  test("isn't set back by a response that is older than the frames that came meanwhile", async () => {
    const { world, list, server } = startList([listed(1, 12, 1), listed(2, 11, 1)]);
    const socket = await world.open(1);
    const slow = Promise.withResolvers<Response>();
    const old = Response.json({ chats: server.chats, more: false });
    await socket.close(1006);
    await world.pass(125);
    world.answer = ({ path }) => (path.startsWith("/api/chats?") ? slow.promise : undefined);
    const next = await world.open(2);
    await next.say(
      { type: "DELETED", ...about(1), upTo: "12" },
      { type: "READ", ...about(2), by: USER, upTo: "11" },
      messageOf(2, 13),
      messageOf(3, 14),
    );
    slow.resolve(old);
    await world.settle();
    expect(list.chats.map(({ peer, unread }) => [peer, unread])).toEqual([
      [visitor(3), 1],
      [visitor(2), 1],
    ]);
  });

  test("that can't be loaded says why, and tries again after longer and longer waits", async () => {
    const { world, list, server, queries } = startList([listed(1, 1)]);
    server.fails = true;
    await world.open(1);
    expect(list).toMatchObject({ isLoaded: false, failure: { code: 503 } });
    await world.pass(125 + 250);
    expect(queries()).toHaveLength(3);
    server.fails = false;
    await world.pass(500);
    expect(list).toMatchObject({ isLoaded: true, failure: undefined });
    expect(list.chats).toHaveLength(1);
  });

  test("isn't overwritten by a response that a later loading has overtaken, and doesn't fail with it", async () => {
    const { world, list, server } = startList([listed(1, 1)]);
    let socket = await world.open(1);
    const answer = world.answer;
    for (const [at, stale] of [
      Response.json({ chats: [listed(9, 9)], more: false }),
      problem(503, "store_unavailable"),
    ].entries()) {
      const slow = Promise.withResolvers<Response>();
      world.answer = (request) =>
        request.path.startsWith("/api/chats?") ? slow.promise : answer(request);
      for (const sockets of [2, 3]) {
        await socket.close(1006);
        await world.pass(1_000);
        socket = await world.open(2 * at + sockets);
        world.answer = answer;
        server.chats = [listed(2, 2 + at), listed(1, 1)];
      }
      slow.resolve(stale);
      await world.settle();
      expect(numbersOf(list)).toEqual([2, 1]);
      expect(list.failure).toBeUndefined();
    }
  });

  test("doesn't bring back a further page that was asked for before it was loaded anew", async () => {
    const { world, list, server } = startList(many(60));
    const socket = await world.open(1);
    const answer = world.answer;
    const slow = Promise.withResolvers<Response>();
    world.answer = (request) => (request.path.includes("before=") ? slow.promise : answer(request));
    const loading = list.loadMore();
    server.chats = many(50);
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    slow.resolve(Response.json({ chats: many(60).slice(50), more: false }));
    await loading;
    expect(numbersOf(list)).toEqual([...many(50).keys()]);
  });

  test("is loaded while there is a socket: neither tried again nor taken over without one", async () => {
    const { world, list, server, queries } = startList([listed(1, 1)]);
    const answer = world.answer;
    const slow = Promise.withResolvers<Response>();
    world.answer = (request) =>
      request.path.startsWith("/api/chats?") ? slow.promise : answer(request);
    const socket = await world.open(1);
    await socket.close(1006);
    slow.resolve(Response.json({ chats: [listed(1, 1)], more: false }));
    await world.settle();
    expect(list.isLoaded).toBe(false);
    world.answer = answer;
    server.fails = true;
    await world.pass(125);
    const next = await world.open(2);
    const asked = queries().length;
    await next.close(1006);
    await world.pass(60_000);
    expect(queries()).toHaveLength(asked);
  });

  test("that is loaded anew over a new socket isn't tried again as well", async () => {
    const { world, list, server, queries } = startList([listed(1, 1)]);
    server.fails = true;
    await world.open(1);
    server.fails = false;
    // The one that is open goes on until there is another.
    await world.hint("online");
    await world.open(2);
    expect([list.isLoaded, queries().length]).toEqual([true, 2]);
    await world.pass(60_000);
    expect(queries()).toHaveLength(2);
  });

  test("that is disposed of while it fails isn't tried again", async () => {
    for (const isWaiting of [true, false]) {
      const { world, client, list, server, queries } = startList([listed(1, 1)]);
      const answer = world.answer;
      const slow = Promise.withResolvers<void>();
      world.answer = isWaiting
        ? answer
        : (request) =>
            request.path.startsWith("/api/chats?")
              ? slow.promise.then(() => problem(503, "store_unavailable"))
              : answer(request);
      server.fails = true;
      await world.open(1);
      list.dispose();
      slow.resolve();
      await world.settle();
      await world.pass(60_000);
      expect(queries()).toHaveLength(1);
      client.dispose();
    }
  });

  test("leaves nothing behind when it is disposed of, and the client as it was", async () => {
    const { world, client, list, changes } = startList(many(60));
    const socket = await world.open(1);
    await socket.say(messageOf(200, 2_000));
    const before = [changes(), world.requests.length];
    list.dispose();
    await socket.say(messageOf(1, 2_001));
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    expect([
      changes(),
      world.requests.filter(({ path }) => path.includes("/api/chats")).length,
    ]).toEqual([before[0], 1] as number[]);
    expect(client.state.status).toBe("open");
    client.dispose();
    expect(world.leftovers).toBe(0);
  });

  test("of a visitor has the users, with what they wrote", async () => {
    await using server = await createTestServer();
    const cookie = await server.connectVisitor();
    for (const to of ["alice", "bob"]) {
      cookie.send(JSON.stringify({ type: "ANON_TO_USER", to, content: `to ${to}`, ref: to }));
      await cookie.next();
      await cookie.next();
    }
    const id = /v1\.([\w-]{22})/.exec(cookie.cookie)?.[1] ?? "";
    const headers = { Cookie: cookie.cookie, Origin: server.url };
    using client = createChatClient({
      url: server.url,
      runtime: {
        keepsCookies: true,
        fetch: (url, init) => fetch(url, { ...init, headers }),
        openSocket: (url) => new WebSocket(url, { headers } as never) as never,
      },
    });
    using list = createChatList(client);
    const until = (isSo: () => boolean) =>
      new Promise<void>((resolve) => {
        const look = () => isSo() && resolve();
        list.on("change", look);
        look();
      });
    await until(() => list.isLoaded);
    expect(list.chats.map(({ peer }) => peer)).toEqual(["bob", "alice"]);
    const alice = await server.connectAs("alice");
    alice.send(JSON.stringify({ type: "USER_TO_ANON", to: id, content: "Hello", ref: "1" }));
    await until(() => list.unread === 1);
    expect(list.chats[0]).toMatchObject({ peer: "alice", lastMessage: { content: "Hello" } });
    cookie.send(JSON.stringify({ type: "MARK_AS_READ", chatId: id, to: "alice" }));
    await until(() => list.unread === 0);
    await client.remove("alice");
    await until(() => list.chats.length === 1);
    expect(list.chats[0]?.peer).toBe("bob");
  });
});
