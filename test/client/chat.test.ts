import { describe, expect, test } from "bun:test";
import { type Conversation, createChatClient } from "../../src/client/mod.ts";
import { problem, type ScriptedRequest, scriptedWorld } from "../support/client.ts";

const VISITOR = "AAAAAAAAAAAAAAAAAAAAAA";

/** A message as the server sends it: the visitor's, unless it is by the user. */
function message(id: number, content: string, by: "user" | "visitor" = "visitor") {
  return {
    type: by === "visitor" ? "ANON_TO_USER" : "USER_TO_ANON",
    id: String(id),
    from: by === "visitor" ? VISITOR : "alice",
    to: by === "visitor" ? "alice" : VISITOR,
    content,
    timestamp: "2026-01-01T00:00:00.000Z",
    chatId: VISITOR,
  };
}

function page(messages: unknown[], { more = false, user = "0", visitor = "0" } = {}): Response {
  return Response.json({ messages, readUpTo: { user, visitor }, more });
}

/** A client of the user alice, connected, with the visitor's conversation open; its first page has these messages. */
async function startUser(...messages: unknown[]) {
  const world = scriptedWorld();
  const asked = (request: ScriptedRequest) => request.path.includes("/messages?");
  world.answer = (request) => (asked(request) ? page(messages) : listed(request));
  const client = createChatClient({
    url: "https://chat.example",
    runtime: world.runtime,
    getToken: "jwt",
  });
  const conversation = client.conversation(VISITOR);
  const socket = await world.open(1);
  const queries = () =>
    world.requests.filter(asked).map(({ path }) => path.slice(path.indexOf("?")));
  return { world, client, conversation, socket, queries };
}

/** The list of chats, as long as a test says nothing else: this one is there. */
function listed({ path }: ScriptedRequest): Response | undefined {
  if (!path.startsWith("/api/chats?")) return undefined;
  return Response.json({ chats: [{ peer: VISITOR }, { peer: "alice" }], more: false });
}

/** A client of the visitor, connected, with the conversation with alice open. */
async function startVisitor() {
  const world = scriptedWorld();
  const client = createChatClient({ url: "https://chat.example", runtime: world.runtime });
  const conversation = client.conversation("alice");
  const socket = await world.open(1);
  return { world, client, conversation, socket };
}

function contents({ messages }: Conversation): string[] {
  return messages.map(({ content }) => content);
}

function statuses({ messages }: Conversation): string[] {
  return messages.map(({ content, status }) => `${content}: ${status}`);
}

