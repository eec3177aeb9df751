import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { MAX_UNANSWERED } from "../../src/chat/history.ts";
import { visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Frame, TestSocket } from "../support/socket.ts";

let server: TestServer;
let users = 0;
let refs = 0;

beforeAll(() => {
  server = startServer({ limits: { messagesPerSecond: 0 } });
});
afterAll(() => server[Symbol.asyncDispose]());

function newUser(): string {
  return `user ${++users}`;
}

/** The response to a message, without its ref. */
async function responseTo(socket: TestSocket, type: string, to: string): Promise<Frame> {
  const ref = `ref ${++refs}`;
  socket.send({ type, to, content: "Hello", ref });
  const { ref: _, ...response } = await socket.next((frame) => frame.ref === ref);
  return response;
}

const writeTo = (socket: TestSocket, user: string) => responseTo(socket, "ANON_TO_USER", user);

describe(`a visitor with ${MAX_UNANSWERED} unanswered recipients`, () => {
  const tooMany = { type: "ERROR", code: "too_many_recipients", message: expect.any(String) };

  async function reachLimit() {
    const cookie = await server.visitorCookie();
    const socket = await server.openVisitor(cookie);
    const recipients = Array.from({ length: MAX_UNANSWERED }, newUser);
    for (const user of recipients) {
      expect(await writeTo(socket, user)).toMatchObject({ type: "ACK" });
    }
    return { cookie, socket, recipients, visitor: visitorIdOf(cookie) };
  }

  test("gets the same error for a connected user, for one who was here before, and for nobody", async () => {
    const known = newUser();
    await using connected = await server.openUser(known);
    const past = newUser();
    await (await server.openUser(past))[Symbol.asyncDispose]();
    await server.ask("/api/chats", { user: past });
    const { socket } = await reachLimit();
    const errors: Frame[] = [];
    for (const user of [known, past, newUser()]) errors.push(await writeTo(socket, user));
    expect(errors[0]).toEqual(tooMany);
    expect(errors[1]).toEqual(errors[0] as Frame);
    expect(errors[2]).toEqual(errors[0] as Frame);
    expect(connected.frames).toEqual([]);
    expect((await server.ask("/api/chats", { user: known })).body.chats).toEqual([]);
  });

  test("has them whether they are connected or not", async () => {
    const cookie = await server.visitorCookie();
    await using socket = await server.openVisitor(cookie);
    for (let n = 0; n < MAX_UNANSWERED; n++) {
      const user = newUser();
      if (n % 2 === 0) {
        await using _connected = await server.openUser(user);
        expect(await writeTo(socket, user)).toMatchObject({ type: "ACK" });
      } else {
        expect(await writeTo(socket, user)).toMatchObject({ type: "ACK" });
      }
    }
    expect(await writeTo(socket, newUser())).toEqual(tooMany);
  });

  test("isn't helped by recipients who connect and read, but by one who answers", async () => {
    const { socket, recipients, visitor } = await reachLimit();
    const [user = ""] = recipients;
    await using recipient = await server.openUser(user);
    const read = { method: "POST", user };
    expect((await server.ask(`/api/chats/${visitor}/read`, read)).status).toBe(200);
    expect(await writeTo(socket, newUser())).toEqual(tooMany);
    const answer = await responseTo(recipient, "USER_TO_ANON", visitor);
    expect(answer).toMatchObject({ type: "ACK" });
    expect(await writeTo(socket, newUser())).toMatchObject({ type: "ACK" });
    expect(await writeTo(socket, newUser())).toEqual(tooMany);
  });

  test("isn't helped by another tab, a new socket, a deletion on either side, or a block", async () => {
    const { cookie, socket, recipients, visitor } = await reachLimit();
    const [one = "", two = "", three = ""] = recipients;
    const byVisitor = await server.ask(`/api/chats/${encodeURIComponent(one)}`, {
      ...{ method: "DELETE", cookie },
    });
    const byUser = await server.ask(`/api/chats/${visitor}`, { method: "DELETE", user: two });
    const block = { method: "PUT", user: three };
    const blocked = await server.ask(`/api/chats/${visitor}/block`, block);
    expect([byVisitor.status, byUser.status, blocked.status]).toEqual([204, 204, 204]);
    await using tab = await server.openVisitor(cookie);
    expect(await writeTo(tab, newUser())).toEqual(tooMany);
    await socket[Symbol.asyncDispose]();
    await using again = await server.openVisitor(cookie);
    expect(await writeTo(again, newUser())).toEqual(tooMany);
    expect(await writeTo(again, one)).toMatchObject({ type: "ACK" });
    expect(await writeTo(again, three)).toMatchObject({ code: "blocked" });
  });

  test("doesn't limit other visitors", async () => {
    await reachLimit();
    await using other = await server.openVisitor();
    expect(await writeTo(other, newUser())).toMatchObject({ type: "ACK" });
  });
});

test("a user can't write to a visitor after the chat was deleted on either side", async () => {
  for (const side of ["user", "visitor"] as const) {
    const user = newUser();
    const cookie = await server.visitorCookie();
    const visitor = visitorIdOf(cookie);
    await using visiting = await server.openVisitor(cookie);
    await using receiving = await server.openUser(user);
    const answer = () => responseTo(receiving, "USER_TO_ANON", visitor);
    const cold = await answer();
    expect(cold).toEqual({ type: "ERROR", code: "not_found", message: expect.any(String) });
    expect(await writeTo(visiting, user)).toMatchObject({ type: "ACK" });
    expect(await answer()).toMatchObject({ type: "ACK" });
    const asking = side === "user" ? { user } : { cookie };
    const partner = side === "user" ? visitor : encodeURIComponent(user);
    await server.ask(`/api/chats/${partner}`, { method: "DELETE", ...asking });
    expect(await answer()).toEqual(cold);
    expect(visiting.frames.filter(({ type }) => type === "USER_TO_ANON")).toHaveLength(1);
  }
});
