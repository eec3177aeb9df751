import { describe, expect, test } from "bun:test";
import {
  type ChatClientOptions,
  createChatClient,
  createDrafts,
  createOutbox,
  type TextStorage,
} from "../../src/client/mod.ts";
import { createTestServer } from "../../src/testing.ts";
import { scriptedWorld } from "../support/client.ts";

const VISITOR = "AAAAAAAAAAAAAAAAAAAAAA";

/** A tab's storage with so much room, in UTF-16 code units. */
function tabStorage(room = Number.POSITIVE_INFINITY): TextStorage & { texts: Map<string, string> } {
  const texts = new Map<string, string>();
  return {
    texts,
    getItem: (key) => texts.get(key) ?? null,
    setItem(key, text) {
      if (text.length > room) throw new DOMException("", "QuotaExceededError");
      texts.set(key, text);
    },
    removeItem: (key) => void texts.delete(key),
  };
}

/** A page of the visitor's, with the chat with alice open; the next one with the same storage is its reload. */
function openPage(
  storage: TextStorage,
  options: ChatClientOptions & { owner?: string; laterMs?: number } = {},
) {
  const world = scriptedWorld();
  const { owner = "visitor", laterMs = 0, ...rest } = options;
  // Refs are never the same twice, whichever page makes them.
  let refs = 0;
  const page = crypto.randomUUID();
  const client = createChatClient({
    url: "https://chat.example",
    runtime: { ...world.runtime, newRef: () => `${page}-${++refs}` },
    outbox: createOutbox({
      owner,
      storage,
      runtime: { nowMs: () => world.runtime.nowMs() + laterMs },
    }),
    ...rest,
  });
  const conversation = client.conversation("alice");
  const shown = () => conversation.messages.map(({ content, status }) => `${content}: ${status}`);
  return { world, client, conversation, shown };
}

const ack = (ref: string, id: number) => ({
  ...{ type: "ACK", ref, id: String(id), timestamp: "2026-01-01T00:00:01Z" },
});

