import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createLog } from "../../src/lib/log.ts";
import { createTokenVerifier } from "../../src/gate/token.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { type FakeClock, fakeClock, settle } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate } from "../support/gate.ts";
import { type IssuerKey, issuerKey, type KeyServer, startKeyServer } from "../support/keys.ts";
import { freePort } from "../support/redis.ts";
import { startServer } from "../support/server.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const [first, second, third] = (await Promise.all(
  ["k1", "k2", "k3"].map((kid) => issuerKey("ES256", kid)),
)) as [IssuerKey, IssuerKey, IssuerKey];

let clock: FakeClock;
let keyServer: KeyServer;
let logLines: string[];

beforeEach(() => {
  clock = fakeClock();
  keyServer = startKeyServer(first);
  logLines = [];
});
afterEach(async () => {
  await keyServer[Symbol.asyncDispose]();
});

/** What `verify` makes of a token: the user's id, or the refusal's code. */
type Verify = (token: string) => Promise<string>;

function verifier(jwksUrl = keyServer.url): Verify {
  const log = createLog({ level: "debug", clock, write: (line) => void logLines.push(line) });
  const verify = createTokenVerifier({ keys: { jwksUrl }, clock, log });
  return async (token) => {
    const verified = await verify(token);
    return verified.ok ? verified.identity.id : verified.code;
  };
}

/** A token that is valid for two days from where the clock stands, so that only its key matters. */
function tokenOf(key: IssuerKey, header?: Record<string, unknown>): Promise<string> {
  return key.sign({ sub: "alice", exp: clock.nowMs() / 1000 + 2 * 86_400 }, header);
}

const outage = () => new Response("away", { status: 503 });

describe("requests to the key server", () => {
  test("none before the first token, then one for fifty tokens at once", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    expect(keyServer.requests).toEqual([]);
    const users = await Promise.all(Array.from({ length: 50 }, () => verify(token)));
    expect(new Set(users)).toEqual(new Set(["alice"]));
    expect(keyServer.requests).toEqual(["/jwks.json"]);
    const [read] = logLines.filter((line) => line.includes('"keys_read"'));
    expect(JSON.parse(read as string)).toMatchObject({ level: "debug", durationMs: 0 });
  });

  test("none for tokens that aren't even written like one", async () => {
    const verify = verifier();
    for (const token of ["", "a.b.c", "x".repeat(10_000), `${await tokenOf(first)}=`]) {
      expect(await verify(token)).toBe("token_invalid");
    }
    expect(keyServer.requests).toHaveLength(0);
  });

  test("one more when the keys are ten minutes old, and not before", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    await verify(token);
    clock.advance(10 * MINUTE_MS - 1);
    expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(1);
    clock.advance(1);
    expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
  });

  test("don't depend on the wall clock", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    await verify(token);
    clock.jumpWall(HOUR_MS);
    expect(await verify(token)).toBe("alice");
    clock.jumpWall(-2 * HOUR_MS);
    expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(1);
  });

  test("unknown key ids, fresh every time, cost one each 30 s at most, and are unavailable until then", async () => {
    const verify = verifier();
    expect(await verify(await tokenOf(first))).toBe("alice");
    const strangers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => tokenOf(second, { kid: `made-up-${index}` })),
    );
    for (const token of strangers) expect(await verify(token)).toBe("keys_unavailable");
    expect(keyServer.requests).toHaveLength(1);
    clock.advance(29_999);
    expect(await verify(strangers[0] as string)).toBe("keys_unavailable");
    expect(keyServer.requests).toHaveLength(1);
    clock.advance(1);
    const answers = await Promise.all(strangers.map(verify));
    expect(new Set(answers)).toEqual(new Set(["token_invalid"]));
    expect(keyServer.requests).toHaveLength(2);
  });
});

