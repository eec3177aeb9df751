import { expect, test } from "bun:test";
import { type RefusalCode, REFUSAL_CODES } from "../src/request/refusal.ts";
import { signToken } from "../src/gate/token.ts";
import { startProcess, type TestProcess } from "./support/process.ts";
import { startProxy } from "./support/proxy.ts";
import { handshake, sendRaw } from "./support/raw.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { describeWith } from "./support/require.ts";
import { openSocket } from "./support/socket.ts";
import { startUpstashBridge } from "./support/upstash.ts";

/** Every way in which a secret could be written down. */
function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const shifted = [0, 1, 2].flatMap((shift) => {
    // As a part of something longer: cut off what the neighbours would change.
    const padded = Buffer.concat([Buffer.alloc(shift), bytes]);
    const whole = padded.subarray(0, padded.length - (padded.length % 3));
    const skip = shift === 0 ? 0 : 4;
    return [whole.toString("base64").slice(skip), whole.toString("base64url").slice(skip)];
  });
  const json = JSON.stringify(secret).slice(1, -1);
  return [
    ...[
      secret,
      encodeURIComponent(secret),
      encodeURI(secret),
      json,
      JSON.stringify(json).slice(1, -1),
    ],
    ...[new URLSearchParams({ s: secret }).toString().slice(2), bytes.toString("hex"), ...shifted],
  ];
}

/** Collects secrets and everything that was said, and finds the one in the other. */
function createWatch() {
  const secrets = new Map<string, string>();
  const texts: { where: string; text: string; own: readonly string[] }[] = [];
  return {
    secret(name: string, value: string): string {
      secrets.set(value, name);
      return value;
    },
    /** `own`: what this text alone is there to carry. */
    heard(where: string, text: string, own: readonly string[] = []): void {
      texts.push({ where, text, own });
    },
    leaks(): string[] {
      return texts.flatMap(({ where, text, own }) =>
        [...secrets]
          .filter(([value]) => !own.includes(value))
          .filter(([value]) => spellings(value).some((spelling) => text.includes(spelling)))
          .map(([, name]) => `${name} in ${where}`),
      );
    },
  };
}
type Watch = ReturnType<typeof createWatch>;

const CHAT_TEXT = 'canary chat "text" <b>with</b> späces & 漢字 \\ 8c1d';
const JWT_SECRET = "canary-jwt-secret/+= 41b0c7d2e99f";
const SESSION_SECRET = "canary-session-secret/+= 7720aa13f5";
const REDIS_PASSWORD = "canary-redis-password-5f3e";
const UPSTASH_TOKEN = "canary-upstash-token-90ab";

async function tokenOf(watch: Watch, user: string): Promise<string> {
  const email = watch.secret("a claim", `canary-${user}@mail.example`);
  const token = await signToken({
    secret: new TextEncoder().encode(JWT_SECRET),
    user,
    expiresAtMs: Date.now() + 3_600_000,
    claims: { email },
  });
  const [, payload = "", signature = ""] = token.split(".");
  watch.secret("a token", token);
  watch.secret("a token's payload", payload);
  watch.secret("a token's signature", signature);
  return token;
}

