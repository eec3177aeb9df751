import { describe, expect, test } from "bun:test";
import { createPages } from "../../src/page/pages.ts";
import { visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer, type TestServerOptions } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";

const SHOP = "https://shop.example";
const BLOG = "https://blog.example:8443";
const EVIL = "https://evil.example";
const SESSION = "/embed/api/auth/anonymous-session";
const CHATS = "/embed/api/chats";

function startEmbedded(options: TestServerOptions = {}): TestServer {
  const pages = createPages({ demo: false, embedOrigins: [SHOP, BLOG] });
  return startServer({ embedded: true, pages, ...options });
}

/** The path of the frame for a page of `host`'s. */
function frame(host: string, rest = ""): string {
  return `/embed/alice?host=${encodeURIComponent(host)}${rest}`;
}

/** What a response's policy says about frames. */
function ancestors(headers: Headers): string | undefined {
  return /frame-ancestors ([^;]*)/.exec(headers.get("content-security-policy") ?? "")?.[1];
}

/** `name=value` of the cookie that a new visitor gets in a frame. */
async function embedCookie(server: TestServer, cookie = ""): Promise<string> {
  const { status, headers } = await server.ask(SESSION, { method: "POST", cookie });
  expect(status).toBe(204);
  return headers.get("set-cookie")?.split(";")[0] ?? "";
}

/** What comes of a handshake in a frame: `open`, or the code of its refusal in the log. */
async function knock(server: TestServer, headers: Record<string, string>): Promise<string> {
  const url = `${server.origin.replace("http", "ws")}/embed/ws/chat`;
  const socket = openSocket(url, { Origin: server.origin, ...headers });
  try {
    await socket.opened;
    await socket[Symbol.asyncDispose]();
    return "open";
  } catch {
    return /"code":"(\w+)"/.exec(server.logLines.at(-1) ?? "")?.[1] ?? "";
  }
}

describe("the page in a frame", () => {
  test("may be framed by the one page that it says it is on, where that is allowed", async () => {
    await using server = startEmbedded();
    for (const host of [SHOP, BLOG]) {
      const { status, headers, text } = await server.ask(frame(host));
      expect([status, ancestors(headers)]).toEqual([200, host]);
      expect(text).toContain(`data-embed="${host}"`);
    }
  });

  test.each([
    ["a page that isn't allowed", frame(EVIL)],
    ["no page", "/embed/alice"],
    ["a longer origin", frame(`${SHOP}.evil.example`)],
    ["an origin with a slash", frame(`${SHOP}/`)],
    ["two origins", frame(`${SHOP} ${EVIL}`)],
    ["a pattern", frame("https://*.example")],
    ["the second of two", `${frame(EVIL)}&host=${encodeURIComponent(SHOP)}`],
    ["a user who can't exist", `/embed/%00?host=${encodeURIComponent(SHOP)}`],
  ])("isn't there for %s", async (_, path) => {
    await using server = startEmbedded();
    const { status, headers } = await server.ask(path, { headers: { Accept: "text/html" } });
    expect([status, ancestors(headers)]).toEqual([404, "'none'"]);
  });

  test("is nowhere unless it was configured", async () => {
    await using server = startServer({ pages: createPages({ demo: false }) });
    const headers = { Accept: "text/html" };
    // To a browser what isn't there is a page, too, and nothing else is.
    for (const [path, status] of [
      ["/nowhere", 404],
      ["/", 200],
      ["/healthz", 200],
    ] as const) {
      expect([path, (await server.ask(path, { headers })).status]).toEqual([path, status]);
    }
    for (const path of [frame(SHOP), "/embed.js", SESSION, CHATS]) {
      expect([path, (await server.ask(path)).status]).toEqual([path, 404]);
    }
    expect((await server.ask("/inbox")).text).not.toContain("data-embeds");
  });

  test("is the only one that may be framed", async () => {
    await using server = startEmbedded({
      adminToken: "an-admin-token-of-the-tests-own-0123456789",
    });
    const paths = ["/", "/chat/alice", "/inbox", "/inbox/x", "/embed.js", "/client.js", "/healthz"];
    const others = [CHATS, SESSION, "/nothing", "/embed/a/b", "/embed", "/inbox/api/session"];
    for (const path of [...paths, ...others]) {
      const query = `?host=${encodeURIComponent(SHOP)}`;
      const { headers } = await server.ask(path + query, { headers: { Accept: "text/html" } });
      expect([path, ancestors(headers)]).toEqual([path, "'none'"]);
    }
  });

  test.each([
    ["de", true],
    ["de-AT", true],
    ["zh-Hant-TW", true],
    ['"><script>', false],
    ["d", false],
    ["de-", false],
  ])("takes %p as a language: %p", async (language, isOne) => {
    await using server = startEmbedded();
    const { text } = await server.ask(frame(SHOP, `&lang=${encodeURIComponent(language)}`));
    expect(text.includes(`data-lang="${language}"`)).toBe(isOne);
    expect(/data-lang/.test(text)).toBe(isOne);
    expect(text).not.toContain("<script>");
  });
});

