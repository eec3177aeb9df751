import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startInstance, type TestInstance } from "../support/process.ts";
import { handshake, sendRaw } from "../support/raw.ts";

/** A server below /chat, where a page of its own is, too: the proxy forwards paths as they are. */
const PUBLIC = { PUBLIC_URL: "https://site.example/chat", TRUST_PROXY: "1" };
const ORIGIN = "https://site.example";

describe("PUBLIC_URL with a path", () => {
  let server: TestInstance;
  beforeAll(async () => {
    server = await startInstance(PUBLIC);
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("a user gets a ticket and a socket below it", async () => {
    const Authorization = `Bearer ${await server.token("alice")}`;
    const minted = await fetch(`${server.origin}/chat/api/auth/ws-ticket`, {
      method: "POST",
      headers: { Authorization, Origin: ORIGIN },
    });
    const { ticket } = (await minted.json()) as { ticket: string };
    const port = Number(new URL(server.origin).port);
    const opened = await sendRaw(
      port,
      handshake(`/chat/ws/chat?ticket=${ticket}`, { Origin: ORIGIN }),
    );
    expect(opened.status).toBe(101);
    const chats = await fetch(`${server.origin}/chat/api/chats`, { headers: { Authorization } });
    expect(await chats.json()).toEqual({ chats: [], more: false });
  });

  test("a visitor's cookie names the path, since its prefix permits no other Path than /", async () => {
    const issued = await fetch(`${server.origin}/chat/api/auth/anonymous-session`, {
      method: "POST",
      headers: { Origin: ORIGIN },
    });
    const cookie = issued.headers.get("set-cookie") ?? "";
    expect(cookie).toMatch(/^__Host-anonSessionId\.chat=v1\..*; Path=\/; .*; Secure$/);
    const port = Number(new URL(server.origin).port);
    const Cookie = cookie.split(";")[0] as string;
    const open = (one: string) =>
      sendRaw(port, handshake("/chat/ws/chat", { Origin: ORIGIN, Cookie: one }));
    expect((await open(Cookie)).status).toBe(101);
    // Of a server at the top of the same host.
    expect((await open(Cookie.replace(".chat", ""))).status).toBe(401);
  });

  test("the inbox's session begins and stays below it", async () => {
    const begun = await fetch(`${server.origin}/chat/inbox/api/session`, {
      method: "POST",
      redirect: "manual",
      headers: { Origin: ORIGIN },
      body: new URLSearchParams({ token: await server.token("alice") }),
    });
    expect([begun.status, begun.headers.get("location")]).toEqual([303, "/chat/inbox"]);
    const cookie = begun.headers.get("set-cookie") ?? "";
    expect(cookie).toStartWith("__Host-inboxSession.chat=v1.");
    const headers = { Cookie: cookie.split(";")[0] as string, "Sec-Fetch-Site": "same-origin" };
    const session = await fetch(`${server.origin}/chat/inbox/api/session`, { headers });
    expect(await session.json()).toMatchObject({ user: "alice" });
    const outside = await fetch(`${server.origin}/inbox/api/session`, { headers });
    expect(outside.status).toBe(404);
  });

  test.each([
    ["/chat", 200],
    ["/chat/", 200],
    ["/chat/inbox", 200],
    ["/chat/chat/alice", 200],
    ["/chat/client.js", 200],
    ["/chat/healthz", 200],
    ["/healthz", 200],
    ["/readyz", 200],
    ["/", 404],
    ["/inbox", 404],
    ["/chat/alice", 404],
    ["/client.js", 404],
    ["/api/auth/ws-ticket", 404],
    ["/ws/chat", 404],
    ["/chatter/inbox", 404],
    ["/CHAT/inbox", 404],
    ["/chat//inbox", 404],
    ["/chat/inbox/", 404],
  ])("answers %s with %i", async (path, status) => {
    const response = await fetch(`${server.origin}${path}`);
    expect(response.status).toBe(status);
    const links = (await response.text()).matchAll(/(?:href|src)="([^"#]+)/g);
    for (const [, link = ""] of links) {
      expect(link).toStartWith("/chat/");
      expect((await fetch(`${server.origin}${link}`)).status).toBe(200);
    }
  });
});
