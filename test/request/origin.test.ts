import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  isAllowedOrigin,
  isLoopback,
  isSecure,
  type OriginPolicy,
  ownOrigin,
} from "../../src/request/origin.ts";
import { codeOf, startWatched } from "../support/gate.ts";
import { handshake } from "../support/raw.ts";
import { anyUrl } from "../support/text.ts";

const APP = "https://app.example.com";
const IPV6 = "https://[::1]:8443";
const LISTED: OriginPolicy = { allowed: new Set([APP, IPV6]) };

/** Everything that looks like a listed origin, or like one that a parser would turn into it. */
const LOOK_ALIKES: [name: string, origin: string][] = [
  ["null, as sandboxed frames and files send it", "null"],
  ["an empty value", ""],
  ["another site that starts with it", "https://app.example.com.evil.test"],
  ["another site that ends like it", "https://evilapp.example.com"],
  ["another site that ends like it, with a dash", "https://evil-app.example.com"],
  ["a sibling", "https://other.example.com"],
  ["a child", "https://x.app.example.com"],
  ["the parent", "https://example.com"],
  ["http", "http://app.example.com"],
  ["ws", "ws://app.example.com"],
  ["wss", "wss://app.example.com"],
  ["ftp", "ftp://app.example.com"],
  ["a browser extension", "chrome-extension://app.example.com"],
  ["a file", "file://app.example.com"],
  ["no scheme", "app.example.com"],
  ["no scheme but slashes", "//app.example.com"],
  ["another port", "https://app.example.com:8443"],
  ["its default port, spelled out", "https://app.example.com:443"],
  ["its default port with a zero", "https://app.example.com:0443"],
  ["a colon without a port", "https://app.example.com:"],
  ["it as the user of another site", "https://app.example.com@evil.test"],
  ["a user of its own", "https://evil@app.example.com"],
  ["a trailing dot", "https://app.example.com."],
  ["a trailing slash", "https://app.example.com/"],
  ["a path", "https://app.example.com/evil"],
  ["a query", "https://app.example.com?evil"],
  ["a fragment", "https://app.example.com#evil"],
  ["a backslash", "https://app.example.com\\evil"],
  ["a backslash before another site", "https://app.example.com\\@evil.test"],
  ["capital letters", "HTTPS://APP.EXAMPLE.COM"],
  ["one capital letter", "https://App.example.com"],
  ["an encoded letter", "https://%61pp.example.com"],
  ["a full-width dot", "https://app．example.com"],
  ["an ideographic full stop", "https://app。example.com"],
  ["a Cyrillic letter", "https://аpp.example.com"],
  ["punycode of a look-alike", "https://xn--pp-5cd.example.com"],
  ["a soft hyphen", "https://app\u00ad.example.com"],
  ["two of it in one line", `${APP}, ${APP}`],
  ["it and a blank inside", `${APP} ${APP}`],
  ["it before another", `${APP},https://evil.test`],
  ["IPv6 written out", "https://[0:0:0:0:0:0:0:1]:8443"],
  ["IPv6 with a zero more", "https://[::01]:8443"],
  ["IPv4 inside IPv6", "https://[::ffff:127.0.0.1]:8443"],
  ["IPv6 with a zone", "https://[::1%25lo]:8443"],
  ["IPv6 without its port", "https://[::1]"],
  ["IPv6 without its brackets", "https://::1:8443"],
  ["a pattern", "https://*.example.com"],
  ["an asterisk", "*"],
];

function asking(origin: string | null, headers: Record<string, string> = {}): Request {
  return new Request("https://chat.example.com/", {
    headers: { ...headers, ...(origin !== null && { Origin: origin }) },
  });
}

/** As browsers send it: UTF-8, though nothing but ASCII belongs there. */
function bytes(text: string): string {
  return Buffer.from(text).toString("latin1");
}