describe("rotation", () => {
  test("unknown key ids count as failed attempts of their address", async () => {
    const server = bareGate({ users: { jwksUrl: keyServer.url }, clock });
    const headers = { Authorization: `Bearer ${await tokenOf(second)}` };
    const statuses: number[] = [];
    for (let n = 0; n < 140; n++) {
      const request = new Request(`${BARE_ORIGIN}/api/auth/ws-ticket`, { method: "POST", headers });
      statuses.push((await server.gate.fetch(request, { socketAddress: "192.0.2.1" })).status);
    }
    // The keys were read for the first of them, which says that theirs is none.
    const looked = [401, ...Array<number>(129).fill(503)];
    expect(statuses).toEqual([...looked, ...Array<number>(10).fill(429)]);
  });

  test("a new key is picked up once the cooldown is over, beside the old one", async () => {
    const verify = verifier();
    await verify(await tokenOf(first));
    keyServer.publish(first, second);
    expect(await verify(await tokenOf(second))).toBe("keys_unavailable");
    clock.advance(30_000);
    expect(await verify(await tokenOf(second))).toBe("alice");
    expect(await verify(await tokenOf(first))).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
  });

  test("a second one within 30 s is unavailable and never invalid, and picked up after them", async () => {
    const verify = verifier();
    await verify(await tokenOf(first));
    clock.advance(30_000);
    keyServer.publish(second);
    expect(await verify(await tokenOf(second))).toBe("alice");
    keyServer.publish(third);
    clock.advance(29_999);
    expect(await verify(await tokenOf(third))).toBe("keys_unavailable");
    // Known to be gone.
    expect(await verify(await tokenOf(first))).toBe("token_invalid");
    clock.advance(1);
    expect(await verify(await tokenOf(third))).toBe("alice");
    keyServer.publish(first);
    clock.advance(30_000);
    expect(await verify(await tokenOf(first))).toBe("alice");
    expect(await verify(await tokenOf(third))).toBe("token_invalid");
    expect(keyServer.requests).toHaveLength(4);
  });

  test("fifty tokens of a new key share one request", async () => {
    const verify = verifier();
    await verify(await tokenOf(first));
    keyServer.publish(second);
    clock.advance(30_000);
    const token = await tokenOf(second);
    const users = await Promise.all(Array.from({ length: 50 }, () => verify(token)));
    expect(new Set(users)).toEqual(new Set(["alice"]));
    expect(keyServer.requests).toHaveLength(2);
  });

  test("a key that was withdrawn is refused after the next refresh", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    await verify(token);
    keyServer.publish(second);
    clock.advance(10 * MINUTE_MS - 1);
    expect(await verify(token)).toBe("alice");
    clock.advance(1);
    expect(await verify(token)).toBe("token_invalid");
    expect(await verify(await tokenOf(second))).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
    // It's no new one, also while the key server is away.
    keyServer.answer(outage);
    clock.advance(30_000);
    expect(await verify(token)).toBe("token_invalid");
    expect(keyServer.requests).toHaveLength(3);
  });

  test("an empty key set is an answer: no token verifies", async () => {
    keyServer.publish();
    expect(await verifier()(await tokenOf(first))).toBe("token_invalid");
    expect(keyServer.requests).toHaveLength(1);
  });
});

describe("keys that look the same", () => {
  test("several with the same id are all tried", async () => {
    const twins = await Promise.all([1, 2, 3].map(() => issuerKey("ES256", "same")));
    const stranger = await issuerKey("ES256", "same");
    keyServer.publish(...twins);
    const verify = verifier();
    for (const twin of twins) expect(await verify(await tokenOf(twin))).toBe("alice");
    expect(await verify(await tokenOf(stranger))).toBe("token_invalid");
  });

  test("several without an id are all tried, for tokens without one", async () => {
    const twins = await Promise.all([1, 2].map(() => issuerKey("EdDSA")));
    const stranger = await issuerKey("EdDSA");
    keyServer.publish(...twins, first);
    const verify = verifier();
    for (const twin of twins) expect(await verify(await tokenOf(twin))).toBe("alice");
    expect(await verify(await tokenOf(stranger))).toBe("token_invalid");
  });

  test("one that can't be imported doesn't hide its twin", async () => {
    const key = await issuerKey("ES256", "same");
    const broken = { ...key.jwk, x: "A".repeat(43) };
    keyServer.publish(broken, key);
    expect(await verifier()(await tokenOf(key))).toBe("alice");
    keyServer.publish(key, broken);
    expect(await verifier()(await tokenOf(key))).toBe("alice");
  });

  test("tried one after the other, each still needs its claims in order", async () => {
    const twins = await Promise.all([1, 2].map(() => issuerKey("ES256", "same")));
    keyServer.publish(...twins);
    const expired = await (twins[1] as IssuerKey).sign({ sub: "alice", exp: 1 });
    expect(await verifier()(expired)).toBe("token_invalid");
  });
});

