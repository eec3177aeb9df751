import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isWithoutHost, parseUrl, readTicket } from "../../src/request/url.ts";
import { anyQuery, anyText } from "../support/text.ts";

const TICKET = `${"t".repeat(42)}A`;
const JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
const CREDENTIAL_NAMES = [
  ...["token", "access_token", "id_token", "refresh_token", "auth_token", "jwt", "bearer", "auth"],
  ...["authorization", "api_key", "password", "secret", "ws_ticket", "anonSessionId", "session"],
  ...["sessionId", "sid", "cookie", "__Host-anonSessionId"],
];

function read(query: string) {
  return readTicket(new URL(`https://example.com/ws/chat?${query}`));
}

describe("parseUrl", () => {
  test("reads target and host", () => {
    const parsed = parseUrl(new Request("https://example.com/ws/chat?a=b"));
    expect(parsed.ok && parsed.url.href).toBe("https://example.com/ws/chat?a=b");
  });

  test("refuses two hosts, which Bun joins to one header", () => {
    const request = new Request("https://example.com/", { headers: { Host: "a.test, b.test" } });
    expect(parseUrl(request)).toEqual({ ok: false, code: "malformed_request" });
  });

  test("refuses what is no URL, as Bun hands it on for an odd host", () => {
    for (const url of ["/ws/chat", "http://a b/", "http://127.0.0.1:99999/", "http://[::1/"]) {
      const request = { url, headers: new Headers({ Host: "a b" }) } as Request;
      expect(parseUrl(request)).toEqual({ ok: false, code: "malformed_request" });
    }
  });
});

describe("a request without a host, as HTTP/1.0 allows it", () => {
  test.each(["/readyz", "/readyz?a=b", "//evil.example/readyz"])("%s has a path", (target) => {
    const parsed = parseUrl({ url: target, headers: new Headers() } as Request);
    expect(parsed.ok && parsed.url.host).toBe("host.invalid");
    expect(parsed.ok && parsed.url.pathname + parsed.url.search).toBe(target);
    expect(parsed.ok && isWithoutHost(parsed.url)).toBe(true);
  });

  test("is told from one with a host", () => {
    expect(isWithoutHost(new URL("http://127.0.0.1/readyz"))).toBe(false);
  });
});

test("a URL of 8,192 characters is read, a longer one is malformed", () => {
  const urlOf = (length: number) => `https://example.com/?q=${"x".repeat(length)}`.slice(0, length);
  expect(parseUrl(new Request(urlOf(8_192)))).toMatchObject({ ok: true });
  expect(parseUrl(new Request(urlOf(8_193)))).toEqual({ ok: false, code: "malformed_request" });
});