describe("a conversation", () => {
  test("starts with its newest page", async () => {
    const { conversation, queries } = await startUser(
      message(3, "three"),
      message(4, "four", "user"),
    );
    expect(queries()).toEqual(["?before=999999999999999&limit=50"]);
    expect(statuses(conversation)).toEqual(["three: received", "four: sent"]);
    expect(conversation).toMatchObject({ isLoaded: true, hasOlder: false, unread: 1 });
  });

  test("loads older pages before its oldest message", async () => {
    const { world, conversation, queries } = await startUser(message(8, "eight"));
    world.answer = () => page([message(6, "six"), message(7, "seven")], { more: true });
    await Promise.all([conversation.loadOlder(), conversation.loadOlder()]);
    expect(queries().slice(1)).toEqual(["?before=8&limit=50"]);
    expect(contents(conversation)).toEqual(["six", "seven", "eight"]);
    expect(conversation.hasOlder).toBe(true);
  });

  test("that doesn't exist yet is empty, without a request that fails", async () => {
    const { world, conversation } = await startVisitor();
    expect(conversation).toMatchObject({ isLoaded: true, messages: [] });
    expect(world.requests.map(({ path }) => path)).toEqual([
      "/api/auth/anonymous-session",
      "/api/chats?limit=200",
    ]);
  });

  test("whose first page can't be loaded tries again, after longer and longer waits", async () => {
    const { world, client } = await startVisitor();
    world.answer = () => problem(503, "store_unavailable");
    const other = client.conversation("bob");
    await world.pass(125 + 250 + 500);
    expect(other.isLoaded).toBe(false);
    expect(world.requests.filter(({ atMs }) => atMs > 0).map(({ atMs }) => atMs)).toEqual([
      125, 375, 875,
    ]);
    world.answer = () => undefined;
    await world.pass(1_000);
    expect(other.isLoaded).toBe(true);
  });

  test("shows each message once and in order, also duplicates and late ones", async () => {
    const { conversation, socket } = await startUser(message(1, "one"));
    await socket.say(
      message(3, "three"),
      message(2, "two"),
      message(3, "three"),
      message(1, "one"),
    );
    await socket.say(message(10, "ten"), message(9, "nine"));
    expect(contents(conversation)).toEqual(["one", "two", "three", "nine", "ten"]);
  });

  test("ignores messages of other chats", async () => {
    const { conversation, socket } = await startUser();
    await socket.say({ ...message(1, "for bob"), chatId: "BBBBBBBBBBBBBBBBBBBBBQ" });
    expect(conversation.messages).toEqual([]);
  });

  test("of a visitor is recognised by the user, in both directions", async () => {
    const { client, conversation, socket } = await startVisitor();
    const bob = client.conversation("bob");
    await socket.say(message(1, "to alice"), { ...message(2, "to bob"), to: "bob" });
    await socket.say(message(3, "from alice", "user"));
    expect(statuses(conversation)).toEqual(["to alice: sent", "from alice: received"]);
    expect(contents(bob)).toEqual(["to bob"]);
  });

  test("keeps messages that come before its first page, also when that is empty", async () => {
    const first = Promise.withResolvers<Response>();
    const { world, client, socket } = await startVisitor();
    world.answer = () => first.promise;
    const bob = client.conversation("bob");
    await socket.say({ ...message(5, "early"), to: "bob" });
    first.resolve(Response.json({ chats: [], more: false }));
    await world.settle();
    expect(contents(bob)).toEqual(["early"]);
  });
});

describe("missed messages", () => {
  test("are loaded page by page from the last known one on, as soon as the next socket is open", async () => {
    const { world, conversation, socket, queries } = await startUser(message(1, "one"));
    await socket.say(message(4, "four"));
    await socket.close(1006);
    const pages = [
      page([message(5, "five"), message(6, "six")], { more: true }),
      page([message(7, "seven")], { user: "0", visitor: "4" }),
    ];
    world.answer = ({ path }) => (path.includes("/messages?") ? pages.shift() : undefined);
    await world.pass(125);
    expect(queries()).toHaveLength(1);
    await world.open(2);
    expect(queries().slice(1)).toEqual(["?after=4&limit=200", "?after=6&limit=200"]);
    expect(contents(conversation)).toEqual(["one", "four", "five", "six", "seven"]);
  });

  test("are loaded again from before a live message, when the first response failed", async () => {
    const { world, conversation, socket, queries } = await startUser(message(1, "one"));
    await socket.close(1006);
    world.answer = ({ path }) =>
      path.includes("/messages?") ? problem(503, "store_unavailable") : undefined;
    await world.pass(125);
    const second = await world.open(2);
    await second.say(message(3, "three"));
    world.answer = ({ path }) =>
      path.includes("/messages?") ? page([message(2, "two"), message(3, "three")]) : undefined;
    await world.pass(1_000);
    expect(new Set(queries().slice(1))).toEqual(new Set(["?after=1&limit=200"]));
    expect(contents(conversation)).toEqual(["one", "two", "three"]);
  });

  test("of an answer that has been overtaken by the next socket change nothing", async () => {
    for (const late of [() => problem(404, "not_found"), () => problem(503, "store_unavailable")]) {
      const { world, conversation, socket, queries } = await startUser(message(1, "one"));
      const slow = Promise.withResolvers<Response>();
      const answers = [slow.promise, page([message(2, "two")])];
      world.answer = ({ path }) => (path.includes("/messages?") ? answers.shift() : undefined);
      await socket.close(1006);
      await world.pass(125);
      await (await world.open(2)).close(1006);
      await world.pass(1_000);
      await world.open(3);
      expect(contents(conversation)).toEqual(["one", "two"]);
      slow.resolve(late());
      await world.pass(30_000);
      expect(contents(conversation)).toEqual(["one", "two"]);
      expect(queries().slice(1)).toEqual(["?after=1&limit=200", "?after=1&limit=200"]);
    }
  });

  test("of a deleted chat: the conversation is empty", async () => {
    const { world, conversation, socket } = await startUser(message(1, "one"));
    await socket.close(1006);
    world.answer = ({ path }) =>
      path.includes("/messages?") ? problem(404, "not_found") : undefined;
    await world.pass(125);
    await world.open(2);
    expect(conversation).toMatchObject({ isLoaded: true, messages: [] });
  });

  test("that come over both sockets during a renewal are shown once", async () => {
    let asked = 0;
    const world = scriptedWorld();
    const client = createChatClient({
      url: "https://chat.example",
      runtime: world.runtime,
      getToken: () => `token-${++asked}`,
    });
    const conversation = client.conversation(VISITOR);
    const first = await world.open(1);
    await world.pass(60_000);
    await first.say({ type: "EXPIRING", inSeconds: 30 }, message(1, "one"));
    await world.sockets[1]?.open();
    await world.sockets[1]?.say(message(1, "one"), message(2, "two"));
    expect(contents(conversation)).toEqual(["one", "two"]);
  });
});

