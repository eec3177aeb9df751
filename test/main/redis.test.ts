import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { certificateFor } from "../support/certificate.ts";
import { runCommand } from "../support/command.ts";
import { SETTINGS, startInstance, startProcess, type TestInstance } from "../support/process.ts";
import { freePort, startRedis, startSentinel, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";

/** A user and a visitor write to each other, and the user signs out: everything that a server does with a Redis. */
async function useAll(server: TestInstance): Promise<void> {
  const visitor = await server.openVisitor();
  const user = await server.openUser("alice");
  visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
  expect(await visitor.next(({ type }) => type === "ACK")).toMatchObject({ ref: "1" });
  const message = await user.next(({ type }) => type === "ANON_TO_USER");
  user.send({ type: "USER_TO_ANON", to: message.from, content: "Welcome", ref: "2" });
  expect(await visitor.next(({ type }) => type === "USER_TO_ANON")).toMatchObject({
    content: "Welcome",
  });
  user.send({ type: "MARK_AS_READ", chatId: message.from });
  await visitor.next(({ type }) => type === "READ");
  const claims = { jti: "one", iat: Math.floor(Date.now() / 1000) };
  const Authorization = `Bearer ${await server.token("alice", { claims })}`;
  const ask = (path: string, method = "GET") =>
    fetch(`${server.origin}${path}`, { method, headers: { Authorization } });
  const { chats } = (await (await ask("/api/chats")).json()) as { chats: unknown[] };
  expect(chats).toHaveLength(1);
  const path = `/api/chats/${String(message.from)}`;
  expect((await ask(`${path}/messages`)).status).toBe(200);
  for (const method of ["PUT", "DELETE"]) {
    expect((await ask(`${path}/block`, method)).status).toBe(204);
  }
  expect((await ask(path, "DELETE")).status).toBe(204);
  expect((await ask("/api/auth/sign-out", "POST")).status).toBe(204);
  expect((await ask("/readyz")).status).toBe(200);
  expect(server.events.filter(({ level }) => level === "error")).toEqual([]);
}

/** The exit code of a server that can't start, and its last line. */
async function refusalOf(redis: { url: string }) {
  await using child = startProcess({ ...SETTINGS, REDIS_URL: redis.url });
  const code = await Promise.race([child.exited, child.listening.then(() => "listening")]);
  return { code, line: child.events.at(-1) };
}

describeWith("redis-server")("a server on a Redis", () => {
  test("needs no more of its ACL than what the README says", async () => {
    await using redis = await startRedis();
    const rules = "~ws-ticket:* -@all +@read +@write +@scripting +@connection +time -@dangerous";
    await redis.command("ACL", "SETUSER", "ws", "on", ">pw", ...rules.split(" "));
    const REDIS_URL = `redis://ws:pw@127.0.0.1:${redis.port}`;
    await using server = await startInstance({ REDIS_URL });
    await useAll(server);
    const { stdout } = await runCommand(["check"], { environment: { ...SETTINGS, REDIS_URL } });
    expect(stdout).not.toContain("fault");
    await redis.command("ACL", "SETUSER", "ws", "-xinfo", "-time");
    const lacking = await runCommand(["check"], { environment: { ...SETTINGS, REDIS_URL } });
    expect(lacking.code).toBe(78);
    expect(lacking.stdout).toContain("not permitted: +xinfo +time");
  });

  test("whose keys have another prefix sees nothing of the other server's", async () => {
    await using redis = await startRedis();
    await redis.command("ACL", "SETUSER", "default", "resetkeys", "~one:*", "~two.a-b:*");
    const REDIS_URL = redis.url;
    await using one = await startInstance({ REDIS_URL, REDIS_PREFIX: "one:" });
    await using two = await startInstance({ REDIS_URL, REDIS_PREFIX: "two.a-b:" });
    const ticket = await one.ticket("alice");
    const Authorization = `Bearer ${await two.token("alice")}`;
    const readers = await Promise.all([one.openUser("alice"), two.openUser("alice")]);
    const visitor = await one.openVisitor();
    visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
    await readers[0].next(({ type }) => type === "ANON_TO_USER");
    const headers = { Authorization };
    const chats = await fetch(`${two.origin}/api/chats`, { headers });
    expect(await chats.json()).toEqual({ chats: [], more: false });
    const elsewhere = await two.ask(`/ws/chat?ticket=${ticket}`, { headers: UPGRADE });
    expect(elsewhere.status).toBe(401);
    const everywhere = { method: "POST", body: JSON.stringify({ everywhere: true }) };
    const claims = { iat: Math.floor(Date.now() / 1000) };
    const token = await one.token("alice", { claims });
    await fetch(`${one.origin}/api/auth/sign-out`, {
      ...everywhere,
      headers: { Authorization: `Bearer ${token}` },
    });
    expect((await readers[0].closed).code).toBe(4500);
    readers[1].send({ type: "MARK_AS_READ", chatId: "nobody" });
    await readers[1].next(({ type }) => type === "ERROR");
    const environment = { ...SETTINGS, REDIS_URL, REDIS_PREFIX: "three:" };
    const { stdout } = await runCommand(["check"], { environment });
    expect(stdout).toContain("no command on three:* permitted");
    await redis.command("ACL", "SETUSER", "default", "allkeys");
    const keys = (await redis.command("KEYS", "*")) as string[];
    const prefixes = new Set(keys.map((key) => /^[^:]+:/.exec(key)?.[0]));
    expect([...prefixes].toSorted()).toEqual(["one:", "two.a-b:"]);
  });

  test("that is a cluster doesn't start, and says why", async () => {
    await using redis = await startRedis(["--cluster-enabled", "yes"]);
    expect(await refusalOf(redis)).toMatchObject({
      code: 78,
      line: {
        ...{ event: "config_fault", variable: "REDIS_URL" },
        note: expect.stringMatching(/^names a cluster\. .*use one Redis$/),
      },
    });
  });

  test("that is a Sentinel doesn't start, and says why", async () => {
    await using sentinel = await startSentinel();
    expect(await refusalOf(sentinel)).toMatchObject({
      code: 78,
      line: {
        ...{ event: "config_fault", variable: "REDIS_URL" },
        note: expect.stringMatching(/^names a Sentinel\. .*a proxy in front/),
      },
    });
  });
});

const UPGRADE = {
  ...{ Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13" },
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** A Redis with TLS, whose certificate only `caFile` vouches for; nothing where redis-server is built without it. */
async function withTls(
  run: (redis: TestRedis, at: { url: string; caFile: string }) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "ws-ticket-redis-tls-"));
  try {
    const { key, cert } = await certificateFor("DNS:localhost");
    const [keyFile, caFile] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    await Promise.all([Bun.write(keyFile, key), Bun.write(caFile, cert)]);
    const port = freePort();
    await using redis = await startRedis([
      ...["--tls-port", String(port), "--tls-auth-clients", "no", "--tls-cert-file", caFile],
      ...["--tls-key-file", keyFile, "--tls-ca-cert-file", caFile],
    ]);
    await run(redis, { url: `rediss://localhost:${port}`, caFile });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

describeWith("openssl")("a server on a Redis with TLS", () => {
  test("trusts its certificate by NODE_EXTRA_CA_CERTS, and without that says what is wrong", async () => {
    await withTls(async (_, { url, caFile }) => {
      await using server = await startInstance({ REDIS_URL: url, NODE_EXTRA_CA_CERTS: caFile });
      await useAll(server);
      const environment = { ...SETTINGS, REDIS_URL: url };
      const checked = await runCommand(["check"], {
        environment: { ...environment, NODE_EXTRA_CA_CERTS: caFile },
      });
      expect([checked.code, checked.stdout]).toEqual([0, expect.stringContaining("all ")]);
      const { code, stdout } = await runCommand(["check"], { environment });
      expect(code).toBe(78);
      expect(stdout).toContain("bad_certificate");
      expect(stdout).toContain("NODE_EXTRA_CA_CERTS");
    });
  });
});
