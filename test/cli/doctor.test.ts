import { describe, expect, test } from "bun:test";
import { speaksHttp2 } from "../../src/cli/doctor/connection.ts";
import { examine } from "../../src/cli/doctor/examine.ts";
import { type CheckId, type CheckResult, CHECKS } from "../../src/cli/doctor/finding.ts";
import { encrypts, randomBits, staysEncrypted } from "../../src/cli/doctor/issuing.ts";
import { isOutOfReach } from "../../src/cli/doctor/pages.ts";
import {
  Exhausted,
  MAX_REQUESTS,
  Target,
  type TargetOptions,
  valueAt,
} from "../../src/cli/doctor/target.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { CARELESS_TOKEN, type Flaw, startCareless } from "../support/careless.ts";
import { certificateFor } from "../support/certificate.ts";
import { callCommand, runCommand } from "../support/command.ts";
import { startHttp2Front } from "../support/http2.ts";
import { freePort } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startSite } from "../support/site.ts";

/** How long a quiet socket is watched, in milliseconds: long enough for one that is cut off at once. */
const QUIET_MS = 150;

/** A server that should end a socket and doesn't is given up sooner. */
const IMPATIENT = {
  ...systemClock,
  after: (delayMs: number, run: () => void) =>
    systemClock.after(delayMs === 3_000 ? 300 : delayMs, run),
};

/** How our own server is reached. */
function ours(url: string, token?: string): TargetOptions {
  return {
    ...{ url: new URL(url), token, origin: new URL(url).origin, clock: systemClock },
    ...{ ticketPath: "/api/auth/ws-ticket", socketPath: "/ws/chat", pointer: "/ticket" },
    ...{ sessionPath: "/api/auth/anonymous-session", parameter: "ticket" },
  };
}

/** How the others' is. */
function theirs({ url }: { url: URL }, more: Partial<TargetOptions> = {}): TargetOptions {
  return {
    ...{ url, token: CARELESS_TOKEN, origin: url.origin, clock: IMPATIENT },
    ...{ ticketPath: "/mint", socketPath: "/live", sessionPath: "/visit" },
    ...{ pointer: "/data/the~1ticket", parameter: "t" },
    ...more,
  };
}

/** What is open, by the ids of the checks. */
function open(results: readonly CheckResult[]): CheckId[] {
  return results.filter(({ outcome }) => outcome === "finding").map(({ id }) => id);
}

function skipped(results: readonly CheckResult[]): Record<string, string> {
  return Object.fromEntries(
    results.flatMap((one) => (one.outcome === "skipped" ? [[one.id, one.reason]] : [])),
  );
}

async function judge(
  options: TargetOptions,
  { slow = false, quietMs = 0 } = {},
): Promise<CheckResult[]> {
  const target = new Target(options);
  const results = await examine(target, { slow, quietMs });
  expect(results.map(({ id }) => id)).toEqual(Object.keys(CHECKS) as CheckId[]);
  expect(target.requests).toBeLessThanOrEqual(MAX_REQUESTS);
  for (const result of results) {
    for (const finding of result.outcome === "finding" ? result.findings : []) {
      const { id, references, ...texts } = finding;
      expect(id).toBe(result.id);
      expect(Object.keys(texts)).toContainAllValues(["title", "sent", "received", "why", "mend"]);
      for (const text of Object.values(texts)) expect(text).not.toBe("");
      expect(references.length).toBeGreaterThan(0);
      for (const one of references) expect(one).toMatch(/^(?:ASVS|RFC) [\da-z]+(?: ?[\d.]+)*$/);
    }
  }
  return results;
}