describe("a chat that is deleted", () => {
  const deleted = (upTo: number) => ({
    ...{ type: "DELETED", chatId: VISITOR, user: "alice", upTo: String(upTo) },
  });

  test("elsewhere is empty at once, and begins anew with the next message", async () => {
    const { client, conversation, socket } = await startUser(message(1, "one"), message(2, "two"));
    const seen: unknown[] = [];
    client.on("change", (one) => seen.push([one.isDeleted, contents(one), one.unread]));
    await socket.say(deleted(2));
    await socket.say(message(5, "new"));
    expect(seen).toEqual([
      [true, [], 0],
      [false, ["new"], 1],
    ]);
    expect(conversation.hasOlder).toBe(false);
  });

  test("keeps what was written after the deletion, whichever comes first", async () => {
    const { conversation, socket } = await startUser(message(1, "one"));
    await socket.say(message(5, "new"), deleted(4));
    expect(contents(conversation)).toEqual(["new"]);
    expect(conversation.isDeleted).toBe(false);
  });

  test("isn't brought back by a page that was on its way, nor by the ACK of what was in it", async () => {
    const { world, conversation, socket } = await startUser(message(3, "three"));
    conversation.send("four");
    const slow = Promise.withResolvers<Response>();
    world.answer = () => slow.promise;
    const loading = conversation.loadOlder();
    await world.settle();
    await socket.say(deleted(4));
    slow.resolve(page([message(1, "one"), message(2, "two")]));
    await loading;
    await socket.say({ type: "ACK", ref: "ref-1", id: "4", timestamp: "2026-01-01T00:00:01Z" });
    expect(contents(conversation)).toEqual([]);
  });

  test("is loaded from its newest page again after the next socket", async () => {
    const { world, socket, queries } = await startUser(message(1, "one"), message(2, "two"));
    await socket.say(deleted(2));
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    expect(queries().at(-1)).toBe("?before=999999999999999&limit=50");
  });

  test("of a visitor is the one with that user, and no other", async () => {
    const { client, conversation, socket } = await startVisitor();
    const bob = client.conversation("bob");
    await socket.say(message(1, "to alice"), { ...message(2, "to bob"), to: "bob" });
    await socket.say({ ...deleted(9), user: "bob" });
    expect([contents(conversation), contents(bob)]).toEqual([["to alice"], []]);
    expect([conversation.isDeleted, bob.isDeleted]).toEqual([false, true]);
  });

  test("while nobody was connected is known after the next page", async () => {
    const { world, conversation, socket } = await startUser(message(1, "one"));
    await socket.close(1006);
    world.answer = ({ path }) =>
      path.includes("/messages?") ? problem(404, "not_found") : undefined;
    await world.pass(125);
    await world.open(2);
    expect(conversation).toMatchObject({ isDeleted: true, messages: [] });
  });
});