describe("a handshake from a page", () => {
  test.each([APP, IPV6])("of the listed origin %s is let in", async (origin) => {
    await using server = startWatched({ origins: [APP, IPV6] });
    const answer = await server.knock(await server.ticket(), { Origin: origin });
    expect(answer.status).toBe(101);
  });

  test.each(LOOK_ALIKES)(
    "of a look-alike is refused before the ticket is touched: %s",
    async (_, origin) => {
      await using server = startWatched({ origins: [APP, IPV6] });
      const answer = await server.turnAway((ticket) =>
        handshake(`/ws/chat?ticket=${ticket}`, { Origin: bytes(origin) }),
      );
      expect([answer.status, codeOf(answer)]).toEqual([403, "origin_refused"]);
    },
  );

  test("that sends two origins is refused", async () => {
    await using server = startWatched({ origins: [APP] });
    for (const Origin of [
      [APP, APP],
      [APP, "https://evil.test"],
      ["https://evil.test", APP],
    ]) {
      const answer = await server.turnAway((ticket) =>
        handshake(`/ws/chat?ticket=${ticket}`, { Origin }),
      );
      expect([answer.status, codeOf(answer)]).toEqual([403, "origin_refused"]);
    }
  });

  test("of the server's own origin is let in without a list, and no longer with one", async () => {
    await using server = startWatched();
    const own = { Host: `127.0.0.1:${server.port}`, Origin: server.origin };
    expect((await server.knock(await server.ticket(), own)).status).toBe(101);
    await using listed = startWatched({ origins: [APP] });
    const answer = await listed.turnAway((ticket) =>
      handshake(`/ws/chat?ticket=${ticket}`, {
        Host: `127.0.0.1:${listed.port}`,
        Origin: listed.origin,
      }),
    );
    expect(answer.status).toBe(403);
  });

  test.each([
    ["another port of the same host", "http://127.0.0.1:1"],
    ["another name of the same host", "http://localhost"],
    ["https on the same host", "https://127.0.0.1"],
  ])("of %s is refused without a list", async (_, Origin) => {
    await using server = startWatched();
    const answer = await server.turnAway((ticket) =>
      handshake(`/ws/chat?ticket=${ticket}`, { Origin }),
    );
    expect([answer.status, codeOf(answer)]).toEqual([403, "origin_refused"]);
  });

  test("whose name was pointed at this address is refused (DNS rebinding)", async () => {
    await using server = startWatched();
    const Host = `evil.test:${server.port}`;
    const cookie = await server.visitorCookie();
    for (const headers of [{}, { Cookie: cookie }]) {
      const answer = await server.turnAway((ticket) =>
        handshake(`/ws/chat?ticket=${ticket}`, { Host, Origin: `http://${Host}`, ...headers }),
      );
      expect([answer.status, codeOf(answer)]).toEqual([403, "origin_refused"]);
    }
  });
});

describe("a handshake from no page", () => {
  test("needs no origin with a ticket", async () => {
    await using server = startWatched({ origins: [APP] });
    expect((await server.knock(await server.ticket())).status).toBe(101);
  });

  test("needs one with a cookie, and its old name is none", async () => {
    await using server = startWatched();
    const cookie = { Host: `127.0.0.1:${server.port}`, Cookie: await server.visitorCookie() };
    for (const headers of [cookie, { ...cookie, "Sec-WebSocket-Origin": server.origin }]) {
      const answer = await server.turnAway(() => handshake("/ws/chat", headers));
      expect([answer.status, codeOf(answer)]).toEqual([403, "origin_refused"]);
    }
  });
});