describe("nothing is open at", () => {
  test("our own server, with pages and visitors", async () => {
    await using site = startSite({ demo: false });
    const options = ours(site.origin, await site.token());
    const results = await judge(options, { quietMs: QUIET_MS });
    expect(open(results)).toEqual([]);
    expect(skipped(results)).toEqual({
      tls: "loopback",
      hsts: "http",
      http2: "http",
      limits: "no limit was met, which on loopback may be meant",
    });
    expect(site.logLines.join("")).not.toContain("request_failed");
  }, 15_000);

  test("our own server with the limits that it has by default, none of which is in the way", async () => {
    await using site = startSite({ demo: false, ticketsPerMinute: 60 });
    const results = await judge(ours(site.origin, await site.token()));
    expect(open(results)).toEqual([]);
    expect(Object.keys(skipped(results))).toEqual(["tls", "hsts", "http2", "limits"]);
  }, 15_000);

  test("our own server once a ticket's end was waited for", async () => {
    await using site = startSite({ demo: false });
    // In place of a wait, the server's clock is moved.
    const clock = {
      ...systemClock,
      after(delayMs: number, run: () => void) {
        if (delayMs <= 20_000) return systemClock.after(delayMs, run);
        site.clock.advance(delayMs);
        return systemClock.after(0, run);
      },
    };
    const waits: string[] = [];
    const results = await judge(
      {
        ...{ ...ours(site.origin, await site.token()), clock },
        onWait: (reason) => waits.push(reason),
      },
      { slow: true },
    );
    expect(open(results)).toEqual([]);
    expect(skipped(results)).not.toHaveProperty("expiry");
    expect(waits).toEqual(["waits 32 s for a ticket to end"]);
  }, 15_000);

  test("a server of somebody else's, whose paths and names are its own", async () => {
    await using careless = startCareless();
    const results = await judge(theirs(careless));
    expect(open(results)).toEqual([]);
    expect(Object.keys(skipped(results))).toEqual(["tls", "hsts", "http2", "limits"]);
  }, 15_000);
});

describe("what is open at a server that", () => {
  test.each<[Flaw, CheckId[]]>([
    ["issues to anybody", ["header"]],
    ["issues to a body", ["header"]],
    ["issues to a cookie", ["header"]],
    ["issues to alg none", ["header"]],
    ["issues to a changed signature", ["header"]],
    ["issues to a GET", ["method"]],
    ["issues UUIDs", ["entropy"]],
    ["issues numbers", ["entropy"]],
    ["issues JWTs", ["entropy"]],
    ["issues for an hour", ["expiry"]],
    ["lets caches keep tickets", ["cache"]],
    ["allows every origin to read", ["cors"]],
    ["echoes the origin", ["cors"]],
    ["echoes the path", ["echo"]],
    ["echoes the token", ["echo"]],
    ["accepts a token in the URL", ["url"]],
    ["forgets tickets for a plain GET", ["spent"]],
    ["forgets tickets for a foreign origin", ["spent"]],
    ["forgets no ticket", ["replay", "race"]],
    ["forgets tickets late", ["race"]],
    ["accepts padding", ["spelling"]],
    ["accepts the parameter in capitals", ["spelling"]],
    ["accepts any origin", ["origin"]],
    ["accepts origins that start right", ["origin"]],
    ["accepts a cookie without an origin", ["origin"]],
    ["has no HttpOnly", ["cookie"]],
    ["has no SameSite", ["cookie"]],
    ["accepts unmasked cookies", ["cookie"]],
    ["falls back to the cookie", ["downgrade"]],
    ["accepts whoever comes", ["downgrade"]],
    ["echoes subprotocols", ["subprotocol"]],
    ["takes 16 MB", ["frames"]],
    ["cuts off binary frames", ["frames"]],
    ["has another instance", ["instances"]],
    ["cuts off quiet sockets", ["idle"]],
    ["limits by a header", ["limits"]],
  ])(
    "%s",
    async (flaw, ids) => {
      await using careless = startCareless([flaw]);
      const results = await judge(theirs(careless), {
        quietMs: flaw === "cuts off quiet sockets" ? QUIET_MS : 0,
      });
      expect(open(results)).toEqual(ids);
      // No secret is in a report, whatever was sent and came back.
      const text = JSON.stringify(results);
      for (const part of CARELESS_TOKEN.split(".").slice(1)) expect(text).not.toContain(part);
      expect(careless.secrets.filter((secret) => text.includes(secret))).toEqual([]);
    },
    20_000,
  );

  test("keeps tickets beyond their end", async () => {
    await using careless = startCareless(["keeps tickets beyond their end"]);
    expect(open(await judge(theirs(careless), { slow: true }))).toEqual(["expiry"]);
  }, 20_000);

  test.skipIf(!hasIPv6())(
    "limits everybody together",
    async () => {
      await using careless = startCareless(["limits everybody together"], { hostname: "::" });
      const url = new URL(careless.url);
      url.hostname = "localhost";
      const resolve = async () => ["::1", "127.0.0.1"];
      expect(open(await judge(theirs({ url }, { resolve })))).toEqual(["limits"]);
      // With one address alone it can't be said.
      await using another = startCareless(["limits everybody together"]);
      expect(open(await judge(theirs(another)))).toEqual([]);
    },
    20_000,
  );

  test("has many flaws at once", async () => {
    await using careless = startCareless([
      ...(["issues to anybody", "issues to a GET", "issues UUIDs", "forgets no ticket"] as const),
      ...(["allows every origin to read", "lets caches keep tickets", "takes 16 MB"] as const),
      ...(["accepts any origin", "has no HttpOnly", "echoes subprotocols"] as const),
    ]);
    expect(open(await judge(theirs(careless)))).toEqual([
      ...(["header", "method", "entropy", "cache", "cors", "replay", "race"] as const),
      ...(["origin", "cookie", "subprotocol", "frames"] as const),
    ]);
  }, 20_000);
});