describe("what a conversation shows", () => {
  test("is the same array until something changes, and the same messages where they are the same", async () => {
    const { client, conversation, socket } = await startUser(message(1, "one", "user"));
    const before = conversation.messages;
    expect(conversation.messages).toBe(before);
    await socket.say(message(2, "two"));
    const after = conversation.messages;
    expect(after).not.toBe(before);
    expect(contents({ messages: before } as Conversation)).toEqual(["one"]);
    expect(after[0]).toBe(before[0] as never);
    await socket.say({ type: "READ", chatId: VISITOR, user: "alice", by: VISITOR, upTo: "1" });
    expect(conversation.messages[0]).not.toBe(before[0] as never);
    expect(conversation.messages[1]).toBe(after[1] as never);
    // As `useSyncExternalStore` wants it: whoever reads at a change and afterwards reads the same.
    let atChange: unknown;
    client.on("change", (one) => (atChange = one.messages));
    conversation.send("three");
    await socket.say({ type: "ACK", ref: "ref-1", id: "3", timestamp: "2026-01-01T00:00:01Z" });
    expect(conversation.messages).toBe(atChange as never);
  });

  test("has nothing on it but what is documented", async () => {
    const { client, conversation } = await startUser();
    expect(Object.keys(conversation).sort()).toEqual([
      ...["close", "discard", "hasOlder", "isDeleted", "isLoaded", "loadOlder", "markRead"],
      ...["messages", "peer", "retry", "send", "typing", "unread"],
    ]);
    expect(Object.keys(client).sort()).toEqual([
      ...["chats", "conversation", "dispose", "on", "remove", "retry", "setBlocked", "side"],
      ...["signOut", "state"],
    ]);
  });

  test("costs as much per message with 6,000 messages as with 500; to read all of them is one copy", async () => {
    const { client, conversation, socket } = await startUser();
    let unread = 0;
    client.on("change", (one) => (unread = one.unread));
    let last = 0;
    const say = (count: number) => {
      for (let n = 0; n < count; n++) {
        const by = ++last % 2 ? "user" : "visitor";
        void socket.sayRaw(JSON.stringify(message(last, "some words", by)));
        if (last % 10 === 0) conversation.markRead();
      }
    };
    /** Of 20 messages, in milliseconds. The best of ten: a busy machine may interrupt some. */
    const costMs = () => {
      const times = Array.from({ length: 10 }, () => {
        const startedAtMs = performance.now();
        say(20);
        return performance.now() - startedAtMs;
      });
      return Math.min(...times);
    };
    say(500);
    const few = costMs();
    say(6_000 - last);
    const many = costMs();
    // Twelve times the messages: what walks over all of them takes twelve times as long.
    expect(many).toBeLessThan(4 * few);
    expect(unread).toBeLessThan(10);
    const startedAtMs = performance.now();
    expect(conversation.messages).toHaveLength(last);
    expect(performance.now() - startedAtMs).toBeLessThan(5);
  });
});