describe("messages that the server hasn't acknowledged", () => {
  test("are sent after a reload, in their order and under the same refs, whether they had left or not", async () => {
    const storage = tabStorage();
    const before = openPage(storage);
    before.conversation.send("one", { nickname: "Vis" });
    const socket = await before.world.open(1);
    before.conversation.send("two");
    const refs = socket.sent.map(({ ref }) => ref);
    await socket.close(1006);
    before.conversation.send("three");
    // A page that is reloaded says no goodbye.

    const after = openPage(storage);
    expect(after.shown()).toEqual(["one: pending", "two: pending", "three: pending"]);
    const next = await after.world.open(1);
    expect(next.sent).toMatchObject([
      { to: "alice", content: "one", nickname: "Vis", ref: refs[0] },
      { content: "two", ref: refs[1] },
      { content: "three" },
    ]);
    await next.say(...next.sent.map(({ ref }, at) => ack(ref, at + 1)));
    expect(after.shown()).toEqual(["one: sent", "two: sent", "three: sent"]);
    expect(storage.texts.size).toBe(0);
  });

  test("are sent although nobody opens their chat again", async () => {
    const storage = tabStorage();
    openPage(storage).client.conversation("bob").send("to bob");
    const { world, conversation } = openPage(storage);
    expect(conversation.messages).toEqual([]);
    expect((await world.open(1)).sent).toMatchObject([{ to: "bob", content: "to bob" }]);
  });

  test("outlive an expired session, and go out when the same user has signed in again", async () => {
    const storage = tabStorage();
    const options = { owner: "alice", getToken: "jwt" };
    const before = openPage(storage, options);
    await before.world.open(1);
    await before.world.sockets[0]?.close(4500, "Signed out");
    before.client.conversation(VISITOR).send("an answer");
    before.client.dispose();
    const after = openPage(storage, options);
    expect((await after.world.open(1)).sent).toMatchObject([{ to: VISITOR, content: "an answer" }]);
  });

  test("are never sent as somebody else, and are gone once they are cleared", async () => {
    const storage = tabStorage();
    const getToken = "jwt";
    openPage(storage, { owner: "alice", getToken }).client.conversation(VISITOR).send("alice's");
    const other = openPage(storage, { owner: "bob", getToken });
    expect((await other.world.open(1)).sent).toEqual([]);
    createOutbox({ owner: "alice", storage }).clear();
    const again = openPage(storage, { owner: "alice", getToken });
    expect((await again.world.open(1)).sent).toEqual([]);
  });

  test("and were refused stay so, until they are tried again or discarded", async () => {
    const storage = tabStorage();
    const before = openPage(storage);
    const socket = await before.world.open(1);
    for (const content of ["one", "two"]) before.conversation.send(content);
    const [first, second] = socket.sent;
    for (const { ref } of socket.sent) {
      await socket.say({ type: "ERROR", ref, code: "too_many_messages", message: "…" });
    }
    const after = openPage(storage);
    const next = await after.world.open(1);
    expect([after.shown(), next.sent]).toEqual([["one: failed", "two: failed"], []]);
    expect(after.conversation.messages[0]?.error).toBe("too_many_messages");
    after.conversation.discard(second?.ref);
    after.conversation.retry(first?.ref);
    expect(next.sent).toMatchObject([{ content: "one", ref: first?.ref }]);
    await next.say(ack(first?.ref, 1));
    expect(storage.texts.size).toBe(0);
  });

  test("and were stored before the reload are shown once, before the ACK and after it", async () => {
    const storage = tabStorage();
    const before = openPage(storage);
    const socket = await before.world.open(1);
    // More than are sent at once, so that the last one waits when the page arrives.
    for (let count = 1; count <= 11; count++) before.conversation.send(`Hello ${count}`);
    await before.world.pass(1_000);
    const refs = socket.sent.map(({ ref }) => ref);
    const after = openPage(storage);
    after.world.answer = ({ path }) => {
      if (path.startsWith("/api/chats?")) {
        return Response.json({ chats: [{ peer: "alice" }], more: false });
      }
      if (!path.includes("/messages?")) return undefined;
      const stored = {
        ...{ type: "ANON_TO_USER", id: "7", from: VISITOR, to: "alice", content: "Hello 11" },
        ...{ timestamp: "2026-01-01T00:00:00.000Z", chatId: VISITOR },
      };
      const readUpTo = { user: "0", visitor: "0" };
      return Response.json({ messages: [stored], readUpTo, more: false });
    };
    const next = await after.world.open(1);
    expect(next.sent).toHaveLength(10);
    expect(after.shown().filter((text) => text.startsWith("Hello 11"))).toEqual(["Hello 11: sent"]);
    await after.world.pass(1_000);
    await next.say(ack(refs[10], 7));
    expect(after.shown().filter((text) => text.startsWith("Hello 11"))).toEqual(["Hello 11: sent"]);
  });

  test("for 40 hours aren't sent by themselves any more: the server may no longer recognise their refs", async () => {
    const storage = tabStorage();
    openPage(storage).conversation.send("old");
    const laterMs = 40 * 3_600_000;
    const before = openPage(storage, { laterMs: laterMs - 1 });
    expect((await before.world.open(1)).sent).toHaveLength(1);
    const after = openPage(storage, { laterMs });
    expect((await after.world.open(1)).sent).toEqual([]);
    expect(after.conversation.messages).toMatchObject([{ status: "failed", error: "too_old" }]);
  });

  test("are kept as long as there is room, the oldest first, and are all sent in this page", async () => {
    const storage = tabStorage();
    const before = openPage(storage);
    for (let count = 0; count < 100; count++)
      before.conversation.send(`${count} ${"x".repeat(3_900)}`);
    expect([...storage.texts.values()].join().length).toBeLessThan(270_000);
    const after = openPage(storage);
    const kept = after.conversation.messages.map(({ content }) => Number.parseInt(content, 10));
    expect(kept.length).toBeGreaterThan(50);
    expect(kept).toEqual(Array.from({ length: kept.length }, (_, at) => at));
    expect(before.conversation.messages).toHaveLength(100);
  });

  test.each<[string, () => TextStorage]>([
    ["is full", () => tabStorage(10)],
    [
      "is blocked",
      () => ({
        ...tabStorage(),
        getItem() {
          throw new DOMException("", "SecurityError");
        },
        setItem() {
          throw new DOMException("", "SecurityError");
        },
      }),
    ],
  ])("are sent all the same where the storage %s", async (_, open) => {
    const { world, conversation } = openPage(open());
    conversation.send("Hello");
    expect((await world.open(1)).sent).toMatchObject([{ content: "Hello" }]);
  });

  test.each(["{", "null", "7", '{"peer":"alice"}', '[null,7,{},{"peer":"alice","message":null}]'])(
    "are none where the storage holds something else: %s",
    async (text) => {
      const storage = tabStorage();
      storage.setItem("ws-ticket:outbox:visitor", text);
      storage.setItem("ws-ticket:drafts:visitor", text);
      const { world } = openPage(storage);
      expect((await world.open(1)).sent).toEqual([]);
      expect(createDrafts({ owner: "visitor", storage }).get("alice")).toBe("");
    },
  );

  test("reach the server once, when the page is reloaded between a message and its ACK", async () => {
    await using server = await createTestServer();
    const visitor = await server.connectVisitor();
    visitor.send(JSON.stringify({ type: "ANON_TO_USER", to: "alice", content: "Hi", ref: "1" }));
    const { id: first } = JSON.parse(await visitor.next());
    const storage = tabStorage();
    const token = await server.token("alice");
    const id = /"chatId":"([^"]+)"/.exec(await visitor.next())?.[1] ?? "";
    /** Sends once it is open, and resolves when the message has come back; the ACK is lost with the page. */
    const open = (isReloaded: boolean, content: string) =>
      new Promise<void>((resolve) => {
        const client = createChatClient({
          url: server.url,
          getToken: token,
          outbox: createOutbox({ owner: "alice", storage }),
          runtime: isReloaded
            ? {}
            : {
                openSocket(url) {
                  const socket = new WebSocket(url) as never as { onmessage: unknown };
                  return Object.defineProperty(socket, "onmessage", { set() {} }) as never;
                },
              },
        });
        const conversation = client.conversation(id);
        if (content) conversation.send(content);
        client.on("frame", ({ type }) => {
          if (type !== "ACK") return;
          client.dispose();
          resolve();
        });
        if (!isReloaded) {
          void visitor.next().then(() => {
            client.dispose();
            resolve();
          });
        }
      });
    await open(false, "only once");
    expect(storage.texts.size).toBe(1);
    await open(true, "");
    expect(storage.texts.size).toBe(0);
    const response = await fetch(`${server.url}/api/chats/${id}/messages?after=${first}`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    const { messages } = (await response.json()) as { messages: { content: string }[] };
    expect(messages.map(({ content }) => content)).toEqual(["only once"]);
  });
});