describe("isAllowedOrigin", () => {
  const url = new URL("https://chat.example.com/ws/chat");

  test("is true for what is listed, letter for letter", () => {
    expect([APP, IPV6].map((origin) => isAllowedOrigin(asking(origin), url, LISTED))).toEqual([
      true,
      true,
    ]);
  });

  test("is false for whatever isn't", () => {
    const ascii = LOOK_ALIKES.filter(([, origin]) => /^[ -~]*$/.test(origin));
    for (const [name, origin] of ascii) {
      expect([name, isAllowedOrigin(asking(origin), url, LISTED)]).toEqual([name, false]);
    }
    expect(isAllowedOrigin(asking(null), url, LISTED)).toBe(false);
    fc.assert(
      fc.property(
        fc.oneof(
          anyUrl(),
          anyUrl().map((url) => new URL(url).origin),
        ),
        (other) => {
          fc.pre(other !== APP);
          expect(isAllowedOrigin(asking(other), url, LISTED)).toBe(false);
        },
      ),
    );
  });

  test("an empty list allows no origin", () => {
    expect(isAllowedOrigin(asking(url.origin), url, { allowed: new Set() })).toBe(false);
  });

  test("without a list it is the server's own", () => {
    expect(isAllowedOrigin(asking("https://chat.example.com"), url, {})).toBe(true);
    expect(isAllowedOrigin(asking(APP), url, {})).toBe(false);
    expect(isAllowedOrigin(asking(null), url, {})).toBe(false);
  });

  test("own origin and a browser that calls it cross-site contradict each other", () => {
    const contradiction = asking(url.origin, { "Sec-Fetch-Site": "cross-site" });
    expect(isAllowedOrigin(contradiction, url, {})).toBe(false);
    const agreement = asking(url.origin, { "Sec-Fetch-Site": "same-origin" });
    expect(isAllowedOrigin(agreement, url, {})).toBe(true);
    const listed = asking(APP, { "Sec-Fetch-Site": "cross-site" });
    expect(isAllowedOrigin(listed, url, LISTED)).toBe(true);
  });
});

describe("ownOrigin", () => {
  const cases: [url: string, publicUrl: string | undefined, origin: string | undefined][] = [
    ["http://127.0.0.1:3000/x", undefined, "http://127.0.0.1:3000"],
    ["http://localhost/", undefined, "http://localhost"],
    ["http://[::1]:3000/", undefined, "http://[::1]:3000"],
    ["https://chat.example.com/", undefined, "https://chat.example.com"],
    ["http://chat.example.com/", undefined, undefined],
    ["http://192.0.2.1/", undefined, undefined],
    ["http://10.0.0.1:3000/", "https://chat.example.com/", "https://chat.example.com"],
    ["http://127.0.0.1:3000/", "https://chat.example.com/", "https://chat.example.com"],
  ];
  test.each(cases)("of %s behind %p is %p", (url, publicUrl, origin) => {
    const policy = publicUrl ? { publicUrl: new URL(publicUrl) } : {};
    expect(ownOrigin(new URL(url), policy)).toBe(origin as string);
  });
});

describe("isSecure", () => {
  const cases: [url: string, publicUrl: string | undefined, secure: boolean][] = [
    ["https://chat.example.com/", undefined, true],
    ["http://127.0.0.1/", undefined, false],
    ["http://10.0.0.1/", "https://chat.example.com/", true],
    ["http://127.0.0.1/", "http://localhost/", false],
  ];
  test.each(cases)("of %s behind %p is %p", (url, publicUrl, secure) => {
    const policy = publicUrl ? { publicUrl: new URL(publicUrl) } : {};
    expect(isSecure(new URL(url), policy)).toBe(secure);
  });
});

describe("isLoopback", () => {
  test.each(["localhost", "127.0.0.1", "127.255.255.254", "::1", "[::1]"])("%s is", (hostname) => {
    expect(isLoopback(hostname)).toBe(true);
  });
  test.each([
    ...["", "localhost.evil.test", "evil.localhost.test", "127.0.0.1.evil.test", "1127.0.0.1"],
    ...["128.0.0.1", "0.0.0.0", "::", "[::]", "[::2]", "127.1", "notlocalhost"],
  ])("%p is not", (hostname) => {
    expect(isLoopback(hostname)).toBe(false);
  });
});