describe("a message that is sent", () => {
  test("is pending until its ACK, sent until it is read, and never there twice", async () => {
    const { conversation, socket } = await startUser(message(1, "Hello"));
    conversation.send("Hi", { nickname: "Alice" });
    expect(socket.sent).toEqual([
      { type: "USER_TO_ANON", to: VISITOR, content: "Hi", nickname: "Alice", ref: "ref-1" },
    ]);
    expect(statuses(conversation)).toEqual(["Hello: received", "Hi: pending"]);
    await socket.say({ type: "ACK", ref: "ref-1", id: "2", timestamp: "2026-01-01T00:00:01Z" });
    await socket.say(message(2, "Hi", "user"));
    expect(statuses(conversation)).toEqual(["Hello: received", "Hi: sent"]);
    await socket.say({ type: "READ", chatId: VISITOR, user: "alice", by: VISITOR, upTo: "2" });
    expect(statuses(conversation)).toEqual(["Hello: received", "Hi: read"]);
    expect(new Set(conversation.messages.map(({ key }) => key)).size).toBe(2);
  });

  test("before there is a socket is sent once it is open", async () => {
    const world = scriptedWorld();
    const client = createChatClient({ url: "https://chat.example", runtime: world.runtime });
    const conversation = client.conversation("alice");
    conversation.send("one");
    conversation.send("two");
    expect(statuses(conversation)).toEqual(["one: pending", "two: pending"]);
    const socket = await world.open(1);
    expect(socket.sent).toMatchObject([
      { type: "ANON_TO_USER", to: "alice", content: "one", ref: "ref-1" },
      { content: "two", ref: "ref-2" },
    ]);
  });

  test("without an ACK goes over the next socket under the same ref; with one it doesn't", async () => {
    const { world, conversation, socket } = await startUser();
    for (const content of ["one", "two", "three"]) conversation.send(content);
    await socket.say({ type: "ACK", ref: "ref-1", id: "1", timestamp: "2026-01-01T00:00:01Z" });
    await socket.close(1006);
    conversation.send("four");
    await world.pass(125);
    const second = await world.open(2);
    expect(second.sent.map(({ ref, content }) => [ref, content])).toEqual([
      ["ref-2", "two"],
      ["ref-3", "three"],
      ["ref-4", "four"],
    ]);
    expect(contents(conversation)).toEqual(["one", "two", "three", "four"]);
  });

  test("and stored, but whose ACK was lost, is never shown twice", async () => {
    const { world, client, conversation, socket } = await startUser(message(1, "Hello"));
    const shown: string[][] = [];
    client.on("change", (changed) => shown.push(contents(changed)));
    conversation.send("Hi");
    await socket.close(1006);
    world.answer = ({ path }) =>
      path.includes("/messages?") ? page([message(2, "Hi", "user")]) : undefined;
    await world.pass(125);
    const second = await world.open(2);
    expect(second.sent).toMatchObject([{ ref: "ref-1" }]);
    await second.say({ type: "ACK", ref: "ref-1", id: "2", timestamp: "2026-01-01T00:00:01Z" });
    expect(statuses(conversation)).toEqual(["Hello: received", "Hi: sent"]);
    for (const texts of shown) expect(texts).toEqual(["Hello", "Hi"]);
  });

  test("twice with the same words is two messages", async () => {
    const { conversation, socket } = await startUser();
    conversation.send("Hi");
    conversation.send("Hi");
    await socket.say(message(1, "Hi", "user"), message(2, "Hi", "user"));
    expect(contents(conversation)).toEqual(["Hi", "Hi"]);
    await socket.say({ type: "ACK", ref: "ref-1", id: "1", timestamp: "2026-01-01T00:00:01Z" });
    await socket.say({ type: "ACK", ref: "ref-2", id: "2", timestamp: "2026-01-01T00:00:01Z" });
    expect(statuses(conversation)).toEqual(["Hi: sent", "Hi: sent"]);
  });

  test("and refused says why, isn't sent again by itself, and can be tried again", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("Hello?");
    await socket.say({ type: "ERROR", ref: "ref-1", code: "blocked", message: "…" });
    expect(conversation.messages).toMatchObject([{ status: "failed", error: "blocked" }]);
    await socket.close(1006);
    await world.pass(125);
    const second = await world.open(2);
    expect(second.sent).toEqual([]);
    conversation.retry(conversation.messages[0]?.key ?? "");
    expect(second.sent).toMatchObject([{ content: "Hello?", ref: "ref-1" }]);
    expect(statuses(conversation)).toEqual(["Hello?: pending"]);
  });

  test("and can't be stored now is sent again a little later", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("Hello");
    await socket.say({ type: "ERROR", ref: "ref-1", code: "unavailable", message: "…" });
    expect(statuses(conversation)).toEqual(["Hello: pending"]);
    await world.pass(2_999);
    expect(socket.sent).toHaveLength(1);
    await world.pass(1);
    expect(socket.sent.map(({ ref }) => ref)).toEqual(["ref-1", "ref-1"]);
  });

  test("and can't be stored now isn't overtaken by later ones, also over a new socket", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("first");
    await socket.say({ type: "ERROR", ref: "ref-1", code: "unavailable", message: "…" });
    conversation.send("second");
    await world.pass(1_000);
    expect(socket.sent).toHaveLength(1);
    await socket.close(1006);
    await world.pass(125);
    const next = await world.open(2);
    conversation.send("third");
    expect(next.sent).toEqual([]);
    await world.pass(1_875);
    expect(next.sent.map(({ content }) => content)).toEqual(["first", "second", "third"]);
  });

  test("without an ACK for ten seconds has its socket replaced", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("Hello");
    await world.pass(9_999);
    expect(world.sockets).toHaveLength(1);
    await world.pass(1);
    const second = await world.open(2);
    expect(socket.closedWith).toBe(1000);
    expect(second.sent).toMatchObject([{ content: "Hello", ref: "ref-1" }]);
  });

  test("has its socket replaced only where nothing at all has been answered for ten seconds", async () => {
    const { world, conversation, socket } = await startVisitor();
    const ack = (n: number) => ({
      ...{ type: "ACK", ref: `ref-${n}`, id: String(n), timestamp: "2026-01-01T00:00:01Z" },
    });
    conversation.send("one");
    conversation.send("two");
    await world.pass(9_000);
    await socket.say(ack(1));
    await world.pass(9_999);
    await socket.say(ack(2));
    await world.pass(60_000);
    expect(world.sockets).toHaveLength(1);
  });

  test("with many others keeps to ten in a second, in their order", async () => {
    const { world, conversation, socket } = await startVisitor();
    for (let count = 1; count <= 25; count++) conversation.send(String(count));
    const acknowledge = () =>
      socket.say(
        ...socket.sent.map(({ ref }) => ({
          ...{ type: "ACK", ref, id: ref.slice(4), timestamp: "2026-01-01T00:00:01Z" },
        })),
      );
    const counts: number[] = [];
    for (let second = 0; second < 4; second++) {
      counts.push(socket.sent.length);
      await acknowledge();
      await world.pass(1_000);
    }
    expect(counts).toEqual([10, 20, 25, 25]);
    expect(socket.sent.map(({ content }) => Number(content))).toEqual(
      Array.from({ length: 25 }, (_, at) => at + 1),
    );
  });

  test("and too big for the server doesn't end every socket that follows", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("small");
    conversation.send("big".repeat(1_000));
    await socket.close(1009);
    await world.pass(125);
    const second = await world.open(2);
    expect(second.sent).toMatchObject([{ content: "small" }]);
    expect(conversation.messages[1]).toMatchObject({ status: "failed", error: "too_big" });
  });
});

