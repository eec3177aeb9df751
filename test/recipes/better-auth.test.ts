import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Program, startProgram } from "./program.ts";

let app: Program;
beforeAll(async () => {
  app = await startProgram("better-auth", {
    environment: { BETTER_AUTH_SECRET: "a secret of better-auth, 32 bytes or more" },
  });
});
afterAll(() => app[Symbol.asyncDispose]());

/** A new session at better-auth: the user's id, and the cookie as `name=value`. */
async function signIn(
  name: string,
  { isNew = true } = {},
): Promise<{ id: string; cookie: string }> {
  const answer = await fetch(`${app.origin}/api/auth/${isNew ? "sign-up" : "sign-in"}/email`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Origin: app.origin },
    body: JSON.stringify({ name, email: `${name}@example.com`, password: "correct horse" }),
  });
  const { user } = (await answer.json()) as { user: { id: string } };
  return { id: user.id, cookie: answer.headers.get("set-cookie")?.split(";")[0] ?? "" };
}

const mint = (cookie: string) => app.ask("/api/gate/ws-ticket", { method: "POST", cookie });

test("a session of better-auth mints a ticket, and the socket opens as that user", async () => {
  const { cookie, id } = await signIn("alice");
  const { status, body } = await mint(cookie);
  expect({ status, expiresIn: body.expiresIn }).toEqual({ status: 200, expiresIn: 30 });
  await using socket = await app.openLive(body.ticket);
  socket.send("hello");
  expect(await socket.next()).toEqual({ from: id, text: "hello" });
});

test("better-auth's sign-out closes the socket and refuses unused tickets", async () => {
  const { cookie } = await signIn("bob");
  const [first, unused] = [await mint(cookie), await mint(cookie)];
  await using socket = await app.openLive(first.body.ticket);
  const signedOut = await app.ask("/api/auth/sign-out", { method: "POST", cookie });
  expect(signedOut.body).toMatchObject({ success: true });
  expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
  await expect(app.openLive(unused.body.ticket)).rejects.toThrow();
  expect((await mint(cookie)).body.code).toBe("token_missing");
});

test("better-auth's revocation of all sessions closes every socket of the user", async () => {
  const { cookie } = await signIn("carol");
  const { cookie: otherCookie } = await signIn("carol", { isNew: false });
  await using socket = await app.openLive((await mint(cookie)).body.ticket);
  await using other = await app.openLive((await mint(otherCookie)).body.ticket);
  await app.ask("/api/auth/revoke-sessions", { method: "POST", cookie });
  expect((await socket.closed).code).toBe(4500);
  expect((await other.closed).code).toBe(4500);
});

test("sign-out of one session leaves the user's other sockets open", async () => {
  const { cookie } = await signIn("dave");
  const { cookie: otherCookie } = await signIn("dave", { isNew: false });
  await using socket = await app.openLive((await mint(cookie)).body.ticket);
  await using other = await app.openLive((await mint(otherCookie)).body.ticket);
  await app.ask("/api/auth/sign-out", { method: "POST", cookie });
  expect((await socket.closed).code).toBe(4500);
  other.send("still here");
  expect(await other.next()).toMatchObject({ text: "still here" });
});

test("the gate's own sign-out ends what better-auth's session has opened", async () => {
  const { cookie } = await signIn("erin");
  await using socket = await app.openLive((await mint(cookie)).body.ticket);
  await app.ask("/api/gate/sign-out", { method: "POST", cookie });
  expect((await socket.closed).code).toBe(4500);
  expect((await mint(cookie)).body.code).toBe("token_invalid");
});

test("the routes of both answer, each below its own path", async () => {
  expect((await app.ask("/api/auth/ok")).body).toEqual({ ok: true });
  expect((await app.ask("/api/gate/anything")).body.code).toBe("not_found");
  expect((await mint("better-auth.session_token=invented")).body.code).toBe("token_missing");
});

test("a page of another origin mints nothing with the session's cookie", async () => {
  const { cookie } = await signIn("frank");
  const headers = { Origin: "https://elsewhere.example" };
  const refused = await app.ask("/api/gate/ws-ticket", { method: "POST", cookie, headers });
  expect(refused.body.code).toBe("origin_refused");
});
