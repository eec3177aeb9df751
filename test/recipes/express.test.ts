import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { handshake, openRaw } from "../support/raw.ts";
import { describeOnNode, type Program, startProgram } from "./program.ts";

/** Enough that one of them meets the server in the middle of a handshake. */
const RESETS = 100;

describeOnNode("Express and ws on Node", () => {
  let app: Program;
  beforeAll(async () => {
    app = await startProgram("express", { runtime: "node", external: ["express", "ws"] });
  });
  afterAll(() => app[Symbol.asyncDispose]());

  test("a ticket opens a socket, once", async () => {
    const ticket = await app.ticket("alice");
    await using socket = await app.openLive(ticket);
    socket.send("hello");
    expect(await socket.next()).toEqual({ from: "alice", text: "hello" });
    await expect(app.openLive(ticket)).rejects.toThrow();
  });

  test("sign-out closes the socket, everywhere if the body says so", async () => {
    const [token, other] = await Promise.all(
      ["one", "two"].map((sid) => app.token("bob", { claims: { sid, iat: now() } })),
    );
    await using socket = await app.openLive(await app.ticketFor(token as string));
    await using otherSocket = await app.openLive(await app.ticketFor(other as string));
    expect(await app.signOut(token as string)).toBe(204);
    expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
    const everywhere = await fetch(`${app.origin}/api/auth/sign-out`, {
      method: "POST",
      headers: { Authorization: `Bearer ${other}`, "Content-Type": "application/json" },
      body: JSON.stringify({ everywhere: true }),
    });
    expect(everywhere.status).toBe(204);
    expect((await otherSocket.closed).code).toBe(4500);
  });

  test("the token's expiry closes the socket", async () => {
    await using socket = await app.openLive(await app.ticket("carol"));
    app.skipHour();
    expect(await socket.closed).toEqual({ code: 4001, reason: "Credential expired" });
  });

  test("a refused handshake is answered with the refusal, and the connection ends", async () => {
    using connection = await openRaw(portOf(app));
    connection.write(handshake("/live?ticket=wrong"));
    const answer = await connection.closed;
    expect(answer).toStartWith("HTTP/1.1 401 Unauthorized\r\n");
    expect(answer).toMatch(/\r\nConnection: close\r\n/i);
    expect(answer).toContain('"code":"ticket_refused"');
  });

  test("a Host that makes no URL, resets and oversized messages leave the server running", async () => {
    for (const Host of ["a b", "[", "x:y:z"]) {
      using connection = await openRaw(portOf(app));
      connection.write(handshake("/live", { Host }));
      expect(await connection.closed).toBe("");
    }
    await Promise.all(
      Array.from({ length: RESETS }, () => reset(app, handshake("/live?ticket=x"))),
    );
    await using socket = await app.openLive(await app.ticket("dave"));
    socket.send("x".repeat(20_000));
    expect((await socket.closed).code).toBe(1009);
    expect((await app.ask("/")).text).toBe("Your app");
  });

  test("the gate answers below its base path, and the app answers the rest", async () => {
    const { status, body, headers } = await app.ask("/api/auth/anything");
    expect({ status, code: body.code }).toEqual({ status: 404, code: "not_found" });
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect((await app.ask("/anything")).status).toBe(404);
  });
});

function portOf({ origin }: Program): number {
  return Number(new URL(origin).port);
}

/** Sends a request and resets the connection at once. */
function reset(app: Program, request: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(portOf(app), "127.0.0.1");
    socket.on("close", () => resolve());
    socket.write(request, () => socket.resetAndDestroy());
  });
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}
