import { connect } from "node:tls";
import { type People, peopleOf } from "../support/people.ts";
import { startInstance, type TestInstance } from "../support/process.ts";
import { freePort } from "../support/redis.ts";
import { type Front, type FrontName, startFront } from "./front.ts";

/** Real servers behind a real proxy, and people who know the proxy alone. */
export interface Deployment extends People, AsyncDisposable {
  readonly front: Front;
  readonly origin: string;
  readonly instances: readonly TestInstance[];
  /** Ends an instance as a service manager does, and starts another one in its place, at the same port. */
  replace(at: number): Promise<void>;
}

/** Starts as many instances as `count`, with this environment beside the one of the README, and the proxy in front. */
export async function deploy(
  name: FrontName,
  {
    count = 1,
    host = "localhost",
    environment = {},
  }: { count?: number; host?: string; environment?: Record<string, string> } = {},
): Promise<Deployment> {
  const port = freePort();
  const settings = { PUBLIC_URL: `https://${host}:${port}`, TRUST_PROXY: "1", ...environment };
  await using stack = new AsyncDisposableStack();
  const instances: TestInstance[] = [];
  stack.defer(async () => {
    await Promise.all(instances.map((one) => one[Symbol.asyncDispose]()));
  });
  const starting = Array.from({ length: count }, () => startInstance(settings));
  for (const one of starting) instances.push(await one);
  const to = instances.map(({ origin }) => Number(new URL(origin).port));
  const front = stack.use(await startFront(name, { to, host, port }));
  const owned = stack.move();
  return {
    ...peopleOf(front.origin, { ca: front.ca }),
    ...{ front, instances, origin: front.origin },
    async replace(at) {
      const old = instances[at] as TestInstance;
      old.kill("SIGTERM");
      if ((await old.exited) !== 0) throw new Error(`It failed to stop: ${old.stdout}`);
      instances[at] = await startInstance({ ...settings, PORT: String(to[at]) });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Sends lines to the proxy, as they are, from this loopback address; the response's status. */
export async function sendFrom(
  address: string,
  { port, ca }: Front,
  lines: readonly string[],
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const socket = connect({
    ...{ host: address.includes(":") ? "::1" : "127.0.0.1", localAddress: address },
    ...{ port, ca, servername: "localhost" },
  } as Parameters<typeof connect>[0]);
  socket.on("data", (bytes) => resolve(Number(String(bytes).split(" ")[1])));
  socket.on("error", reject);
  socket.on("close", () => resolve(0));
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
