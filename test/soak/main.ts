/**
 * `bun run soak`: ten minutes (or `SOAK_MINUTES`) of people who come, chat, renew, leave and crash, and what
 * they leave behind: the server at rest after the first minute against the server at rest at the end. Then what
 * the test suite leaves to it: a minute of renewals and a Redis that is frozen, by the machine's clock. Ends with
 * 1 when something failed, or has grown by more than 5 %.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { peopleOf, SESSION_SECRET, TOKEN_SECRET, visitorIdOf } from "../support/people.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";

const MINUTES = Number(process.env.SOAK_MINUTES || 10);
/** Below two minutes there is no time to warm up, and growth says nothing. */
const STEP_MS = Math.min(60_000, (MINUTES * 60_000) / 2);
/** People at once. */
const AT_ONCE = 60;
/** Users and visitors there are; they come again and again. */
const PEOPLE = 200;
/** Users to whom a visitor writes: fewer than may be unanswered at once. */
const PARTNERS = 5;
/** Between two visits of one of them, so that the machine is busy and not choked. */
const MAX_PAUSE_MS = 300;
const MAX_GROWTH = 0.05;

/** What a server at rest has. */
type Sample = Record<string, number>;

const directory = await mkdtemp(join(tmpdir(), "ws-ticket-soak-"));
const server = await startServer();
const { origin } = server;
const socketUrl = `${origin.replace("http", "ws")}/ws/chat`;
const people = peopleOf(origin);
const tokens = await Promise.all(
  Array.from({ length: PEOPLE }, (_, at) => people.token(`user-${at}`, { claims: { sid: "one" } })),
);
const cookies = await Promise.all(tokens.map(() => people.visitorCookie()));
const done = { connects: 0, messages: 0, cold: 0, renewals: 0, leaves: 0, crashes: 0 };
/** What didn't go as it should, at either end, and how often. */
const faults: Record<string, number> = {};

try {
  await churn(STEP_MS);
  const first = await sample();
  console.table({ "after the first step": first });
  for (let passedMs = STEP_MS; passedMs < MINUTES * 60_000; passedMs += STEP_MS) {
    await churn(STEP_MS);
    console.log(new Date().toISOString(), JSON.stringify(done), JSON.stringify(await sample()));
  }
  const last = await sample();
  const grown = Object.keys(first).filter(
    (name) => (last[name] ?? 0) > (first[name] ?? 0) * (1 + MAX_GROWTH),
  );
  console.table({ "after the first step": first, "at the end": last });
  console.log(grown.length === 0 ? "Nothing has grown" : `Grown: ${grown.join(", ")}`);
  console.log("Faults:", JSON.stringify(faults));
  const isReal = await passesByTheRealClock();
  const isStable = grown.length === 0 || MINUTES < 2;
  process.exitCode = isStable && isReal && Object.keys(faults).length === 0 ? 0 : 1;
} finally {
  server.child.kill("SIGTERM");
  await server.child.exited;
  await rm(directory, { recursive: true, force: true });
}

async function churn(forMs: number): Promise<void> {
  const endMs = performance.now() + forMs;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (performance.now() < endMs) {
        await (Math.random() < 0.5 ? visitOnce() : workOnce()).catch(note);
        await Bun.sleep(number(MAX_PAUSE_MS));
      }
    }),
  );
}

function note(fault: unknown): void {
  const name = fault instanceof Error ? fault.message : String(fault);
  faults[name] = (faults[name] ?? 0) + 1;
  console.log(new Date().toISOString(), name);
}

/** A visitor comes, writes to a user, and goes. */
async function visitOnce(): Promise<void> {
  const at = number(PEOPLE);
  const socket = openSocket(socketUrl, { Origin: origin, Cookie: cookies[at] as string });
  await socket.opened;
  done.connects++;
  const to = `user-${(at + number(PARTNERS)) % PEOPLE}`;
  await write(socket, { type: "ANON_TO_USER", to, nickname: "Soak" });
  await goodbye(socket);
}

/** A user comes, answers somebody, perhaps goes on with a new ticket, and goes. */
async function workOnce(): Promise<void> {
  const at = number(PEOPLE);
  const token = tokens[at] as string;
  let socket = await open(token);
  const to = visitorIdOf(cookies[(at + PEOPLE - number(PARTNERS)) % PEOPLE] as string);
  await write(socket, { type: "USER_TO_ANON", to });
  if (Math.random() < 0.3) {
    const next = await open(token);
    await goodbye(socket);
    socket = next;
    done.renewals++;
    await write(socket, { type: "USER_TO_ANON", to });
  }
  await goodbye(socket);
}

