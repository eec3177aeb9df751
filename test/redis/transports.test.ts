import { describe, expect, test } from "bun:test";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import { RedisError } from "../../src/redis/transport.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startUpstashBridge } from "../support/upstash.ts";

describeWith("redis-server")("native transport", () => {
  test("opens another connection for the next command after one was closed, which works at once", async () => {
    await using redis = await startRedis();
    const transport = nativeRedisTransport({ url: redis.url, clock: fakeClock() });
    for (let cut = 0; cut < 5; cut++) {
      expect(await transport.command(["PING"])).toBe("PONG");
      await redis.command("CLIENT", "KILL", "TYPE", "normal");
      // Until the end of the connection has been heard of.
      await settle(100);
      expect(await transport.command(["PING"])).toBe("PONG");
    }
    await transport.close();
  });

  test("replies in the shapes of RESP2: numbers for truth, lists for maps", async () => {
    await using redis = await startRedis();
    const transport = nativeRedisTransport({ url: redis.url });
    const reply = (value: string) =>
      transport.command(["EVAL", `redis.setresp(3) return ${value}`, "0"]);
    expect(await reply("{true, false, {map = {a = {map = {b = true}}}}}")).toEqual([
      ...[1, 0, ["a", ["b", 1]]],
    ]);
    await transport.close();
  });
});

test.each([
  ["ERR syntax error", "ERR"],
  ["WRONGPASS canary", "WRONGPASS"],
  ["ERR ACL failure in script: canary", "NOPERM"],
  ["Canary: no code at all", "REFUSED"],
])("the error %p has the code %s, and keeps nothing else", (message, code) => {
  const error = new RedisError(message);
  expect([error.code, error.message]).toEqual([code, `Redis refused a command: ${code}`]);
});

describe("upstash transport", () => {
  const settings = () => startUpstashBridge("redis://127.0.0.1:1");

  test("rejects a response without a result, whatever the command; null is a result", async () => {
    await using bridge = await settings();
    const transport = upstashTransport({ ...bridge, clock: fakeClock() });
    for (const body of [{}, null, { results: [] }, { result: undefined }]) {
      bridge.fault = () => Response.json(body);
      await expect(transport.command(["XRANGE", "a", "-", "+"])).rejects.toMatchObject({
        code: "no_result",
      });
    }
    bridge.fault = () => Response.json({ result: null });
    expect(await transport.command(["GET", "a"])).toBeNull();
  });
});
