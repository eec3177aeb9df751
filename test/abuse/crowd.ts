/**
 * The honest crowd, in a process of its own: pairs of a user and a visitor, each with an address of their own, who
 * write, read, mint tickets and open sockets. Takes one job after the other over IPC, and answers with how long it
 * all took and what went wrong.
 */
import type { TestSocket } from "../support/socket.ts";
import { type Client, clientAt, openPair } from "./client.ts";

export type CrowdJob =
  | { readonly kind: "gather"; readonly origins: readonly string[]; readonly pairs: number }
  | { readonly kind: "live"; readonly seconds: number };

/** What people do, and for how long they wait for it. */
export const DEEDS = ["mint", "admission", "message", "page"] as const;
export type Deed = (typeof DEEDS)[number];

export interface CrowdOutcome {
  readonly count: Readonly<Record<Deed, number>>;
  readonly p99Ms: Readonly<Record<Deed, number>>;
  /** Open sockets that ended although nobody had closed them. */
  readonly ended: number;
  /** Deeds that failed, by their errors. */
  readonly failures: Readonly<Record<string, number>>;
}

/** How often a pair does everything once, in milliseconds: within the limits of a minute. */
const ROUND_MS = 2_000;
const MESSAGES_PER_ROUND = 3;
/** The longest anybody waits. */
const PATIENCE_MS = 15_000;

interface Pair {
  readonly name: string;
  readonly user: Client;
  readonly visiting: Client;
  readonly token: string;
  readonly visitor: string;
  readonly userSocket: TestSocket;
  readonly visitorSocket: TestSocket;
}

let pairs: Pair[] = [];
/** What becomes of messages that are refused, by their `ref`. */
const refusals = new Map<string, (error: Error) => void>();
let ended = 0;
let messages = 0;

process.on("message", async (job: CrowdJob) => {
  process.send?.(job.kind === "gather" ? await gather(job) : await live(job.seconds * 1000));
});

async function gather({ origins, pairs: count }: CrowdJob & { kind: "gather" }): Promise<null> {
  ended = 0;
  pairs = await Promise.all(
    Array.from({ length: count }, async (_, at): Promise<Pair> => {
      const clientOf = (side: number) => {
        const origin = origins[(at + side) % origins.length] as string;
        return clientAt(origin, `198.18.${side}.${at}`);
      };
      const [user, visiting] = [clientOf(0), clientOf(1)];
      const name = `user ${at}`;
      const opened = await openPair({ client: user, name }, { client: visiting });
      const pair = { name, user, visiting, ...opened };
      pair.visitorSocket.onFrame(({ type, ref, code }) => {
        if (type === "ERROR") refusals.get(ref)?.(new Error(code));
      });
      for (const { closed } of [pair.userSocket, pair.visitorSocket])
        void closed.then(() => ended++);
      return pair;
    }),
  );
  return null;
}

async function live(forMs: number): Promise<CrowdOutcome> {
  const times: Record<Deed, number[]> = { mint: [], admission: [], message: [], page: [] };
  const failures: Record<string, number> = {};
  const endedBefore = ended;
  const endMs = performance.now() + forMs;

  async function time<T>(deed: Deed, run: () => Promise<T>): Promise<T | undefined> {
    const startedAtMs = performance.now();
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error("timeout")), PATIENCE_MS);
    try {
      return await Promise.race([run(), promise]);
    } catch (error) {
      const name = `${deed}: ${(error as Error).message}`;
      failures[name] = (failures[name] ?? 0) + 1;
      return undefined;
    } finally {
      clearTimeout(timer);
      times[deed].push(performance.now() - startedAtMs);
    }
  }

  async function round({ name, user, visiting, token, visitor, userSocket, visitorSocket }: Pair) {
    for (let n = 0; n < MESSAGES_PER_ROUND; n++) {
      const content = `message ${++messages}`;
      await time("message", async () => {
        visitorSocket.send({ type: "ANON_TO_USER", to: name, content, ref: content });
        const { promise: refused, reject } = Promise.withResolvers<never>();
        refusals.set(content, reject);
        await Promise.race([refused, userSocket.next((frame) => frame.content === content)]);
        refusals.delete(content);
      });
      await Bun.sleep(Math.random() * 100);
    }
    const ticket = await time("mint", () => user.mint(token));
    const socket = ticket && (await time("admission", () => user.open(`?ticket=${ticket}`)));
    if (socket) await socket[Symbol.asyncDispose]();
    const headers = { Authorization: `Bearer ${token}` };
    await time("page", async () => {
      for (const path of ["/api/chats?limit=20", `/api/chats/${visitor}/messages?limit=50`]) {
        const { status } = await visiting.ask(path, { headers });
        if (status !== 200) throw new Error(`${status}`);
      }
    });
  }

  await Promise.all(
    pairs.map(async (pair) => {
      await Bun.sleep(Math.random() * Math.min(ROUND_MS, forMs / 2));
      while (performance.now() < endMs) {
        const nextMs = performance.now() + ROUND_MS;
        await round(pair);
        await Bun.sleep(Math.max(0, Math.min(nextMs, endMs) - performance.now()));
      }
    }),
  );
  const p99Of = (all: number[]) => all.sort((a, b) => a - b)[Math.floor(all.length * 0.99)] ?? 0;
  const ofEach = (map: (all: number[]) => number) =>
    Object.fromEntries(DEEDS.map((deed) => [deed, map(times[deed])])) as Record<Deed, number>;
  return {
    count: ofEach((all) => all.length),
    p99Ms: ofEach(p99Of),
    ended: ended - endedBefore,
    failures,
  };
}