describe("embed.js", () => {
  test("is a script of at most 3 KB gzipped, without a global of its own, that any site may load", async () => {
    await using server = startEmbedded();
    const { status, headers, text } = await server.ask("/embed.js");
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("text/javascript; charset=utf-8");
    expect(headers.get("cross-origin-resource-policy")).toBe("cross-origin");
    expect(headers.get("cache-control")).toBe("public, max-age=600");
    expect(Bun.gzipSync(text, { level: 9 }).length).toBeLessThanOrEqual(3 * 1024);
    expect(text).toMatch(/^\(\(\)=>\{.*\}\)\(\);?\s*$/s);
    expect((await server.ask("/chat/alice")).headers.get("cross-origin-resource-policy")).toBe(
      "same-origin",
    );
  });
});

describe("the cookie in a frame", () => {
  test("opens sockets and lists chats as a visitor of its own", async () => {
    await using server = startEmbedded();
    const cookie = await embedCookie(server);
    expect(cookie).toStartWith("embedSessionId=v1.");
    expect(await knock(server, { Cookie: cookie })).toBe("open");
    expect(server.logLines.join("")).toContain(`"visitor":"${visitorIdOf(cookie)}"`);
    expect((await server.ask(CHATS, { cookie })).body).toEqual({ chats: [], more: false });
    expect((await server.ask(SESSION, { cookie })).body).toEqual({ known: true });
    expect(visitorIdOf(await embedCookie(server, cookie))).toBe(visitorIdOf(cookie));
  });

  test("over https goes to frames on other sites, one for each", async () => {
    const publicUrl = "https://chat.example";
    await using server = startEmbedded({ publicUrl });
    const { headers } = await server.ask(SESSION, {
      method: "POST",
      headers: { Origin: publicUrl },
    });
    expect(headers.get("set-cookie")).toMatch(
      /^__Host-embedSessionId=.*; SameSite=None; Secure; Partitioned$/,
    );
  });

  test("is read there and nowhere else, and no other cookie is", async () => {
    await using server = startEmbedded();
    const [embed, visitor] = [await embedCookie(server), await server.visitorCookie()];
    expect(await knock(server, { Cookie: visitor })).toBe("session_refused");
    expect((await server.ask(CHATS, { cookie: visitor })).body.code).toBe("session_refused");
    expect((await server.ask("/api/chats", { cookie: embed })).body.code).toBe("session_refused");
    expect(visitorIdOf(await embedCookie(server, visitor))).not.toBe(visitorIdOf(visitor));
    const both = `${visitor}; ${embed}`;
    await using socket = openSocket(`${server.origin.replace("http", "ws")}/embed/ws/chat`, {
      Origin: server.origin,
      Cookie: both,
    });
    await socket.opened;
    const opened = server.logLines.filter((line) => line.includes("socket_opened"));
    expect(opened.at(-1)).toContain(`"visitor":"${visitorIdOf(embed)}"`);
  });

  test("opens no way for users", async () => {
    await using server = startEmbedded();
    const Authorization = `Bearer ${await server.token()}`;
    for (const path of ["/embed/api/auth/ws-ticket", "/embed/api/auth/sign-out"]) {
      const { status } = await server.ask(path, { method: "POST", headers: { Authorization } });
      expect([path, status]).toEqual([path, 404]);
    }
  });

  test.each<[string, Record<string, string | null>]>([
    ["the page around", { Origin: SHOP, "Sec-Fetch-Site": "cross-site" }],
    ["the page around, without Origin", { Origin: null, "Sec-Fetch-Site": "cross-site" }],
    ["a page of the same site, without Origin", { Origin: null, "Sec-Fetch-Site": "same-site" }],
    ["who knows where", { Origin: null }],
    ["a page without an origin", { Origin: "null" }],
    ["the server's own, as the browser doesn't believe", { "Sec-Fetch-Site": "cross-site" }],
  ])("is no good for a request from %s", async (_, headers) => {
    // The page around may even be allowed to call the server as itself.
    await using server = startEmbedded();
    const allowed = await startEmbedded({ origins: [SHOP, server.origin] });
    for (const one of [server, allowed]) {
      const cookie = await embedCookie(server);
      const asks = [
        ["GET", CHATS],
        ["GET", SESSION],
        ["POST", SESSION],
        ["DELETE", `${CHATS}/alice`],
      ] as const;
      for (const [method, path] of asks) {
        const answer = await one.ask(path, { method, cookie, headers });
        expect([method, path, answer.status]).toEqual([method, path, 403]);
        expect(answer.headers.has("set-cookie")).toBe(false);
      }
      const sent = Object.entries({ Cookie: cookie, ...headers }).flatMap(([name, value]) =>
        value === null ? [] : [[name, value]],
      );
      if (headers.Origin !== null) {
        expect(await knock(one, Object.fromEntries(sent))).toBe("origin_refused");
      }
    }
    await allowed[Symbol.asyncDispose]();
  });
});