/** A client that hands every answer to the watch. */
function createClient(watch: Watch, url: URL) {
  const port = Number(url.port);
  const seen = new Set<string>();
  async function ask(request: string) {
    const answer = await sendRaw(port, request);
    const { code } = (answer.status < 400 ? {} : JSON.parse(answer.body)) as { code?: RefusalCode };
    if (code) seen.add(code);
    watch.heard(`the answer ${code ?? answer.status}`, answer.text);
    return answer;
  }
  function post(path: string, headers: Record<string, string>, body = ""): string {
    const all = { Host: url.host, ...headers, "Content-Length": String(Buffer.byteLength(body)) };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    return `POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
  }
  return {
    seen,
    ask,
    post,
    /** A handshake that asks for `target`. */
    open: (
      target: string,
      headers: Record<string, string | null> = {},
      options: { method?: string } = {},
    ) => ask(handshake(target, headers as Record<string, string>, { host: url.host, ...options })),
    mint: (token: string) => ask(post("/api/auth/ws-ticket", { Authorization: `Bearer ${token}` })),
    async ticket(token: string): Promise<string> {
      const request = post("/api/auth/ws-ticket", { Authorization: `Bearer ${token}` });
      const answer = await sendRaw(port, request);
      const { ticket } = JSON.parse(answer.body) as { ticket: string };
      watch.heard("an answer with another ticket", answer.text, [ticket]);
      return watch.secret("a ticket", ticket);
    },
    async cookie(): Promise<string> {
      const answer = await sendRaw(port, post("/api/auth/anonymous-session", {}));
      const cookie = answer.headers.get("set-cookie")?.split(";")[0] ?? "";
      const [value = "", mac = ""] = [cookie.split("=")[1], cookie.split(".").at(-1)];
      watch.heard("an answer with another cookie", answer.text, [value, mac]);
      watch.secret("a cookie", value);
      watch.secret("a cookie's MAC", mac);
      return cookie;
    },
  };
}

/** Everything that stands in a Redis: keys, and values of whatever type. */
async function contentOf(redis: TestRedis): Promise<string> {
  const read: Record<string, (key: string) => string[]> = {
    string: (key) => ["GET", key],
    hash: (key) => ["HGETALL", key],
    list: (key) => ["LRANGE", key, "0", "-1"],
    set: (key) => ["SMEMBERS", key],
    zset: (key) => ["ZRANGE", key, "0", "-1", "WITHSCORES"],
    stream: (key) => ["XRANGE", key, "-", "+"],
  };
  const keys = (await redis.command("KEYS", "*")) as string[];
  const values = keys.map(async (key) => {
    const type = String(await redis.command("TYPE", key));
    return [key, await redis.command(...(read[type]?.(key) ?? ["DUMP", key]))];
  });
  return (await Promise.all(values)).map((pair) => JSON.stringify(pair)).join("\n");
}

function hearProcess(watch: Watch, child: TestProcess): void {
  watch.heard("stdout", child.stdout);
  watch.heard("stderr", child.stderr);
}

test("the watch finds a secret however it is written, and spares the text that is there to carry it", () => {
  const watch = createWatch();
  const secret = watch.secret("a secret", 'canary "one" ä');
  watch.heard("nothing", "canary one");
  watch.heard("its own", secret, [secret]);
  expect(watch.leaks()).toEqual([]);
  for (const text of [
    `x${secret}x`,
    `?a=${encodeURIComponent(secret)}&b`,
    JSON.stringify({ secret }),
    JSON.stringify(JSON.stringify({ secret })),
    Buffer.from(secret).toString("base64"),
    Buffer.from(`a${secret}b`).toString("base64url"),
    Buffer.from(`ab${secret}`).toString("base64"),
    Buffer.from(secret).toString("hex"),
  ]) {
    const each = createWatch();
    each.secret("a secret", secret);
    each.heard("text", text);
    expect(each.leaks()).toEqual(["a secret in text"]);
  }
});

describeWith("redis-server")(
  "no secret is in the log, in another's answer, or in the store",
  () => {
    test("through every refusal, a chat, and a Redis that fails", async () => {
      const watch = createWatch();
      for (const secret of [JWT_SECRET, SESSION_SECRET, REDIS_PASSWORD]) {
        watch.secret(secret.split(/[/\d]/)[0] as string, secret);
      }
      watch.secret("chat text", CHAT_TEXT);
      await using redis = await startRedis(["--requirepass", REDIS_PASSWORD]);
      await using proxy = await startProxy(redis);
      await using child = startProcess({
        JWT_SECRET,
        SESSION_SECRET,
        REDIS_URL: proxy.url,
        LOG_LEVEL: "debug",
        TICKETS_PER_MINUTE: "20",
      });
      const url = await child.listening;
      const client = createClient(watch, url);
      const token = await tokenOf(watch, "alice");
      const cookie = await client.cookie();
      const ticket = await client.ticket(token);
      const target = `/ws/chat?ticket=${ticket}`;
      const forged = watch.secret("a forged token", `${token.slice(0, -8)}AAAAAAAA`);
      const guessed = watch.secret("a guessed ticket", `${"canaryguess".repeat(4).slice(0, 42)}A`);
      const tampered = watch.secret("a tampered cookie", `${cookie.slice(0, -8)}AAAAAAAA`);
      const bearer = { Authorization: `Bearer ${token}` };

      // Each of these carries a credential that it must not give away.
      await client.open(`${target}&ticket=${ticket}`);
      await client.open(target, { "Sec-WebSocket-Key": `${ticket.slice(0, 21)}!==` });
      await client.open(target, { "Sec-WebSocket-Version": "8" });
      await client.open(target, { Upgrade: null, Cookie: cookie });
      await client.open(target, { Origin: `https://${ticket}.example` });
      await client.open(target, {}, { method: "POST" });
      await client.open(`/${ticket}/${token}`);
      await client.open(target, { Host: `${ticket}@127.0.0.1:99999` });
      for (const name of ["token", "access_token", "JWT", "%74oken", "anonSessionId"]) {
        await client.open(`/ws/chat?${name}=${token}`, bearer);
      }
      await client.open(`/ws/chat?ticket=${token}`);
      await client.open(`/ws/chat?ticket=${guessed}`, { Cookie: cookie, Origin: url.origin });
      await client.open(`/ws/chat?ticket=${ticket}%0d%0aX-Canary:1`);
      await client.open("/ws/chat", { Cookie: tampered, Origin: url.origin });
      await client.open("/ws/chat", { Cookie: cookie });
      await client.open("/ws/chat", {
        "Sec-WebSocket-Protocol": `ticket.${ticket}, bearer.${token}`,
      });
      const mintAt = "/api/auth/ws-ticket";
      await client.mint(forged);
      await client.ask(client.post(mintAt, { Authorization: `Basic ${btoa(ticket)}` }));
      await client.ask(client.post(mintAt, { Authorization: `Bearer ${token} ${token}` }));
      await client.ask(client.post(`${mintAt}?token=${token}`, bearer));
      await client.ask(client.post("/nowhere", bearer, CHAT_TEXT));
      await client.ask(client.post("/healthz", { ...bearer, Cookie: cookie }));
      await client.ask(client.post(mintAt, bearer, `${CHAT_TEXT}${token}`.repeat(2_000)));
      await client.ask(
        client.post("/api/auth/anonymous-session", {
          Origin: "https://evil.example",
          Cookie: cookie,
        }),
      );
      await client.ask(client.post("/api/demo/token", bearer, JSON.stringify({ name: CHAT_TEXT })));

      // What the store holds while tickets are out: their hashes only.
      watch.heard("Redis", await contentOf(redis), [CHAT_TEXT]);
      expect(await redis.command("DBSIZE")).toBeGreaterThan(0);

      // The ticket has survived all of that; now it is used, and used again.
      const socketUrl = url.origin.replace("http", "ws");
      await using user = openSocket(`${socketUrl}${target}`);
      await user.opened;
      await client.open(target);
      await using visitor = openSocket(`${socketUrl}/ws/chat`, {
        Cookie: cookie,
        Origin: url.origin,
      });
      await visitor.opened;
      visitor.send({ type: "ANON_TO_USER", to: "alice", content: CHAT_TEXT, ref: "1" });
      await user.next(({ content }) => content === CHAT_TEXT);
      for (const bad of [CHAT_TEXT, { type: CHAT_TEXT }, { type: "ANON_TO_USER", to: ticket }]) {
        visitor.send(bad);
        const error = await visitor.next(({ type }) => type === "ERROR");
        watch.heard("an ERROR frame", JSON.stringify(error));
      }
      visitor.socket.send(new TextEncoder().encode(CHAT_TEXT));
      watch.heard("a close reason", (await visitor.closed).reason);

      // Failures of the store, with a ticket on its way in each.
      const faulty = await client.ticket(token);
      for (const kind of ["reset-before", "reset-during", "reset-after"] as const) {
        for (const command of ["EVAL", "GETDEL"]) {
          proxy.fault = { command, kind };
          await client.mint(token);
          await client.open(`/ws/chat?ticket=${faulty}`);
        }
      }
      proxy.fault = undefined;
      const last = await client.ticket(token);
      await redis.command("CONFIG", "SET", "maxmemory", "1");
      await client.mint(token);
      await redis.command("ACL", "SETUSER", "default", "-getdel", "-set");
      await client.open(`/ws/chat?ticket=${last}`);
      await redis.kill();
      await client.open(`/ws/chat?ticket=${last}`);
      const eager = await tokenOf(watch, "eager");
      for (let asked = 0; asked < 21; asked++) await client.mint(eager);

      child.kill("SIGTERM");
      expect((await user.closed).code).toBe(1012);
      expect(await child.exited).toBe(0);
      hearProcess(watch, child);
      // On its way to Redis only the password, which belongs there.
      watch.heard("the wire to Redis", JSON.stringify(proxy.commands), [REDIS_PASSWORD, CHAT_TEXT]);

      expect(watch.leaks()).toEqual([]);
      const elsewhere = new Set(["internal_error", "keys_unavailable", "shutting_down"]);
      const expected = REFUSAL_CODES.filter((code) => !elsewhere.has(code));
      for (const code of expected) expect(client.seen).toContain(code);
      expect(child.events.length).toBeGreaterThan(40);
      expect(child.stdout).toContain(
        new Bun.CryptoHasher("sha256").update(ticket).digest("hex").slice(0, 6),
      );
    }, 30_000);

    test("through an Upstash that fails and quotes what it was sent", async () => {
      const watch = createWatch();
      const secret = "canary-upstash-quoted-77aa";
      watch.secret("the session secret", SESSION_SECRET);
      watch.secret("the token secret", JWT_SECRET);
      watch.secret("Upstash's token", UPSTASH_TOKEN);
      watch.secret("what Upstash quotes", secret);
      await using redis = await startRedis();
      await using bridge = await startUpstashBridge(redis.url, { token: UPSTASH_TOKEN });
      await using child = startProcess({
        JWT_SECRET,
        SESSION_SECRET,
        UPSTASH_REDIS_REST_URL: bridge.url,
        UPSTASH_REDIS_REST_TOKEN: UPSTASH_TOKEN,
        LOG_LEVEL: "debug",
      });
      const client = createClient(watch, await child.listening);
      const token = await tokenOf(watch, "alice");
      const ticket = await client.ticket(token);
      watch.heard("Redis", await contentOf(redis));
      const faults: readonly (() => Response)[] = [
        () => Response.json({ error: `ERR ${secret}, command was: ["GETDEL","${secret}"]` }),
        () => Response.json({ error: `WRONGPASS ${secret}` }, { status: 401 }),
        () => new Response(`<html>${secret}</html>`, { status: 502 }),
        () => new Response(`{"result":"${secret}`),
        () => Response.json({ result: [secret] }),
        () => Response.json({ [secret]: secret }),
        () => Response.redirect(`https://${secret}.invalid/`),
      ];
      for (const fault of faults) {
        bridge.fault = fault;
        expect((await client.mint(token)).status).toBe(503);
        expect((await client.open(`/ws/chat?ticket=${ticket}`)).status).toBe(503);
      }
      bridge.fault = "lose-reply";
      await client.mint(token);
      await client.open(`/ws/chat?ticket=${ticket}`);
      bridge.fault = "hang";
      await Promise.all([client.mint(token), client.open(`/ws/chat?ticket=${ticket}`)]);
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      hearProcess(watch, child);
      expect(watch.leaks()).toEqual([]);
      // Nine mints, and as many sockets, each of which failed before or at its ticket.
      const failed = child.events.filter(({ event }) =>
        /^(?:store|feed)_failed$/.test(String(event)),
      );
      expect(failed.length).toBeGreaterThanOrEqual(18);
    }, 15_000);

    test("with a key server that is away", async () => {
      const watch = createWatch();
      const away = watch.secret("the key server's path", "canary-keys-path-3c");
      await using child = startProcess({
        JWT_JWKS_URL: `http://127.0.0.1:${freePort()}/${away}?key=${away}`,
        SESSION_SECRET: watch.secret("the session secret", SESSION_SECRET),
        LOG_LEVEL: "debug",
      });
      const client = createClient(watch, await child.listening);
      const token = await tokenOf(watch, "alice");
      expect(
        (await client.mint(token.replace(/^[^.]+/, btoa('{"alg":"RS256"}').replace(/=+$/, ""))))
          .status,
      ).toBe(503);
      expect([...client.seen]).toEqual(["keys_unavailable"]);
      child.kill("SIGTERM");
      await child.exited;
      hearProcess(watch, child);
      expect(watch.leaks()).toEqual([]);
    });
  },
);
