import { afterAll, beforeAll, expect, test } from "bun:test";
import { openSocket } from "../support/socket.ts";
import { type Program, startProgram } from "./program.ts";

let app: Program;
beforeAll(async () => {
  app = await startProgram("bun-serve");
});
afterAll(() => app[Symbol.asyncDispose]());

test("a ticket opens a socket in your own Bun.serve, once", async () => {
  const ticket = await app.ticket("alice");
  await using socket = await app.openLive(ticket);
  socket.send("hello");
  expect(await socket.next()).toEqual({ from: "alice", text: "hello" });
  await expect(app.openLive(ticket)).rejects.toThrow();
});

test("a visitor's cookie opens a socket from a page of the same origin only", async () => {
  const Cookie = await app.visitorCookie();
  const url = `${app.origin.replace("http", "ws")}/live`;
  await using socket = openSocket(url, { Cookie, Origin: app.origin });
  await socket.opened;
  const foreign = openSocket(url, { Cookie, Origin: "https://elsewhere.example" });
  await expect(foreign.opened).rejects.toThrow();
});

test("sign-out closes the socket", async () => {
  const token = await app.token("bob");
  await using socket = await app.openLive(await app.ticketFor(token));
  expect(await app.signOut(token)).toBe(204);
  expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
});

test("the token's expiry closes the socket", async () => {
  await using socket = await app.openLive(await app.ticket("carol"));
  app.skipHour();
  expect(await socket.closed).toEqual({ code: 4001, reason: "Credential expired" });
});

test("the app answers every other path by itself", async () => {
  const { status, text, headers } = await app.ask("/anything?token=of-the-app");
  expect({ status, text }).toEqual({ status: 200, text: "Your app" });
  expect(headers.get("cache-control")).toBeNull();
});
