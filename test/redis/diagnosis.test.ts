import { describe, expect, spyOn, test } from "bun:test";
import { faultCode } from "../../src/lib/log.ts";
import { diagnose } from "../../src/redis/diagnosis.ts";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { certificateFor } from "../support/certificate.ts";
import { settle } from "../support/clock.ts";
import { freePort, startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";

/** What the log says of a command over a transport. */
async function codeOver(url: string, command: string[] = ["PING"], tls?: Bun.TLSOptions) {
  const transport = nativeRedisTransport({ url, ...(tls && { tls }) });
  try {
    return await transport.command(command).catch(faultCode);
  } finally {
    await transport.close();
  }
}

test("a port that nobody listens on is connection_refused", async () => {
  expect(await codeOver(`redis://127.0.0.1:${freePort()}`)).toBe("connection_refused");
});

test("a name that nobody knows is unknown_host", async () => {
  expect(await codeOver("redis://no-such-host.invalid:6379")).toBe("unknown_host");
});

test("Redis' own port is the default", async () => {
  using connect = spyOn(Bun, "connect");
  await diagnose({ url: "redis://no-such-host.invalid", deadlineMs: 1_900 });
  expect(connect.mock.lastCall?.[0]).toMatchObject({ port: 6379 });
});

test("something that says nothing is what Bun's client says of it", async () => {
  using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const transport = nativeRedisTransport({
    url: `redis://127.0.0.1:${silent.port}`,
    deadlineMs: 100,
  });
  await expect(transport.command(["PING"])).rejects.toThrow();
  await transport.close();
});

test.each<[string, (socket: Bun.Socket) => unknown]>([
  [
    "that comes in two pieces is read to the end of its line",
    async (socket) => {
      socket.write("-WRONG");
      await settle(20);
      socket.write("PASS invalid username-password pair\r\n");
    },
  ],
  [
    "whose line doesn't end is read up to 4,096 characters",
    (socket) => socket.write(`-WRONGPASS ${"x".repeat(4_085)}`),
  ],
])("a response %s", async (_, respond) => {
  using server = Bun.listen({
    ...{ hostname: "127.0.0.1", port: 0 },
    socket: { data: (socket) => void respond(socket) },
  });
  const url = `redis://127.0.0.1:${server.port}`;
  expect(await diagnose({ url, deadlineMs: 1_900 })).toMatchObject({ code: "WRONGPASS" });
});

test("a greeting with a dash in it is no error", async () => {
  using server = Bun.listen({
    ...{ hostname: "127.0.0.1", port: 0 },
    socket: { data: (socket) => void socket.write("+redis-like 7.4.0-rc1\r\n") },
  });
  const url = `redis://127.0.0.1:${server.port}`;
  expect(await diagnose({ url, deadlineMs: 1_900 })).toBeUndefined();
});

describeWith("redis-server")("a Redis", () => {
  test("with another password, or an unknown user, is wrong_password", async () => {
    await using redis = await startRedis(["--requirepass", "right"]);
    const { port } = redis;
    expect(await codeOver(redis.url)).toBe("PONG");
    expect(await codeOver(`redis://:wrong@127.0.0.1:${port}`)).toBe("wrong_password");
    expect(await codeOver(`redis://nobody:right@127.0.0.1:${port}`)).toBe("wrong_password");
    expect(await codeOver(`redis://127.0.0.1:${port}`)).toBe("wrong_password");
  });

  test("that works now has no fault, and no connection is left", async () => {
    await using redis = await startRedis(["--requirepass", "p@ss"]);
    const url = `redis://:p%40ss@127.0.0.1:${redis.port}`;
    expect(await diagnose({ url, deadlineMs: 1_900 })).toBeUndefined();
    const clients = async () =>
      String(await redis.command("CLIENT", "LIST"))
        .trim()
        .split("\n");
    while ((await clients()).length > 1) await Bun.sleep(1);
  });

  test("whose ACL doesn't have the command, or the key, is not_permitted", async () => {
    await using redis = await startRedis();
    await redis.command("ACL", "SETUSER", "ws", "on", ">p%w", "~ws-ticket:*", "-@all", "+get");
    const url = `redis://ws:p%25w@127.0.0.1:${redis.port}`;
    expect(await codeOver(url, ["GET", "ws-ticket:a"])).toBeNull();
    expect(await codeOver(url, ["GET", "other"])).toBe("not_permitted");
    expect(await codeOver(url, ["SET", "ws-ticket:a", "1"])).toBe("not_permitted");
  });

  test("without memory is out_of_memory, without a master read_only", async () => {
    await using redis = await startRedis(["--maxmemory", "1"]);
    expect(await codeOver(redis.url, ["SET", "a", "1"])).toBe("out_of_memory");
    await redis.command("REPLICAOF", "127.0.0.1", String(freePort()));
    expect(await codeOver(redis.url, ["DEL", "a"])).toBe("read_only");
  });
});

describeWith("openssl")("a certificate", () => {
  test("that nobody vouches for, or of another host, is bad_certificate, and gets no password", async () => {
    const { key, cert } = await certificateFor("DNS:localhost");
    const received: string[] = [];
    using server = Bun.listen({
      ...{ hostname: "127.0.0.1", port: 0, tls: { key, cert } },
      socket: { data: (_, bytes) => void received.push(String(bytes)) },
    });
    expect(await codeOver(`rediss://:canary@localhost:${server.port}`)).toBe("bad_certificate");
    const tls = { ca: cert };
    const other = `rediss://:canary@127.0.0.1:${server.port}`;
    expect(await codeOver(other, ["PING"], tls)).toBe("bad_certificate");
    await settle();
    expect(received).toEqual([]);
  });

  test("that is trusted: the greeting is sent once, and the response to it read", async () => {
    const { key, cert } = await certificateFor("DNS:localhost");
    const received: string[] = [];
    using server = Bun.listen({
      ...{ hostname: "127.0.0.1", port: 0, tls: { key, cert } },
      socket: {
        data(socket, bytes) {
          received.push(String(bytes));
          socket.write("-WRONGPASS invalid username-password pair\r\n");
        },
      },
    });
    const url = `rediss://:right@localhost:${server.port}`;
    const found = await diagnose({ url, tls: { ca: cert }, deadlineMs: 1_900 });
    expect(found).toMatchObject({ code: "WRONGPASS" });
    await settle();
    expect(received.join("").split("HELLO")).toHaveLength(2);
    expect(await codeOver(url, ["PING"], { ca: cert })).toBe("wrong_password");
  });
});

describe("an Upstash", () => {
  test.each([
    ["WRONGPASS invalid or missing auth token", 401, "wrong_password"],
    ["NOPERM this user has no permissions", 403, "not_permitted"],
    ["OOM command not allowed", 400, "out_of_memory"],
  ])("that answers %p with %i is %s", async (error, status, code) => {
    using server = Bun.serve({ port: 0, fetch: () => Response.json({ error }, { status }) });
    const transport = upstashTransport({ url: server.url.href, token: "token" });
    expect(await transport.command(["PING"]).catch(faultCode)).toBe(code);
  });
});