async function open(token: string): Promise<TestSocket> {
  const minted = await people.mint(token);
  if (minted.status !== 200) throw new Error(`No ticket: ${minted.status}`);
  const { ticket } = (await minted.json()) as { ticket: string };
  const socket = openSocket(`${socketUrl}?ticket=${ticket}`);
  await socket.opened;
  done.connects++;
  return socket;
}

async function write(socket: TestSocket, frame: Record<string, string>): Promise<void> {
  for (let count = 1 + number(4); count > 0; count--) {
    const ref = crypto.randomUUID();
    socket.send({ ...frame, content: "x".repeat(1 + number(1_000)), ref });
    const answered = socket.next((answer) => answer.ref === ref);
    const ended = socket.closed.then(({ code }) => Promise.reject(new Error(`Ended: ${code}`)));
    const { type, code } = await Promise.race([answered, ended]);
    // A user whose visitor hasn't written yet: the one error that belongs here.
    const isCold = code === "not_found" && frame.type === "USER_TO_ANON";
    if (type === "ERROR" && !isCold) note(`Refused: ${code}`);
    if (isCold) done.cold++;
    else done.messages++;
  }
}

async function goodbye({ socket, closed }: TestSocket): Promise<void> {
  if (Math.random() < 0.2) {
    (socket as unknown as { terminate(): void }).terminate();
    done.crashes++;
  } else {
    socket.close();
    done.leaves++;
  }
  await closed;
}

function number(below: number): number {
  return Math.floor(Math.random() * below);
}

/** Waits until the last connection is gone, and looks. */
async function sample(): Promise<Sample> {
  // Kept-alive connections end after 10 s without a request.
  await Bun.sleep(12_000);
  let counts: Sample = {};
  let residentMb = Number.POSITIVE_INFINITY;
  // Collected twice, and the least of what is seen: memory goes back to the system some time later.
  for (let look = 0; look < 3; look++) {
    counts = await server.probe();
    await Bun.sleep(1_000);
    const status = await Bun.file(`/proc/${server.child.pid}/status`).text();
    residentMb = Math.min(residentMb, Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024);
  }
  const descriptors = (await readdir(`/proc/${server.child.pid}/fd`)).length;
  return { residentMb: Math.round(residentMb * 10) / 10, descriptors, ...counts };
}

async function passesByTheRealClock(): Promise<boolean> {
  const tests = Bun.spawn([process.execPath, "test", "./test/soak/real-clock.ts"], {
    cwd: join(import.meta.dir, "../.."),
    env: { ...process.env, SOAK_MINUTES: String(MINUTES) },
    stdout: "inherit",
    stderr: "inherit",
  });
  return (await tests.exited) === 0;
}

async function startServer() {
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const command = ["--preload", join(import.meta.dir, "probe.ts")];
  const child = Bun.spawn(
    [process.execPath, ...command, join(import.meta.dir, "../../src/main.ts")],
    {
      env: {
        PORT: "0",
        JWT_SECRET: decode(TOKEN_SECRET),
        SESSION_SECRET: decode(SESSION_SECRET),
        TICKETS_PER_MINUTE: "0",
        MAX_SOCKETS_PER_IDENTITY: "0",
        // Of several visits at once.
        MESSAGES_PER_SECOND: "200",
        CHAT_DATABASE: join(directory, "chat.sqlite"),
        CHAT_MAX_MESSAGES: "20",
        METRICS_PORT: "0",
        LOG_LEVEL: "info",
      },
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const lines = linesOf(child.stdout);
  const probes = linesOf(child.stderr);
  let url = "";
  while (!url) {
    const line = JSON.parse(await next(lines));
    if (line.event === "listening") ({ url } = line);
  }
  // Read on, so that the server never waits for us.
  void (async () => {
    for await (const line of lines) {
      const { level, event, code } = JSON.parse(line);
      if (level !== "info" || /refused|gone/.test(event)) note(`${event} ${code}`);
    }
  })();
  return {
    child,
    origin: new URL(url).origin,
    async probe(): Promise<Sample> {
      child.kill("SIGUSR2");
      return JSON.parse(await next(probes));
    },
  };
}

async function next(lines: AsyncGenerator<string>): Promise<string> {
  const { value, done } = await lines.next();
  if (done) throw new Error("The server has ended");
  return value;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let unread = "";
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    unread += decoder.decode(chunk, { stream: true });
    const lines = unread.split("\n");
    unread = lines.pop() ?? "";
    yield* lines;
  }
}
