import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { ChatHistory } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { newVisitorId, write } from "../support/chat.ts";
import { fakeClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Frame, TestSocket } from "../support/socket.ts";

/** Typing frames per person and minute. */
const PER_MINUTE = 60;

const clock = fakeClock();
let history: ChatHistory;
let server: TestServer;
/** A new chat for each test: the visitor has written to the user. */
let user: string;
let cookie: string;
let visitor: string;
let names = 0;

beforeAll(() => {
  history = sqliteChatHistory({ path: ":memory:", clock });
  server = startServer({ history, clock, limits: { messagesPerSecond: 0 } });
});
beforeEach(async () => {
  user = `user ${++names}`;
  cookie = await server.visitorCookie();
  visitor = visitorIdOf(cookie);
  await write(history, { user, visitor }, "Hello");
});
afterAll(() => server[Symbol.asyncDispose]());

/** Resolves when everything that the socket has sent before is done, and what others have sent is here. */
async function caughtUp(...sockets: TestSocket[]): Promise<void> {
  for (const socket of sockets) {
    const ref = crypto.randomUUID();
    socket.send({ type: "?", ref });
    await socket.next((frame) => frame.ref === ref);
  }
}

function typingIn({ frames }: TestSocket): Frame[] {
  return frames.filter(({ type }) => type === "TYPING");
}

describe("that somebody writes", () => {
  test("is shown to every socket of the partner, and to nobody else", async () => {
    const sockets = await Promise.all([
      ...[server.openVisitor(cookie), server.openVisitor(cookie)],
      ...[server.openUser(user), server.openUser(user)],
      ...[server.openVisitor(), server.openUser("somebody else")],
    ]);
    const [mira, miraToo, alice, aliceToo] = sockets as [TestSocket, ...TestSocket[]];
    mira.send({ type: "TYPING", to: user, from: "x", content: "secret" });
    await caughtUp(...sockets);
    const fromMira = [{ type: "TYPING", from: visitor }];
    expect(sockets.map(typingIn)).toEqual([[], [], fromMira, fromMira, [], []]);
    alice?.send({ type: "TYPING", to: visitor });
    await caughtUp(alice as TestSocket, ...sockets);
    const fromAlice = [{ type: "TYPING", from: user }];
    expect([mira, miraToo, alice, aliceToo].map((one) => typingIn(one as TestSocket))).toEqual([
      ...[fromAlice, fromAlice, fromMira, fromMira],
    ]);
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
  });

  test("arrives before the message that follows, gets no response, and is neither stored nor logged", async () => {
    await using mira = await server.openVisitor(cookie);
    await using alice = await server.openUser(user);
    const lines = server.logLines.length;
    mira.send({ type: "TYPING", to: user, ref: "typing" });
    mira.send({ type: "ANON_TO_USER", to: user, content: "two", ref: "message" });
    await alice.next(({ content }) => content === "two");
    expect(alice.frames.map(({ type }) => type)).toEqual(["TYPING", "ANON_TO_USER"]);
    await caughtUp(mira);
    expect(mira.frames.filter(({ ref }) => ref === "typing")).toEqual([]);
    expect(server.logLines.slice(lines).join("")).not.toContain("yping");
    const page = await history.messages({ user, visitor }, { limit: 10 });
    expect(page?.messages.map(({ content }) => content)).toEqual(["Hello", "two"]);
  });

  test("reaches nobody where a message wouldn't, and the sender finds out nothing", async () => {
    const strange = await server.visitorCookie();
    const stranger = visitorIdOf(strange);
    const blocked = { user: "a user who blocks", visitor };
    await write(history, blocked, "x");
    await history.setBlocked(blocked, true);
    const gone = { user: "a user who deletes", visitor };
    await write(history, gone, "x");
    await history.remove(gone);
    // Blocked, and the chat is gone: the visitor still is.
    const both = { user: "a user who does both", visitor };
    await write(history, both, "x");
    await history.setBlocked(both, true);
    await history.remove(both);
    const users = [user, blocked.user, gone.user, both.user];
    const mira = await server.openVisitor(cookie);
    const other = await server.openVisitor(strange);
    const sockets = await Promise.all(users.map((one) => server.openUser(one)));
    // A visitor who hasn't written to this user, and one whom the user doesn't want to read.
    for (const to of [user, "nobody", newVisitorId()]) other.send({ type: "TYPING", to });
    for (const to of users.slice(1)) mira.send({ type: "TYPING", to });
    await caughtUp(mira, other);
    // Users: to a visitor who hasn't written, to one that doesn't exist, to those above.
    for (const socket of sockets) socket.send({ type: "TYPING", to: stranger });
    sockets[0]?.send({ type: "TYPING", to: newVisitorId() });
    for (const socket of sockets.slice(1)) socket.send({ type: "TYPING", to: visitor });
    const all = [...sockets, mira, other];
    await caughtUp(...all, ...all);
    // Nothing but what `caughtUp` sends itself is answered.
    expect(all.flatMap(({ frames }) => frames.filter(({ code }) => code !== "malformed"))).toEqual(
      [],
    );
    for (const socket of all) await socket[Symbol.asyncDispose]();
  });

  test("is refused like a message where its recipient is no id", async () => {
    await using mira = await server.openVisitor(cookie);
    await using alice = await server.openUser(user);
    for (const [socket, to] of [
      [mira, "x".repeat(256)],
      [alice, "alice"],
      [alice, undefined],
    ] as const) {
      socket.send({ type: "TYPING", to });
      expect((await socket.next()).code).toBe("invalid_recipient");
    }
  });

  test("is shown 60 times a minute at most, over all sockets; what is beyond is dropped, and no message", async () => {
    const sockets = [await server.openVisitor(cookie), await server.openVisitor(cookie)] as const;
    await using alice = await server.openUser(user);
    for (let n = 0; n < PER_MINUTE + 10; n++) {
      sockets[n % 2 ? 1 : 0].send({ type: "TYPING", to: user });
    }
    await caughtUp(...sockets, alice);
    expect(typingIn(alice)).toHaveLength(PER_MINUTE);
    sockets[0].send({ type: "ANON_TO_USER", to: user, content: "two", ref: "r" });
    expect(await sockets[0].next(({ ref }) => ref === "r")).toMatchObject({ type: "ACK" });
    // Somebody else's share is their own.
    alice.send({ type: "TYPING", to: visitor });
    await caughtUp(alice, sockets[0]);
    expect(typingIn(sockets[0])).toHaveLength(1);
    clock.advance(1_000);
    for (let n = 0; n < 2; n++) sockets[0].send({ type: "TYPING", to: user });
    await caughtUp(sockets[0], alice);
    expect(typingIn(alice)).toHaveLength(PER_MINUTE + 1);
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
  });

  test("is dropped while the history fails, and the socket stays open", async () => {
    const failing: ChatHistory = { ...history, isOpen: () => Promise.reject(new Error("down")) };
    await using other = startServer({ history: { ...failing, close: async () => {} }, clock });
    await using mira = await other.openVisitor(cookie);
    mira.send({ type: "TYPING", to: user });
    await caughtUp(mira);
    expect(mira.frames).toHaveLength(1);
    expect(other.logLines.join("")).not.toContain("chat_failed");
  });

  test("counts like any frame towards the socket's own limit", async () => {
    await using other = startServer({ clock, limits: { messagesPerSecond: 5 } });
    await using mira = await other.openVisitor();
    for (let n = 0; n < 20; n++) mira.send({ type: "TYPING", to: user });
    expect((await mira.closed).code).toBe(4501);
  });
});
