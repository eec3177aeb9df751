import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A redis-server of one's own, on a free port, with its files in a folder that goes with it. */
export interface TestRedis extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** One command over a connection of its own. */
  command(...args: string[]): Promise<unknown>;
  /** Keys of the tickets that it holds. */
  ticketKeys(): Promise<string[]>;
  /** SIGKILL, or SIGTERM with `{ save: true }`. */
  kill(options?: { save?: boolean }): Promise<void>;
  /** Starts it again on the same port and folder. */
  restart(): Promise<void>;
  /** SIGSTOP: it keeps its connections and says nothing. */
  freeze(): void;
  thaw(): void;
}

/** Starts redis-server with further arguments of its own (`["--requirepass", "…"]`). */
export async function startRedis(args: readonly string[] = []): Promise<TestRedis> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-redis-"));
  const at = args.indexOf("--requirepass");
  const password = at < 0 ? "" : `:${args[at + 1]}@`;
  let port: number;
  let url: string;
  let child: Bun.Subprocess;
  // Others may take the port, or the second one of a cluster, at the same moment.
  for (let tries = 1; ; tries++) {
    port = freePort();
    url = `redis://${password}127.0.0.1:${port}`;
    try {
      child = await spawn();
      break;
    } catch (error) {
      if (tries === 5) throw error;
    }
  }

  async function spawn(): Promise<Bun.Subprocess> {
    const started = Bun.spawn(
      [
        ...["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--dir", directory],
        ...["--save", "", "--daemonize", "no", ...args],
      ],
      { stdout: "ignore", stderr: "ignore" },
    );
    for (;;) {
      if (started.exitCode !== null) throw new Error("redis-server didn't start");
      const pong = await command("PING").catch(() => undefined);
      if (pong === "PONG") return started;
      await Bun.sleep(5);
    }
  }

  async function command(...words: string[]): Promise<unknown> {
    const client = new Bun.RedisClient(url, { autoReconnect: false, connectionTimeout: 1_000 });
    try {
      await client.connect();
      const [name = "", ...rest] = words;
      return await client.send(name, rest);
    } finally {
      client.close();
    }
  }

  return {
    port,
    url,
    command,
    async ticketKeys() {
      const keys = (await command("KEYS", "ws-ticket:*")) as string[];
      return keys.filter((key) => /^ws-ticket:[0-9a-f]{64}$/.test(key));
    },
    async kill({ save = false } = {}) {
      child.kill(save ? "SIGTERM" : "SIGKILL");
      await child.exited;
    },
    async restart() {
      child = await spawn();
    },
    freeze: () => child.kill("SIGSTOP"),
    thaw: () => child.kill("SIGCONT"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A Redis Sentinel of one's own, which watches no master. */
export async function startSentinel(): Promise<{ url: string } & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-sentinel-"));
  const file = join(directory, "sentinel.conf");
  const port = freePort();
  const url = `redis://127.0.0.1:${port}`;
  await Bun.write(file, `port ${port}\nbind 127.0.0.1\n`);
  const child = Bun.spawn(["redis-server", file, "--sentinel"], { stdout: "ignore" });
  for (;;) {
    if (child.exitCode !== null) throw new Error("redis-server didn't start");
    const client = new Bun.RedisClient(url, { autoReconnect: false, connectionTimeout: 1_000 });
    const isUp = await client.send("PING", []).then(
      () => true,
      () => false,
    );
    client.close();
    if (isUp) break;
    await Bun.sleep(5);
  }
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Ports that systems don't give to connections: one that is free for a moment may be listened on again. */
const PORTS = { first: 10_000, count: 20_000 };

/** A free port. */
export function freePort(): number {
  for (;;) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch {
      // Taken.
    }
  }
}