describe("answers that are no key set: keys_unavailable, never token_invalid", () => {
  const big = () => JSON.stringify({ keys: [first.jwk], filler: "x".repeat(256 * 1024) });
  const unusable: [string, () => Response | Promise<Response>][] = [
    ["500", () => new Response("failed", { status: 500 })],
    ["500 with keys in it", () => Response.json({ keys: [first.jwk] }, { status: 500 })],
    ["404", () => new Response(null, { status: 404 })],
    ["401 with JSON", () => Response.json({ error: "who are you" }, { status: 401 })],
    ["204", () => new Response(null, { status: 204 })],
    ["an empty body", () => new Response("")],
    [
      "a page",
      () =>
        new Response("<!doctype html><title>Sign in</title>", {
          headers: { "Content-Type": "text/html" },
        }),
    ],
    ["JSON cut short", () => new Response('{"keys":[{"kty":"EC"')],
    ["an object without keys", () => Response.json({})],
    ["keys that are no list", () => Response.json({ keys: { k1: first.jwk } })],
    ["a list with null in it", () => Response.json({ keys: [null, first.jwk] })],
    ["null", () => Response.json(null)],
    ["a list", () => Response.json([first.jwk])],
    ["a string", () => Response.json("keys")],
    ["a body over 256 KB", () => new Response(big())],
    ["a body over 256 KB, in pieces without a length", () => new Response(inPieces(big()))],
    [
      "a redirect to the keys",
      () => new Response(null, { status: 302, headers: { Location: "/elsewhere.json" } }),
    ],
    [
      "a permanent redirect with the keys in its body",
      () =>
        Response.json(
          { keys: [first.jwk] },
          { status: 308, headers: { Location: "/elsewhere.json" } },
        ),
    ],
    ["304", () => new Response(null, { status: 304 })],
  ];

  test.each(unusable)("%s", async (_, handler) => {
    keyServer.answer(handler);
    await using server = startServer({ keys: { jwksUrl: keyServer.url }, clock });
    const answer = await server.mint(await tokenOf(first));
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(answer.headers.get("www-authenticate")).toBeNull();
    expect(await answer.json()).toMatchObject({ status: 503, code: "keys_unavailable" });
    expect(keyServer.requests).toEqual(["/jwks.json"]);
    const log = server.logLines.join("");
    expect(log).toContain('"event":"keys_unavailable"');
    expect(log).not.toContain("token_");
    expect(log).not.toContain(keyServer.url.host);
  });

  test("a key set of just under 256 KB is read", async () => {
    keyServer.answer(
      () => new Response(JSON.stringify({ keys: [first.jwk], filler: "x".repeat(255 * 1024) })),
    );
    expect(await verifier()(await tokenOf(first))).toBe("alice");
  });

  test("a refused connection", async () => {
    const verify = verifier(new URL(`http://127.0.0.1:${freePort()}/jwks.json`));
    expect(await verify(await tokenOf(first))).toBe("keys_unavailable");
    expect(logLines.join("")).toContain('"event":"keys_unavailable"');
  });

  test("a body that breaks off", async () => {
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"keys":[]}');
        },
      },
    });
    const verify = verifier(new URL(`http://127.0.0.1:${listener.port}/jwks.json`));
    expect(await verify(await tokenOf(first))).toBe("keys_unavailable");
    listener.stop(true);
  });

  function inPieces(text: string): ReadableStream {
    return new ReadableStream({
      async start(controller) {
        for (let at = 0; at < text.length; at += 16_384) {
          controller.enqueue(Buffer.from(text.slice(at, at + 16_384)));
          await Bun.sleep(0);
        }
        controller.close();
      },
    });
  }
});