describe("a message that has failed", () => {
  test("can be discarded, and isn't sent again; one that is on its way can't", async () => {
    const { world, conversation, socket } = await startVisitor();
    conversation.send("refused");
    conversation.send("pending");
    await socket.say({ type: "ERROR", ref: "ref-1", code: "blocked", message: "…" });
    for (const { key } of conversation.messages) conversation.discard(key);
    expect(statuses(conversation)).toEqual(["pending: pending"]);
    conversation.retry("ref-1");
    await socket.close(1006);
    await world.pass(125);
    expect((await world.open(2)).sent.map(({ ref }) => ref)).toEqual(["ref-2"]);
  });

  test("in one chat can be neither discarded nor tried again from another", async () => {
    const { client, conversation, socket } = await startVisitor();
    conversation.send("refused");
    await socket.say({ type: "ERROR", ref: "ref-1", code: "blocked", message: "…" });
    client.conversation("bob").discard("ref-1");
    client.conversation("bob").retry("ref-1");
    expect(statuses(conversation)).toEqual(["refused: failed"]);
  });
});

describe("a new socket", () => {
  test("that replaces another says so, once everything catches up; the first one doesn't", async () => {
    const { world, client, socket } = await startUser(message(1, "one"));
    const events: string[] = [];
    client.on("resumed", () => events.push(`resumed ${client.state.status}`));
    client.on("state", ({ status }) => events.push(status));
    expect(events).toEqual([]);
    await socket.close(1006);
    await world.pass(125);
    await world.open(2);
    await world.hint("online");
    await world.open(3);
    expect(events).toEqual(["waiting", "connecting", "open", "resumed open", "resumed open"]);
  });

  test("doesn't announce itself when it is the first, however late", async () => {
    const world = scriptedWorld();
    using client = createChatClient({ url: "https://chat.example", runtime: world.runtime });
    let count = 0;
    client.on("resumed", () => count++);
    await world.pass(0);
    await world.sockets[0]?.close(1006);
    await world.pass(125);
    await world.open(2);
    expect(count).toBe(0);
  });
});

