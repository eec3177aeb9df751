import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Program, startProgram } from "./program.ts";

let app: Program;
beforeAll(async () => {
  app = await startProgram("hono");
});
afterAll(() => app[Symbol.asyncDispose]());

test("a ticket opens a socket in a Hono app, once", async () => {
  const ticket = await app.ticket("alice");
  await using socket = await app.openLive(ticket);
  socket.send("hello");
  expect(await socket.next()).toEqual({ from: "alice", text: "hello" });
  await expect(app.openLive(ticket)).rejects.toThrow();
  expect(app.output).not.toContain("error");
});

test("sign-out closes the socket", async () => {
  const token = await app.token("bob");
  await using socket = await app.openLive(await app.ticketFor(token));
  expect(await app.signOut(token)).toBe(204);
  expect((await socket.closed).code).toBe(4500);
});

test("the gate answers below its base path, and the app answers the rest", async () => {
  const unknown = await app.ask("/api/auth/anything");
  expect(unknown.body).toMatchObject({ status: 404, code: "not_found" });
  expect((await app.ask("/")).text).toBe("Your app");
  expect((await app.ask("/anything")).text).toBe("404 Not Found");
});

test("a refused handshake is answered with the refusal", async () => {
  const { status, body } = await app.ask("/live");
  expect({ status, code: body.code }).toEqual({ status: 426, code: "upgrade_required" });
});
