import { nativeRedisTransport } from "../../src/redis/native.ts";
import type { Clock } from "../../src/lib/clock.ts";
import type { RedisSettings } from "../../src/open.ts";
import type { RedisTransport } from "../../src/redis/transport.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { startProxy } from "./proxy.ts";
import { freePort, startRedis, type TestRedis } from "./redis.ts";
import { startUpstashBridge, type UpstashBridge } from "./upstash.ts";

/** A Redis together with one of the two ways to it, seen and broken from the outside in the same words. */
export interface Wire extends AsyncDisposable {
  readonly redis: TestRedis;
  /** Where the Redis is, for `openRedis`. */
  readonly settings: RedisSettings;
  /** A connection of its own to the Redis. */
  transport(options?: { deadlineMs?: number; clock?: Clock }): RedisTransport;
  /** How often a command of this name has been sent to the far end. */
  sent(name: string): number;
  /** Resolves when one more command of each of these names has been sent. */
  reached(...names: string[]): Promise<void>;
  /** The far end executes what it is sent, and its replies (native: to this command) are lost on their way back. */
  loseReplies(command?: string): void;
  /** The far end takes commands without executing or answering them, until `heal`. */
  stall(): void;
  heal(): void;
  /** Nobody listens at the address any more, until `comeBack`. */
  goDown(): Promise<void>;
  comeBack(): Promise<void>;
}

export type WireName = "native" | "upstash";
export const WIRE_NAMES: readonly WireName[] = ["native", "upstash"];

export function startWire(name: WireName): Promise<Wire> {
  return name === "native" ? startNativeWire() : startUpstashWire();
}

async function startNativeWire(): Promise<Wire> {
  const redis = await startRedis();
  const proxy = await startProxy(redis);
  return {
    redis,
    settings: { url: proxy.url },
    transport: (options) => nativeRedisTransport({ url: proxy.url, ...options }),
    sent: proxy.count,
    reached: (...names) => reached(proxy.count, names),
    loseReplies(command = "GETDEL") {
      proxy.fault = { command, kind: "reset-after" };
    },
    stall: proxy.freeze,
    heal() {
      proxy.fault = undefined;
      proxy.thaw();
    },
    goDown: () => redis.kill(),
    comeBack: () => redis.restart(),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
    },
  };
}

async function startUpstashWire(): Promise<Wire> {
  const redis = await startRedis();
  const port = freePort();
  const bridges: UpstashBridge[] = [await startUpstashBridge(redis.url, { port })];
  const current = () => bridges.at(-1) as UpstashBridge;
  const { url, token } = current();
  const sent = (name: string) =>
    bridges.flatMap(({ requests }) => requests).filter((one) => one === name).length;
  return {
    redis,
    settings: { url, token },
    transport: (options) => upstashTransport({ url, token, ...options }),
    sent,
    reached: (...names) => reached(sent, names),
    loseReplies() {
      current().fault = "lose-reply";
    },
    stall() {
      current().fault = "hang";
    },
    heal() {
      current().fault = undefined;
    },
    async goDown() {
      await current()[Symbol.asyncDispose]();
    },
    async comeBack() {
      bridges.push(await startUpstashBridge(redis.url, { port }));
    },
    async [Symbol.asyncDispose]() {
      await current()[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when one more command of each of these names has been counted. */
export async function reached(sent: (name: string) => number, names: string[]): Promise<void> {
  const before = names.map(sent);
  while (!names.every((name, at) => sent(name) > (before[at] as number))) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}
