import { describe, expect, test } from "bun:test";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { startSite } from "../support/site.ts";
import type { TestServer } from "../support/server.ts";

/** Signs in to the inbox with these claims, and returns its cookie. */
async function signIn(site: TestServer, claims: Record<string, unknown>, user = "auth0|5f7c") {
  const token = await site.token(user, { claims });
  const { status, headers } = await site.ask("/inbox/api/session", {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
  });
  expect(status).toBe(204);
  return headers.get("set-cookie")?.split(";")[0] ?? "";
}

/** What the page for visitors shows of the user. */
async function shown(site: TestServer, { path = "/chat/auth0%7C5f7c", headers = {} } = {}) {
  const { text } = await site.ask(path, { headers });
  const read = (pattern: RegExp) => pattern.exec(text)?.[1];
  return {
    title: read(/<title>(.*?)<\/title>/s),
    heading: read(/<bdi>(.*?)<\/bdi>/s),
    name: read(/ data-name="(.*?)"/s),
    greeting: read(/ data-greeting="(.*?)"/s),
  };
}

const UNNAMED = {
  title: "Chat with auth0|5f7c",
  heading: "auth0|5f7c",
  name: "auth0|5f7c",
  greeting: undefined,
};

describe("a user's name and greeting", () => {
  test("are what the JWT says that the inbox was opened with, and the latest one", async () => {
    await using site = startSite();
    expect(await shown(site)).toEqual(UNNAMED);
    const cookie = await signIn(site, {
      name: " Alice Ample ",
      greeting: "Hello!\nI answer soon.",
    });
    expect(await shown(site)).toEqual({
      title: "Chat with Alice Ample",
      heading: "Alice Ample",
      name: "Alice Ample",
      greeting: "Hello!\nI answer soon.",
    });
    const me = await site.ask("/inbox/api/session", { cookie });
    expect(me.body).toMatchObject({ user: "auth0|5f7c", name: "Alice Ample" });
    await signIn(site, { name: "Alice A." });
    expect(await shown(site)).toMatchObject({ name: "Alice A.", greeting: undefined });
    await signIn(site, {});
    expect(await shown(site)).toEqual(UNNAMED);
  });

  test("are text wherever they stand", async () => {
    await using site = startSite();
    await signIn(site, { name: `"><script>alert(1)</script>`, greeting: `" onload="alert(1)` });
    const { text } = await site.ask("/chat/auth0%7C5f7c");
    expect(text).not.toContain("<script>alert");
    expect(text).not.toContain('" onload');
    expect(text).toContain("&lt;script&gt;alert(1)");
  });

  test.each<[string, Record<string, unknown>]>([
    ["a number", { name: 7, greeting: 7 }],
    ["an object", { name: { first: "Alice" }, greeting: ["Hello"] }],
    ["too long", { name: "x".repeat(101), greeting: "x".repeat(501) }],
    ["empty", { name: "", greeting: "" }],
    ["blank", { name: "  ", greeting: " \n " }],
    ["with control characters", { name: "Ali\u0000ce", greeting: "a\u001bb" }],
    ["of two lines", { name: "Alice\nAmple" }],
    ["half a character", { name: "\ud800", greeting: "\udc00" }],
    ["a property of every object", { __proto__: { name: "Mallory" } }],
  ])("are left out when they are %s, and keep nobody out", async (_, claims) => {
    await using site = startSite();
    await signIn(site, claims);
    expect(await shown(site)).toEqual(UNNAMED);
  });

  test("that can't be stored or read keep nobody out", async () => {
    const failing = () => Promise.reject(new Error("canary-7f3a"));
    const history = {
      ...sqliteChatHistory({ path: ":memory:" }),
      profile: failing,
      setProfile: failing,
    };
    await using site = startSite({ history });
    const cookie = await signIn(site, { name: "Alice" });
    const me = await site.ask("/inbox/api/session", { cookie });
    expect(me.body).toEqual({ user: "auth0|5f7c", expiresInSeconds: 3600 });
    expect(await shown(site)).toEqual(UNNAMED);
    expect(site.logLines.join("")).not.toContain("canary");
  });

  test("are looked up 600 times a minute for one address; then the id stands in their place", async () => {
    await using site = startSite({ trustProxy: 1 });
    await signIn(site, { name: "Alice" });
    const from = (address: string) => shown(site, { headers: { "X-Forwarded-For": address } });
    for (let at = 0; at < 600; at++) expect((await from("192.0.2.1")).name).toBe("Alice");
    expect((await from("192.0.2.1")).name).toBe("auth0|5f7c");
    expect((await from("192.0.2.2")).name).toBe("Alice");
  });

  test("aren't taken from a token that only mints tickets or reads chats", async () => {
    await using site = startSite();
    const headers = {
      Authorization: `Bearer ${await site.token("auth0|5f7c", { claims: { name: "Alice" } })}`,
    };
    await site.ask("/api/auth/ws-ticket", { method: "POST", headers });
    await site.ask("/api/chats", { headers });
    expect(await shown(site)).toEqual(UNNAMED);
  });
});