describe("a key server that hangs", () => {
  test.each<[string, () => Response | Promise<Response>]>([
    ["before its answer", () => new Promise<Response>(() => {})],
    [
      "inside its body",
      () =>
        new Response(
          new ReadableStream({
            start: (controller) => controller.enqueue(Buffer.from('{"keys":')),
          }),
        ),
    ],
  ])(
    "%s: keys_unavailable at its deadline for all tokens, over one request",
    async (_, handler) => {
      keyServer.answer(handler);
      await using server = startServer({ keys: { jwksUrl: keyServer.url }, clock });
      const token = await tokenOf(first);
      let answered = 0;
      const minting = Array.from({ length: 10 }, async () => {
        const { status } = await server.mint(token);
        answered++;
        return status;
      });
      while (keyServer.requests.length === 0) await settle(1);
      clock.advance(DEPENDENCY_DEADLINE_MS - 1);
      await settle(50);
      expect(answered).toBe(0);
      clock.advance(1);
      expect(await Promise.all(minting)).toEqual(Array(10).fill(503));
      expect(keyServer.requests).toHaveLength(1);
      // The failure is remembered: no further wait.
      expect((await server.mint(token)).status).toBe(503);
      expect(keyServer.requests).toHaveLength(1);
      expect(clock.delays).toBe(0);
    },
  );
});

describe("an outage", () => {
  test("costs one request each 5 s, and ends by itself", async () => {
    keyServer.answer(outage);
    const verify = verifier();
    const token = await tokenOf(first);
    for (let attempt = 0; attempt < 20; attempt++) {
      expect(await verify(token)).toBe("keys_unavailable");
    }
    expect(keyServer.requests).toHaveLength(1);
    clock.advance(4_999);
    expect(await verify(token)).toBe("keys_unavailable");
    expect(keyServer.requests).toHaveLength(1);
    keyServer.publish(first);
    clock.advance(1);
    expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
  });

  test("leaves the last keys in use for an hour, and after it every token is keys_unavailable", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    await verify(token);
    keyServer.answer(outage);
    clock.advance(10 * MINUTE_MS);
    for (let attempt = 0; attempt < 10; attempt++) expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
    clock.advance(50 * MINUTE_MS - 1);
    expect(await verify(token)).toBe("alice");
    clock.advance(1);
    expect(await verify(token)).toBe("keys_unavailable");
    clock.advance(5_000);
    keyServer.publish(first);
    expect(await verify(token)).toBe("alice");
  });

  test("an hour without a single token ends it, too: the keys are fetched anew", async () => {
    const verify = verifier();
    const token = await tokenOf(first);
    await verify(token);
    clock.advance(2 * HOUR_MS);
    expect(await verify(token)).toBe("alice");
    expect(keyServer.requests).toHaveLength(2);
  });

  test("an unknown key is unavailable and not invalid: it may be a new one", async () => {
    const verify = verifier();
    await verify(await tokenOf(first));
    keyServer.answer(outage);
    clock.advance(30_000);
    for (let attempt = 0; attempt < 10; attempt++) {
      expect(await verify(await tokenOf(second))).toBe("keys_unavailable");
    }
    expect(keyServer.requests).toHaveLength(2);
    keyServer.publish(first, second);
    clock.advance(5_000);
    expect(await verify(await tokenOf(second))).toBe("alice");
    expect(await verify(await tokenOf(third))).toBe("keys_unavailable");
    clock.advance(30_000);
    expect(await verify(await tokenOf(third))).toBe("token_invalid");
  });

  test("doesn't turn a bad signature under a known key into anything but invalid", async () => {
    const verify = verifier();
    await verify(await tokenOf(first));
    keyServer.answer(outage);
    clock.advance(10 * MINUTE_MS);
    expect(await verify(await tokenOf(second, { kid: "k1" }))).toBe("token_invalid");
  });
});

test("what the key server sends beside the keys changes nothing", async () => {
  keyServer.answer(() =>
    Response.json(
      { keys: [first.jwk, { kty: "unheard-of", kid: "k9" }, {}], next: "https://example.com" },
      {
        headers: {
          "Content-Type": "text/plain",
          "Cache-Control": "max-age=1",
          "Set-Cookie": "a=b",
        },
      },
    ),
  );
  const verify = verifier();
  expect(await verify(await tokenOf(first))).toBe("alice");
  clock.advance(2_000);
  expect(await verify(await tokenOf(first))).toBe("alice");
  expect(keyServer.requests).toHaveLength(1);
});