test("a listener that throws keeps nothing from the others", async () => {
  const { world, client, conversation, socket } = await startUser();
  const seen: string[] = [];
  const failing = new Error("a listener's own");
  for (const name of ["change", "frame", "state", "down"] as const) {
    client.on(name, () => {
      throw failing;
    });
    client.on(name, () => seen.push(name));
  }
  await socket.say(message(1, "one"));
  await socket.close(1006);
  expect(seen).toEqual(["change", "frame", "down", "state"]);
  expect(new Set(world.errors)).toEqual(new Set([failing]));
  expect(contents(conversation)).toEqual(["one"]);
});

test("a client that was disposed of stays so, whatever is called", async () => {
  const { world, client, conversation, socket } = await startUser(message(1, "one"));
  client.dispose();
  const requests = world.requests.length;
  client.retry();
  conversation.send("late");
  conversation.markRead();
  client.conversation("CCCCCCCCCCCCCCCCCCCCCA");
  await expect(client.chats()).rejects.toMatchObject({ code: 0, reason: "disposed" });
  await expect(conversation.loadOlder()).rejects.toMatchObject({ reason: "disposed" });
  await world.pass(120_000);
  expect([world.sockets.length, world.requests.length, socket.sent]).toEqual([1, requests, []]);
  expect([client.state.status, world.leftovers]).toEqual(["closed", 0]);
});

test("that one writes is said every three seconds at most, for each chat, and while there is a socket", async () => {
  const { world, client, conversation, socket } = await startVisitor();
  for (let n = 0; n < 7; n++) {
    conversation.typing();
    await world.pass(1_000);
  }
  expect(socket.sent).toEqual(Array(3).fill({ type: "TYPING", to: "alice" }));
  client.conversation("bob").typing();
  expect(socket.sent.at(-1)).toEqual({ type: "TYPING", to: "bob" });
  await socket.close(1006);
  client.conversation("bob").typing();
  await world.pass(125);
  expect((await world.open(2)).sent).toEqual([]);
});

test("a message that waits to be sent isn't taken for the same words from another tab", async () => {
  const { conversation, socket } = await startVisitor();
  for (let n = 0; n < 10; n++) conversation.send(`${n}`);
  conversation.send("Hello");
  expect(socket.sent).toHaveLength(10);
  await socket.say(message(1, "Hello", "visitor"));
  const shown = conversation.messages.filter(({ content }) => content === "Hello");
  expect(shown.map(({ status }) => status)).toEqual(["sent", "pending"]);
});

