/**
 * The clients of a benchmark, in a process of their own: takes one job after the other over IPC and
 * answers each with the seconds it took. It speaks HTTP over plain sockets, because `fetch` and
 * `WebSocket` cost more than the server that they would measure.
 */
import { utf8 } from "../../src/lib/encoding.ts";
import { signToken } from "../../src/gate/token.ts";
import { handshake } from "../support/raw.ts";
import { quantile } from "./figures.ts";
import type { Target } from "./process.ts";

export interface Job {
  readonly target: Target;
  /** `mint`: tickets alone; `admit`: a ticket and the socket it opens; `hold`: the same, and the sockets stay open. */
  readonly kind: "mint" | "admit" | "hold";
  readonly count: number;
}

export interface Outcome {
  readonly perSecond: number;
  /** From the request for the ticket to its end: the ticket, or the open socket. */
  readonly p99Ms: number;
}

/** Requests under way at once. */
const CONCURRENCY = 32;

/** People who come back with a new token each time. */
const USERS = 10_000;

let lastToken = 0;

process.on("message", async (job: Job) => {
  process.send?.(await run(job));
});

async function run({ target, kind, count }: Job): Promise<Outcome> {
  const { port, socketPath, greeting } = target;
  const mints: string[] = [];
  while (mints.length < count) mints.push(mintRequest(port, await freshToken()));
  const callers = await Promise.all(Array.from({ length: CONCURRENCY }, () => connect(port)));
  const sockets: Connection[] = [];
  const latenciesMs: number[] = [];

  async function admit(ticket: string): Promise<void> {
    const socket = await connect(port);
    sockets.push(socket);
    const host = `127.0.0.1:${port}`;
    const answer = await socket.ask(handshake(`${socketPath}${ticket}`, {}, { host }));
    if (!answer.startsWith("HTTP/1.1 101")) throw new Error(`No socket: ${answer}`);
    if (greeting) await socket.ask(greeting.send, (text) => text.includes(greeting.answer));
  }

  const startedAtMs = performance.now();
  await Promise.all(
    callers.map(async (caller) => {
      for (let mint = mints.pop(); mint; mint = mints.pop()) {
        const askedAtMs = performance.now();
        const ticket = readTicket(await caller.ask(mint));
        if (kind !== "mint") await admit(ticket);
        latenciesMs.push(performance.now() - askedAtMs);
      }
    }),
  );
  const seconds = (performance.now() - startedAtMs) / 1000;

  const done = kind === "hold" ? callers : [...callers, ...sockets];
  await Promise.all(done.map((connection) => connection.close()));
  return { perSecond: count / seconds, p99Ms: quantile(latenciesMs, 0.99) };
}

/** A token that no server has seen before. */
function freshToken(): Promise<string> {
  return signToken({
    secret: utf8(process.env.JWT_SECRET ?? ""),
    user: `user-${++lastToken % USERS}`,
    expiresAtMs: Date.now() + 3_600_000,
    claims: { jti: String(lastToken) },
  });
}

function mintRequest(port: number, token: string): string {
  const lines = [
    "POST /api/auth/ws-ticket HTTP/1.1",
    `Host: 127.0.0.1:${port}`,
    `Origin: http://127.0.0.1:${port}`,
    `Authorization: Bearer ${token}`,
    "Content-Length: 0",
  ];
  return `${lines.join("\r\n")}\r\n\r\n`;
}

function readTicket(answer: string): string {
  const ticket = /"ticket":"([\w-]{43})"/.exec(answer)?.[1];
  if (!ticket) throw new Error(`No ticket: ${answer}`);
  return ticket;
}

interface Connection {
  /** Sends a request and resolves with the whole answer. */
  ask(request: string | Uint8Array, isWhole?: (answer: string) => boolean): Promise<string>;
  close(): Promise<void>;
}

async function connect(port: number): Promise<Connection> {
  let received = "";
  let isWhole = isWholeAnswer;
  let answered: (answer: string) => void = () => {};
  const closed = Promise.withResolvers<void>();
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        received += chunk.toString("latin1");
        if (isWhole(received)) answered(received);
      },
      close: () => closed.resolve(),
    },
  });
  return {
    ask(request, until = isWholeAnswer) {
      const { promise, resolve } = Promise.withResolvers<string>();
      received = "";
      isWhole = until;
      answered = resolve;
      socket.write(request);
      return promise;
    },
    close() {
      socket.end();
      return closed.promise;
    },
  };
}

function isWholeAnswer(answer: string): boolean {
  const headEnd = answer.indexOf("\r\n\r\n");
  if (headEnd < 0) return false;
  const length = /\r\ncontent-length: *(\d+)/i.exec(answer)?.[1] ?? "0";
  return answer.length >= headEnd + 4 + Number(length);
}