function hasIPv6(): boolean {
  try {
    Bun.listen({ hostname: "::1", port: 0, socket: { data() {} } }).stop();
    return true;
  } catch {
    return false;
  }
}

describeWith("openssl")("over TLS", () => {
  const tls = certificateFor("DNS:localhost", "IP:127.0.0.1");

  test("nothing is open at a server that is as it should be", async () => {
    await using careless = startCareless([], { tls: await tls });
    const results = await judge(theirs(careless, { ca: (await tls).cert }));
    expect(open(results)).toEqual([]);
    expect(skipped(results)).toEqual({
      http2: "the front doesn't speak HTTP/2",
      limits: "no limit was met, which on loopback may be meant",
    });
  }, 20_000);

  test.each<[Flaw, string[]]>([
    ["has no HSTS", ["hsts: Browsers aren't told to stay on https"]],
    ["has no Secure", ["cookie: __Host-vid isn't Secure"]],
    ["has no __Host-", ["cookie: vid has no __Host- prefix"]],
  ])("a server that %s", async (flaw, titles) => {
    await using careless = startCareless([flaw], { tls: await tls });
    const target = new Target(theirs(careless, { ca: (await tls).cert }));
    const findings = [...(await staysEncrypted(target)), ...(await isOutOfReach(target))];
    expect(findings.map(({ id, title }) => `${id}: ${title}`)).toEqual(titles);
  });

  type Answer = (path: string, headers: Record<string, string>) => Promise<Response>;

  test.each<[string, (ask: Answer) => Answer, CheckId[]]>([
    ["hands everything on", (ask) => ask, []],
    [
      "has rules of its own",
      () => async () => Response.json({ data: { "the/ticket": "made up" } }),
      ["http2"],
    ],
    ["drops Authorization", (ask) => (path) => ask(path, {}), ["http2"]],
    [
      "has other instances behind it",
      (ask) => async (path, headers) => {
        const response = await ask(path, headers);
        const stranger = { data: { "the/ticket": "x".repeat(43) } };
        return response.ok ? Response.json(stranger) : response;
      },
      ["http2"],
    ],
  ])(
    "HTTP/2 in front that %s",
    async (_, answer, ids) => {
      const { key, cert } = await tls;
      await using careless = startCareless([], { tls: { key, cert } });
      const ask: Answer = (path, headers) =>
        fetch(new URL(path, careless.url), { method: "POST", headers, tls: { ca: cert } });
      const port = Number(careless.url.port);
      await using front = await startHttp2Front({ key, cert, port }, answer(ask));
      const url = new URL(`https://localhost:${front.port}/base/`);
      const findings = await speaksHttp2(new Target(theirs({ url }, { ca: cert })));
      expect(findings.map(({ id }) => id)).toEqual(ids);
    },
    20_000,
  );

  test("a certificate that isn't trusted ends the examination before anything is sent", async () => {
    await using careless = startCareless([], { tls: await tls });
    const target = new Target(theirs(careless));
    await expect(examine(target, { slow: false, quietMs: 1 })).rejects.toMatchObject({
      code: "DEPTH_ZERO_SELF_SIGNED_CERT",
    });
    expect(target.requests).toBe(1);
  });
});

