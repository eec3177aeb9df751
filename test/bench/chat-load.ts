/**
 * The people of a chat benchmark, in a process of their own: pairs of a visitor and a user. Takes one job
 * after the other over IPC, and answers with the rate of acknowledged messages and the times from sender
 * to receiver.
 */
import { utf8 } from "../../src/lib/encoding.ts";
import { signToken } from "../../src/gate/token.ts";
import { quantile } from "./figures.ts";

export interface ChatJob {
  /** Where visitors connect, and where users do. */
  readonly ports: { readonly visitors: number; readonly users: number };
  /** The bare relay takes everybody at his word; the server wants tickets and cookies. */
  readonly bare: boolean;
  /** Sockets in all; half of them send. */
  readonly sockets: number;
  readonly messages: number;
  /** Messages per second in all; without it as many as are acknowledged, `window` at a time from each. */
  readonly rate?: number;
  readonly window: number;
}

export interface ChatOutcome {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const TEXT = "x".repeat(100);

process.on("message", async (job: ChatJob) => {
  process.send?.(await run(job));
});

async function run(job: ChatJob): Promise<ChatOutcome> {
  const pairs = await Promise.all(
    Array.from({ length: job.sockets / 2 }, (_, index) => openPair(job, index)),
  );
  const latenciesMs: number[] = [];
  let sent = 0;
  let acknowledged = 0;
  const done = Promise.withResolvers<void>();

  function send(visitor: WebSocket, user: string): void {
    if (sent >= job.messages) return;
    const ref = String(++sent);
    const content = `${performance.now()} ${TEXT}`;
    visitor.send(JSON.stringify({ type: "ANON_TO_USER", to: user, content, ref }));
  }

  for (const { visitor, user, name } of pairs) {
    visitor.onmessage = ({ data }) => {
      if (!String(data).startsWith('{"type":"ACK"')) return;
      if (++acknowledged === job.messages) done.resolve();
      if (!job.rate) send(visitor, name);
    };
    user.onmessage = ({ data }) => {
      const at = /"content":"([\d.]+) /.exec(String(data))?.[1];
      if (at) latenciesMs.push(performance.now() - Number(at));
    };
  }

  const startedAtMs = performance.now();
  if (job.rate) await pace(job, pairs, send);
  else
    for (let turn = 0; turn < job.window; turn++)
      for (const pair of pairs) send(pair.visitor, pair.name);
  await done.promise;
  const seconds = (performance.now() - startedAtMs) / 1000;
  for (const { visitor, user } of pairs) {
    visitor.close();
    user.close();
  }
  return {
    perSecond: job.messages / seconds,
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
  };
}

/** Sends at an even rate, from everybody in turn. */
async function pace(
  { messages, rate = 1 }: ChatJob,
  pairs: Pair[],
  send: (visitor: WebSocket, user: string) => void,
): Promise<void> {
  const startedAtMs = performance.now();
  for (let count = 0; count < messages;) {
    const due = Math.min(messages, Math.floor(((performance.now() - startedAtMs) / 1000) * rate));
    for (; count < due; count++) {
      const { visitor, name } = pairs[count % pairs.length] as Pair;
      send(visitor, name);
    }
    await Bun.sleep(1);
  }
}

interface Pair {
  readonly visitor: WebSocket;
  readonly user: WebSocket;
  /** The user's id. */
  readonly name: string;
}

async function openPair({ ports, bare }: ChatJob, index: number): Promise<Pair> {
  const name = `user-${index}`;
  const visitors = `127.0.0.1:${ports.visitors}`;
  const users = `127.0.0.1:${ports.users}`;
  if (bare) {
    const user = await open(`ws://${users}/?side=user&id=${name}`);
    return {
      name,
      user,
      visitor: await open(`ws://${visitors}/?side=visitor&id=visitor-${index}`),
    };
  }
  const token = await signToken({
    secret: utf8(process.env.JWT_SECRET ?? ""),
    user: name,
    expiresAtMs: Date.now() + 3_600_000,
  });
  const headers = { Authorization: `Bearer ${token}` };
  const minted = await fetch(`http://${users}/api/auth/ws-ticket`, { method: "POST", headers });
  const { ticket } = (await minted.json()) as { ticket: string };
  const session = await fetch(`http://${visitors}/api/auth/anonymous-session`, { method: "POST" });
  const Cookie = session.headers.get("set-cookie")?.split(";")[0] ?? "";
  const user = await open(`ws://${users}/ws/chat?ticket=${ticket}`);
  const visitor = await open(`ws://${visitors}/ws/chat`, { Cookie, Origin: `http://${visitors}` });
  // Unless the user answers first, a visitor may not send much.
  visitor.send(JSON.stringify({ type: "ANON_TO_USER", to: name, content: "begin" }));
  await heard(user, "begin");
  const to = Cookie.split(".")[1];
  user.send(JSON.stringify({ type: "USER_TO_ANON", to, content: "answer" }));
  await heard(visitor, "answer");
  return { name, user, visitor };
}

/** Resolves when a message with this content arrives. */
function heard(socket: WebSocket, content: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.onmessage = ({ data }) => {
    if (JSON.parse(String(data)).content === content) resolve();
  };
  return promise;
}

function open(url: string, headers: Record<string, string> = {}): Promise<WebSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<WebSocket>();
  const socket = new WebSocket(url, { headers } as unknown as string[]);
  socket.onopen = () => resolve(socket);
  socket.onclose = ({ code }) => reject(new Error(`No socket: ${code}`));
  return promise;
}
