import { systemClock } from "../lib/clock.ts";
import { createCounts } from "../lib/counts.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { maxOpenFiles, openFiles } from "./files.ts";

/** How often files are counted, in milliseconds; and while there were many: a flood takes hundreds in that time. */
const CHECK_MS = 100;
const CLOSE_CHECK_MS = 20;
/** Share of the files from which there are many, and for how long it counts, in milliseconds: some may end in between. */
const MANY_SHARE = 0.5;
const MANY_MS = 1_000;
/** Share of the time that may go into ending connections. */
const TIME_SHARE = 0.2;
/** Share of the files that the process may have open from which no connection stays open after its response. */
const SCARCE_SHARE = 0.8;
/** The same from which connections that nobody needs are ended. */
const SHORT_SHARE = 0.9;
/** Share of the files for requests of one address that are in progress, while files are short; loopback excepted. */
const ADDRESS_SHARE = 0.1;
/** Checks in a row that find files short before connections that had a response are closed. */
const IDLE_CHECKS = 10;
/** How long a connection may take for what it sends to be read, in milliseconds. */
const READ_MS = 5;
/** How long what was sent may wait until the other side reads on, in milliseconds. */
const MAX_STALL_MS = 1_000;
/** Files looked at in one check: that takes some milliseconds. */
const FILES_PER_CHECK = 2_000;
/** Least time between two lines of the log, in milliseconds. */
const REPORT_MS = 60_000;
const NOTE =
  "Almost all files that the process may have open are connections: those that nobody needs are ended. Put a proxy in front, or raise the limit (ulimit -n)";

/** Keeps files free for those who make requests. */
export interface FileGuard {
  /** Whether connections had better end after their response. */
  readonly areScarce: boolean;
  end(): void;
}

/**
 * Ends connections that nobody needs while files are short: those without a request, those that don't read, and those
 * of an address with too many requests in progress. The runtime accepts as many as there are files, gives each ten
 * seconds, and meanwhile accepts nobody else. Goes by the system's clock, as the files do.
 */
export function guardFiles(options: {
  server: Bun.Server<unknown>;
  /** Those that have no response yet. */
  requests: ReadonlySet<Request>;
  /** Whom limits count a request for; `undefined`: nobody. */
  addressOf(request: Request): string | undefined;
  log: Log;
}): FileGuard {
  const { server, requests, addressOf, log } = options;
  const most = maxOpenFiles();
  let watchedEveryMs = 0;
  let endWatch: (() => void) | undefined;
  let manyUntilMs = 0;
  let areScarce = false;
  let timesShort = 0;
  let reportAtMs = 0;
  let restUntilMs = 0;
  let opening: Promise<void> | undefined;
  let connections: Connections | undefined;

  async function open(): Promise<void> {
    if (process.platform !== "linux" || server.port === undefined) return;
    try {
      connections = await openConnections(server.port, most);
    } catch (error) {
      const note = "Connections that nobody needs can't be ended";
      log("error", "files_exhausted", { code: faultCode(error), note });
    }
  }

  function check(): void {
    const share = openFiles() / most;
    areScarce = share >= SCARCE_SHARE;
    const nowMs = systemClock.monotonicMs();
    if (share >= MANY_SHARE) manyUntilMs = nowMs + MANY_MS;
    watch(nowMs < manyUntilMs ? CLOSE_CHECK_MS : CHECK_MS);
    if (share < SHORT_SHARE) {
      timesShort = 0;
      return;
    }
    if (nowMs >= reportAtMs) {
      reportAtMs = nowMs + REPORT_MS;
      // What kept it from being opened may have passed.
      if (!connections) opening = undefined;
      log("error", "files_exhausted", { note: NOTE });
    }
    // A last resort: somebody may be about to use one of them.
    if (++timesShort % IDLE_CHECKS === 0) server.closeIdleConnections();
    opening ??= open();
    if (!connections || nowMs < restUntilMs) return;
    const found = connections.find();
    const findMs = systemClock.monotonicMs() - nowMs;
    restUntilMs = Number.POSITIVE_INFINITY;
    systemClock.after(READ_MS, () => {
      const startMs = systemClock.monotonicMs();
      try {
        endUnused(found);
      } finally {
        const endMs = systemClock.monotonicMs();
        restUntilMs = endMs + (findMs + endMs - startMs) / TIME_SHARE;
      }
    });
  }

  /** Ends those that are still as they were found, once what they sent has been read. */
  function endUnused(found: readonly Connection[]): void {
    const { waiting, tooMany } = clients();
    const isUnneeded = ({ client, isUnanswered, isStalled }: Connection) =>
      isStalled || tooMany.has(client) || (isUnanswered && !waiting.has(client));
    for (const one of found.filter(isUnneeded)) {
      const now = connections?.look(one.file);
      if (now?.client === one.client && isUnneeded(now)) connections?.end(one.file);
    }
  }

  /** Clients that wait for a response or send their request's body, and those that one address has too many of. */
  function clients() {
    const waiting = new Set<string>();
    const tooMany = new Set<string>();
    const counts = createCounts<string>();
    for (const request of requests) {
      const address = addressOf(request);
      const count = address === undefined ? 0 : counts.add(address, 1);
      const peer = server.requestIP(request);
      if (!peer) continue;
      (count <= most * ADDRESS_SHARE ? waiting : tooMany).add(clientOf(peer.address, peer.port));
    }
    return { waiting, tooMany };
  }

  function watch(everyMs: number): void {
    if (everyMs === watchedEveryMs) return;
    watchedEveryMs = everyMs;
    endWatch?.();
    endWatch = systemClock.every(everyMs, check);
  }

  watch(CHECK_MS);
  return {
    get areScarce() {
      return areScarce;
    },
    end: () => endWatch?.(),
  };
}