describe("an examination", () => {
  test("without a token makes the checks that need none", async () => {
    await using careless = startCareless(["allows every origin to read", "has no HttpOnly"]);
    const { token: _, ...options } = theirs(careless);
    const results = await judge(options);
    expect(open(results)).toEqual(["cors", "cookie"]);
    expect(skipped(results).replay).toBe("needs a token: --token-file");
  });

  test.each<[string, Partial<TargetOptions>, string]>([
    ["another token", { token: "a.b.c" }, "ws-ticket check --token"],
    ["another path for tickets", { ticketPath: "/nowhere" }, "--ticket-path"],
    ["another place in the response", { pointer: "/ticket" }, "--ticket-pointer"],
    ["another path for sockets", { socketPath: "/nowhere" }, "--socket-path"],
    ["another parameter", { parameter: "ticket" }, "--parameter"],
    ["another origin", { origin: "https://other.example" }, "--origin"],
  ])("with %s says what to change, and skips what can't be judged", async (_, wrong, mend) => {
    await using careless = startCareless();
    const results = await judge(theirs(careless, wrong));
    expect(open(results)).toEqual(["connect"]);
    const [connect] = results;
    expect(connect?.outcome === "finding" && connect.findings[0]?.mend).toContain(mend);
    expect(skipped(results).replay).toBe("no good ticket opens a socket");
  });

  test("of instances that don't know each other's tickets says so, where they take turns", async () => {
    await using careless = startCareless(["takes turns with another instance"]);
    const [connect] = await judge(theirs(careless));
    expect(connect?.outcome === "finding" && connect.findings[0]?.mend).toContain("Redis");
  });

  test("of more instances than there are requests for says nothing of their limits", async () => {
    await using careless = startCareless();
    const results = await judge(theirs(careless, { instances: 3 }));
    expect(skipped(results).limits).toBe("too few requests were left");
  }, 15_000);

  test("whose deployment is limited waits once for as long as it is told to", async () => {
    let left = 3;
    await using inner = startCareless();
    using front = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0 },
      fetch: () =>
        left-- > 0
          ? Response.json({ data: { "the/ticket": `ticket-${left}` } })
          : new Response(null, { status: 429, headers: { "Retry-After": "7" } }),
    });
    const waits: string[] = [];
    const passed: number[] = [];
    const clock = {
      ...systemClock,
      after(delayMs: number, run: () => void) {
        if (delayMs !== 8_000) return systemClock.after(delayMs, run);
        passed.push(delayMs);
        return systemClock.after(0, run);
      },
    };
    const onWait = (reason: string) => waits.push(reason);
    const target = new Target(theirs({ url: front.url }, { clock, onWait }));
    for (let n = 0; n < 3; n++) await target.ticket();
    await expect(target.ticket()).rejects.toThrow("no further ticket was issued: 429");
    await expect(target.ticket()).rejects.toThrow("no further ticket was issued: 429");
    expect([waits, passed]).toEqual([["limited: goes on in 7 s"], [8_000]]);
    expect(inner.secrets).toEqual([]);
  });

  test("never sends more than 200 requests", async () => {
    await using careless = startCareless();
    const target = new Target(theirs(careless));
    target.requests = MAX_REQUESTS - 1;
    await target.send("/");
    await expect(target.send("/")).rejects.toBeInstanceOf(Exhausted);
    await expect(target.knock("")).rejects.toBeInstanceOf(Exhausted);
    expect(target.requests).toBe(MAX_REQUESTS);
  });

  test("of plain http elsewhere than on this machine finds that", async () => {
    const target = new Target(ours("http://chat.example.com"));
    expect(await encrypts(target)).toMatchObject([{ id: "tls" }]);
    expect(await encrypts(new Target(ours("https://chat.example.com")))).toEqual([]);
  });

  test("shows no secret, in any spelling, and no control character", () => {
    const target = new Target(ours("http://127.0.0.1", "a.secret+token/of=mine"));
    const shown = target.show("x a.secret+token/of=mine y a.secret%2Btoken%2Fof%3Dmine\u001b[31m");
    expect(shown).toBe("x <token> y <token>[31m");
  });
});

describe("randomBits", () => {
  const random = (length: number) =>
    Array.from({ length: 3 }, () =>
      crypto
        .getRandomValues(new Uint8Array(length))
        .toBase64({ alphabet: "base64url", omitPadding: true }),
    );
  const hex = (length: number) =>
    Array.from({ length: 3 }, () => crypto.getRandomValues(new Uint8Array(length)).toHex());

  test.each<[string, string[], boolean]>([
    ["32 bytes as base64url", random(32), true],
    ["16 bytes as hex", hex(16), true],
    ["16 bytes as hex behind a name", hex(16).map((one) => `tk_${one}`), true],
    ["random UUIDs", [1, 2, 3].map(() => crypto.randomUUID()), false],
    ["8 bytes as hex", hex(8), false],
    ["8 bytes behind much that is the same", hex(8).map((one) => `${"x".repeat(60)}${one}`), false],
    [
      "a counter",
      [
        "1000000000000000000000000000000000001",
        "1000000000000000000000000000000000002",
        "1000000000000000000000000000000000003",
      ],
      false,
    ],
  ])("%s", (_, tickets, isEnough) => {
    expect(randomBits(tickets) >= 128).toBe(isEnough);
  });
});