describe("readTicket", () => {
  test("reads a query of 64 parameters, and refuses more", () => {
    const others = (count: number) =>
      Array.from({ length: count }, (_, at) => `p${at}=x`).join("&");
    expect(read(`${others(63)}&ticket=${TICKET}`)).toEqual({ ok: true, ticket: TICKET });
    expect(read(`${others(64)}&ticket=${TICKET}`)).toEqual({
      ok: false,
      code: "malformed_request",
    });
    expect(read(others(65))).toEqual({ ok: false, code: "malformed_request" });
  });

  test("looks for credentials in names of up to 256 characters", () => {
    const nameOf = (length: number) => `${"-".repeat(length - 5)}token`;
    expect(read(`${nameOf(256)}=x`)).toEqual({ ok: false, code: "credential_in_url" });
    expect(read(`${nameOf(257)}=x`)).toEqual({ ok: true, ticket: undefined });
  });

  test.each(["%25", "é", "%C3%A9"])("reads eight names such as p%s, and refuses more", (odd) => {
    const query = (count: number) =>
      Array.from({ length: count }, (_, at) => `p${odd}${at}=x`).join("&");
    expect(read(`${query(8)}&ticket=${TICKET}`)).toEqual({ ok: true, ticket: TICKET });
    expect(read(`${query(9)}&ticket=${TICKET}`)).toEqual({ ok: false, code: "malformed_request" });
  });

  const good: [query: string, ticket: string | undefined][] = [
    ["", undefined],
    ["a=b&c", undefined],
    [`ticket=${TICKET}`, TICKET],
    [`a=b&ticket=${TICKET}&c=d`, TICKET],
    [`%74icket=${TICKET}`, TICKET],
    ["ticket", ""],
    ["ticket=", ""],
    ["ticket=a+b", "a b"],
    ["ticket=%2541", "%41"],
    ["ticketing=x", undefined],
    ["tokens=5&notes=a.b.c", undefined],
  ];
  test.each(good)("reads %p", (query, ticket) => {
    expect(read(query)).toEqual({ ok: true, ticket });
  });

  test.each([
    [`ticket=${TICKET}&ticket=bad`],
    [`ticket=bad&ticket=${TICKET}`],
    [`ticket=${TICKET}&ticket=${TICKET}`],
    [`ticket=${TICKET}&%74icket=${TICKET}&ticket=${TICKET}`],
    ["ticket&ticket"],
  ])("refuses more than one ticket: %s", (query) => {
    expect(read(query)).toEqual({ ok: false, code: "malformed_request" });
  });

  test.each([
    [`ticket=${JWT}`],
    ["ticket=eyJhbGciOiJub25lIn0.e30."],
    ["ticket=a.b.c"],
    ["ticket=a.b."],
    [`ticket=Bearer+${JWT}`],
    [`ticket=%20${JWT}`],
    [`ticket=${JWT}&ticket=${TICKET}`],
    ["ticket=an.encrypted.token.of.five"],
    [`x=${JWT}`],
    [`ticket=${TICKET}&state=${JWT}`],
    [`Ticket=${TICKET}`],
    [`TICKET=${TICKET}`],
    [`%2574icket=${TICKET}`],
    [`ticket%00=${TICKET}`],
    [`ticket[]=${TICKET}`],
    [`%20ticket=${TICKET}`],
    ["ｔｏｋｅｎ=x"],
    ["to\u212Aen=x"],
    ["token"],
    ["token="],
    ["auth[token]=x"],
  ])("refuses a credential that is no ticket: %s", (query) => {
    expect(read(query)).toEqual({ ok: false, code: "credential_in_url" });
  });

  test("refuses credentials under every usual name", () => {
    for (const name of CREDENTIAL_NAMES) {
      expect([name, read(`${name}=x`)]).toEqual([name, { ok: false, code: "credential_in_url" }]);
    }
  });

  test("refuses them in any letters, encoded any way, up to four times, beside anything", () => {
    const spelling = fc
      .constantFrom(...CREDENTIAL_NAMES)
      .chain((name) =>
        fc.tuple(
          ...Array.from(name, (char) => fc.tuple(fc.constant(char), fc.boolean(), fc.boolean())),
        ),
      )
      .map((chars) =>
        chars
          .map(([char, upper, encoded]) => {
            const cased = upper ? char.toUpperCase() : char.toLowerCase();
            return encoded ? `%${cased.charCodeAt(0).toString(16)}` : cased;
          })
          .join(""),
      );
    fc.assert(
      fc.property(
        spelling,
        fc.integer({ min: 0, max: 3 }),
        anyQuery(),
        fc.boolean(),
        (name, rounds, others, first) => {
          let written = name;
          for (let round = 0; round < rounds; round++) written = written.replaceAll("%", "%25");
          const query = first ? `${written}=x&${others}` : `${others}&${written}=x`;
          const result = read(query);
          // Two `ticket` among the others are refused for that.
          expect(result.ok).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("never throws, and finds exactly the ticket that was put in", () => {
    const harmless = fc
      .tuple(fc.stringMatching(/^[a-z]{1,3}\d$/), anyText())
      .filter(([, value]) => !/e[wy]/i.test(value));
    fc.assert(
      fc.property(
        anyText().filter((value) => !value.includes(".")),
        fc.array(harmless),
        (ticket, others) => {
          const params = new URLSearchParams([...others, ["ticket", ticket]]);
          expect(read(params.toString())).toEqual({ ok: true, ticket: ticket.toWellFormed() });
        },
      ),
    );
    fc.assert(
      fc.property(anyText(), (query) => {
        const result = read(query);
        expect(result.ok || ["malformed_request", "credential_in_url"].includes(result.code)).toBe(
          true,
        );
      }),
    );
  });

  test("takes time in proportion to the length of a value", () => {
    for (const value of [
      "eyJ".repeat(5_000),
      " ".repeat(15_000),
      "a.".repeat(7_500),
      "%".repeat(15_000),
    ]) {
      // The best of five: a busy machine may interrupt some.
      let bestMs = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 5; round++) {
        const startedAtMs = performance.now();
        readTicket(new URL(`https://example.com/?ticket=${value}&${value}=x`));
        bestMs = Math.min(bestMs, performance.now() - startedAtMs);
      }
      expect(bestMs).toBeLessThan(100);
    }
  });
});