/** A connection to the server. */
interface Connection {
  readonly file: number;
  /** Its other end, as `clientOf` has it. */
  readonly client: string;
  /** Nothing was sent to it so far. */
  readonly isUnanswered: boolean;
  /** It doesn't read what was sent. */
  readonly isStalled: boolean;
}

/** An address and a port, in one spelling: the runtime has another one than Linux. */
function clientOf(address: string, port: number): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*/, "");
  return `${plain.includes(":") ? new URL(`http://[${plain}]`).hostname : plain} ${port}`;
}

interface Connections {
  /** Those among some files; the next call looks at the next ones. */
  find(): readonly Connection[];
  look(file: number): Connection | undefined;
  end(file: number): void;
}

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const SHUT_RDWR = 2;
/** Where `struct tcp_info` has the milliseconds since the last data, bytes that can't be sent yet, and segments sent. */
const LAST_SENT_AT = 44;
const UNSENT_AT = 144;
const SENT_AT = 156;
const INFO_BYTES = 160;
/** Where `struct sockaddr_in` and `sockaddr_in6` have the port, in network byte order, and their addresses. */
const PORT_AT = 2;
const V4_AT = 4;
const V6_AT = 8;
const ADDRESS_BYTES = 28;
const AF_INET = 2;

/**
 * The connections to one port, from what Linux knows about them and the runtime doesn't say. Ends them with
 * shutdown(2): to close the file stays up to the runtime.
 */
async function openConnections(port: number, most: number): Promise<Connections> {
  const { ptr, ...libc } = await openLibrary();
  const info = new DataView(new ArrayBuffer(INFO_BYTES));
  const address = new DataView(new ArrayBuffer(ADDRESS_BYTES));
  const length = new Uint32Array(1);
  const [infoAt, addressAt, lengthAt] = [ptr(info), ptr(address), ptr(length)];
  let next = 0;

  function read(file: number, how: typeof libc.getsockname): boolean {
    length[0] = ADDRESS_BYTES;
    return how(file, addressAt, lengthAt) === 0;
  }

  function addressText(): string {
    const v4 = (at: number) => [0, 1, 2, 3].map((byte) => address.getUint8(at + byte)).join(".");
    if (address.getUint16(0, true) === AF_INET) return v4(V4_AT);
    const groups = [0, 2, 4, 6, 8, 10, 12, 14].map((byte) => address.getUint16(V6_AT + byte));
    const isMapped = groups.slice(0, 6).join() === "0,0,0,0,0,65535";
    return isMapped ? v4(V6_AT + 12) : groups.map((group) => group.toString(16)).join(":");
  }

  const number = (at: number) => info.getUint32(at, true);

  function look(file: number): Connection | undefined {
    length[0] = INFO_BYTES;
    if (libc.getsockopt(file, IPPROTO_TCP, TCP_INFO, infoAt, lengthAt) !== 0) return undefined;
    // A kernel before 4.6 says less.
    if (length[0] !== INFO_BYTES) return undefined;
    if (!read(file, libc.getsockname) || address.getUint16(PORT_AT) !== port) return undefined;
    if (!read(file, libc.getpeername)) return undefined;
    return {
      file,
      client: clientOf(addressText(), address.getUint16(PORT_AT)),
      isUnanswered: number(SENT_AT) === 0,
      isStalled: number(UNSENT_AT) > 0 && number(LAST_SENT_AT) > MAX_STALL_MS,
    };
  }

  return {
    find() {
      const until = Math.min(most, next + FILES_PER_CHECK);
      const found: Connection[] = [];
      for (let file = next; file < until; file++) {
        const connection = look(file);
        if (connection) found.push(connection);
      }
      next = until === most ? 0 : until;
      return found;
    },
    look,
    end: (file) => void libc.shutdown(file, SHUT_RDWR),
  };
}

/** Loaded when it is needed: most servers never run short of files. */
async function openLibrary() {
  const { dlopen, ptr } = await import("bun:ffi");
  const functions = {
    getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
    getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    getpeername: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    shutdown: { args: ["i32", "i32"], returns: "i32" },
  } as const;
  const open = (library: string) => ({ ...dlopen(library, functions).symbols, ptr });
  try {
    return open("libc.so.6");
  } catch {
    // musl, as in Alpine Linux.
    return open(`libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`);
  }
}