describe("half-written texts", () => {
  test("outlive a reload, each with its chat, until they are emptied or cleared", () => {
    const storage = tabStorage();
    const drafts = createDrafts({ owner: "alice", storage });
    drafts.set("a", "to a");
    drafts.set("b", "to b");
    drafts.set("a", "to a, too");
    const after = createDrafts({ owner: "alice", storage });
    expect([after.get("a"), after.get("b"), after.get("c")]).toEqual(["to a, too", "to b", ""]);
    expect(createDrafts({ owner: "bob", storage }).get("a")).toBe("");
    after.set("a", "");
    expect(createDrafts({ owner: "alice", storage }).get("a")).toBe("");
    after.clear();
    expect([after.get("b"), storage.texts.size]).toEqual(["", 0]);
  });

  test("make room for newer ones, the oldest first; the one being written always stays", () => {
    const storage = tabStorage();
    const drafts = createDrafts({ owner: "alice", storage });
    drafts.set("first", "x".repeat(30_000));
    drafts.set("second", "x".repeat(30_000));
    drafts.set("first", "y".repeat(30_000));
    drafts.set("third", "z".repeat(10_000));
    expect(["first", "second", "third"].map((peer) => drafts.get(peer)[0])).toEqual([
      ...["y", undefined, "z"],
    ] as never);
    drafts.set("huge", "h".repeat(100_000));
    expect(createDrafts({ owner: "alice", storage }).get("huge")).toHaveLength(100_000);
  });

  test("are kept in the tab's own storage by default, and in none where there is none", () => {
    const storage = tabStorage();
    Reflect.set(globalThis, "sessionStorage", storage);
    createDrafts({ owner: "alice" }).set("a", "kept");
    expect(storage.texts.size).toBe(1);
    Reflect.deleteProperty(globalThis, "sessionStorage");
    const drafts = createDrafts({ owner: "alice" });
    drafts.set("a", "in memory");
    expect(drafts.get("a")).toBe("in memory");
  });
});