describe("reading", () => {
  test("of a visitor in another tab is known here, in that chat alone", async () => {
    const { client, conversation, socket } = await startVisitor();
    const bob = client.conversation("bob");
    await socket.say(message(1, "a", "user"), { ...message(2, "b", "user"), from: "bob" });
    await socket.say({ type: "READ", chatId: VISITOR, user: "bob", by: VISITOR, upTo: "2" });
    expect([conversation.unread, bob.unread]).toEqual([1, 0]);
  });

  test("is sent once, with the user in a visitor's mark, whose chat id is the same for all", async () => {
    const { conversation, socket } = await startVisitor();
    await socket.say(message(1, "Hello", "user"), message(2, "Anybody there?", "user"));
    expect(conversation.unread).toBe(2);
    conversation.markRead();
    conversation.markRead();
    expect(conversation.unread).toBe(0);
    expect(socket.sent).toEqual([{ type: "MARK_AS_READ", chatId: VISITOR, to: "alice" }]);
  });

  test("isn't sent before what was missed is there, which may have been read elsewhere", async () => {
    const { world, conversation, socket } = await startUser(message(1, "one"));
    conversation.markRead();
    expect(socket.sent).toHaveLength(1);
    const slow = Promise.withResolvers<Response>();
    world.answer = ({ path }) => (path.includes("/messages?") ? slow.promise : undefined);
    await socket.close(1006);
    await world.pass(125);
    const second = await world.open(2);
    await second.say(message(3, "three"));
    conversation.markRead();
    expect(second.sent).toEqual([]);
    expect(conversation.unread).toBe(1);
    slow.resolve(page([message(2, "two"), message(3, "three")], { user: "1" }));
    await world.settle();
    expect(conversation.unread).toBe(2);
    conversation.markRead();
    expect(second.sent).toEqual([{ type: "MARK_AS_READ", chatId: VISITOR }]);
  });

  test("never goes back, whatever comes late", async () => {
    const read = (upTo: number) => ({
      ...{ type: "READ", chatId: VISITOR, user: "alice", by: "alice", upTo: String(upTo) },
    });
    const { conversation, socket } = await startUser(message(1, "one"), message(2, "two"));
    await socket.say(read(2), read(1));
    expect(conversation.unread).toBe(0);
  });

  test("in another tab is known here", async () => {
    const { conversation, socket } = await startUser(message(1, "Hello"));
    expect(conversation.unread).toBe(1);
    await socket.say({ type: "READ", chatId: VISITOR, user: "alice", by: "alice", upTo: "1" });
    expect(conversation.unread).toBe(0);
    conversation.markRead();
    expect(socket.sent).toEqual([]);
  });

  test("is part of the pages of messages, too", async () => {
    const world = scriptedWorld();
    world.answer = (request) =>
      request.path.includes("/messages?")
        ? page([message(1, "a", "user"), message(2, "b", "user")], { visitor: "1" })
        : listed(request);
    const client = createChatClient({
      url: "https://chat.example",
      runtime: world.runtime,
      getToken: "jwt",
    });
    const conversation = client.conversation(VISITOR);
    await world.open(1);
    expect(statuses(conversation)).toEqual(["a: read", "b: sent"]);
  });
});

describe("a user's requests", () => {
  test("have the token in the header, and the partner as one segment of the path", async () => {
    const { world, client } = await startUser();
    world.answer = ({ method }) =>
      method === "GET" ? undefined : new Response(null, { status: 204 });
    await client.setBlocked(VISITOR, true);
    await client.setBlocked(VISITOR, false);
    await client.remove("a/b?c");
    await client.chats({ before: "7" });
    expect(
      world.requests
        .slice(-4)
        .map(({ method, path, authorization }) => [method, path, authorization]),
    ).toEqual([
      ["PUT", `/api/chats/${VISITOR}/block`, "Bearer jwt"],
      ["DELETE", `/api/chats/${VISITOR}/block`, "Bearer jwt"],
      ["DELETE", "/api/chats/a%2Fb%3Fc", "Bearer jwt"],
      ["GET", "/api/chats?limit=200&before=7", "Bearer jwt"],
    ]);
  });

  test("reject with the status and the code of the refusal", async () => {
    const { world, client } = await startUser();
    world.answer = () => problem(404, "not_found");
    await expect(client.remove(VISITOR)).rejects.toMatchObject({ code: 404, reason: "not_found" });
  });

  test("without an answer reject after ten seconds", async () => {
    const { world, client } = await startUser();
    world.answer = () => new Promise(() => {});
    const listing = client.chats();
    listing.catch(() => {});
    await world.pass(10_000);
    await expect(listing).rejects.toMatchObject({ code: 0 });
  });
});

test("a removed listener isn't called any more", async () => {
  const { client, socket } = await startUser();
  const frames: string[] = [];
  const stop = client.on("frame", ({ type }) => frames.push(type));
  await socket.say(message(1, "one"));
  stop();
  await socket.say(message(2, "two"));
  expect(frames).toEqual(["ANON_TO_USER"]);
});