test("valueAt follows a JSON pointer, and nothing that every object has", () => {
  const json = '{"a":{"b/c":["x",{"~":1}]},"t":"v"}';
  expect(valueAt(json, "/t")).toBe("v");
  expect(valueAt(json, "/a/b~1c/0")).toBe("x");
  expect(valueAt(json, "/a/b~1c/1/~0")).toBe(1);
  expect(valueAt('"text"', "")).toBe("text");
  for (const pointer of ["/nowhere", "/t/length", "/constructor", "/a/b~1c/2"]) {
    expect(valueAt(json, pointer)).toBeUndefined();
  }
  expect(valueAt("no JSON", "/t")).toBeUndefined();
});

describe("ws-ticket doctor", () => {
  const OPTIONS = [
    ...["--ticket-path", "/mint", "--socket-path", "/live", "--session-path", "/visit"],
    ...["--ticket-pointer", "/data/the~1ticket", "--parameter", "t"],
  ];

  test("says first how much it will send, shows its progress, and exits with 1 for what is open", async () => {
    await using careless = startCareless(["cuts off quiet sockets", "lets caches keep tickets"]);
    const { code, stdout, stderr, files } = await runCommand(
      ["doctor", careless.url.href, "--token-file", "jwt", ...OPTIONS],
      { files: { jwt: `Bearer ${CARELESS_TOKEN}\n` } },
    );
    expect([code, files]).toEqual([1, []]);
    expect(stderr).toStartWith(`Sends at most ${MAX_REQUESTS} requests to ${careless.url.host}`);
    for (const id of Object.keys(CHECKS)) {
      expect(stderr).toMatch(new RegExp(`^\\d+/24 ${id}: `, "m"));
      expect(stdout).toMatch(new RegExp(`^(?:ok  |OPEN|-   )  ${id} `, "m"));
    }
    expect(stdout).toContain(
      "\ncache: The response with the ticket may be kept\n  sent      POST ",
    );
    expect(stdout).toMatch(/\n {2}why .*\(ASVS 14\.2\.2, .*\n {2}mend /);
    expect(stdout).toContain("\n2 findings, ");
    for (const secret of [CARELESS_TOKEN, ...careless.secrets]) {
      expect(stdout + stderr).not.toContain(secret);
    }
  }, 20_000);

  test("--json prints one object with everything", async () => {
    await using careless = startCareless(["cuts off quiet sockets"]);
    const { code, stdout } = await runCommand(
      ["doctor", "--json", careless.url.href, "--token-file", "jwt", ...OPTIONS],
      { files: { jwt: CARELESS_TOKEN } },
    );
    expect(code).toBe(1);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      url: careless.url.href,
      requests: expect.any(Number),
      durationMs: expect.any(Number),
      findings: [{ id: "idle", references: expect.any(Array) }],
    });
    expect(report.checks.map(({ id }: { id: string }) => id)).toEqual(Object.keys(CHECKS));
    expect(report.checks[1]).toEqual({
      ...{ id: "tls", title: CHECKS.tls, outcome: "skipped", reason: "loopback" },
    });
  }, 20_000);

  test("exits with 0 where nothing is open", async () => {
    await using site = startSite({ demo: false });
    const { code, stdout } = await callCommand(["doctor", site.origin]);
    expect(code).toBe(0);
    expect(stdout).toContain("\n0 findings, ");
  }, 15_000);

  test("exits with 2 where nobody answers", async () => {
    const { code, stdout, stderr } = await callCommand([
      "doctor",
      `http://127.0.0.1:${freePort()}`,
    ]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("can't reach 127.0.0.1:");
    expect(stderr).toContain("connection_refused");
  });

  test.each([
    ["no URL", [], "URL is missing"],
    ["another protocol", ["ftp://a.example"], "URL must be like"],
    ["credentials in the URL", ["https://a:b@a.example"], "URL must have neither"],
    ["no file", ["https://a.example", "--token-file", "nowhere"], "Can't read the file nowhere"],
    [
      "a file without a token",
      ["https://a.example", "--token-file", "/dev/null"],
      "There is no token",
    ],
    ["no path", ["https://a.example", "--ticket-path", "mint"], "--ticket-path must be a path"],
    ["no origin", ["https://a.example", "--origin", "a.example"], "--origin must be like"],
    ["no pointer", ["https://a.example", "--ticket-pointer", "ticket"], "--ticket-pointer must be"],
    ["no instances", ["https://a.example", "--instances", "0"], "--instances must be a number"],
    ["an unknown option", ["https://a.example", "--fast"], "Unknown option '--fast'"],
  ])("with %s exits with 2", async (_, args, complaint) => {
    const { code, stdout, stderr } = await callCommand(["doctor", ...args]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toStartWith(`ws-ticket: ${complaint}`);
  });
});
