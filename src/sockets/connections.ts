import { systemClock } from "../lib/clock.ts";
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
      connections = await openConnections(server.port);
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
      endUnused(found);
      const endMs = systemClock.monotonicMs();
      restUntilMs = endMs + (findMs + endMs - startMs) / TIME_SHARE;
    });
  }

  /** Ends those that are still as they were found, once what they sent has been read. */
  function endUnused(found: readonly Connection[]): void {
    const { waiting, tooMany } = clientPorts();
    const isUnneeded = ({ clientPort, isUnanswered, isStalled }: Connection) =>
      isStalled || tooMany.has(clientPort) || (isUnanswered && !waiting.has(clientPort));
    for (const one of found.filter(isUnneeded)) {
      const now = connections?.look(one.file);
      if (now?.clientPort === one.clientPort && isUnneeded(now)) connections?.end(one.file);
    }
  }

  /** Ports of clients that wait for a response or send their request's body, and of those that one address has too many of. */
  function clientPorts() {
    const waiting = new Set<number | undefined>();
    const tooMany = new Set<number | undefined>();
    const counts = new Map<string, number>();
    for (const request of requests) {
      const address = addressOf(request);
      const count = address === undefined ? 0 : (counts.get(address) ?? 0) + 1;
      if (address !== undefined) counts.set(address, count);
      (count <= most * ADDRESS_SHARE ? waiting : tooMany).add(server.requestIP(request)?.port);
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
  readonly clientPort: number;
  /** Nothing was sent to it so far. */
  readonly isUnanswered: boolean;
  /** It doesn't read what was sent. */
  readonly isStalled: boolean;
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
/** Where `struct sockaddr_in` and `sockaddr_in6` have the port, in network byte order. */
const PORT_AT = 2;
const ADDRESS_BYTES = 28;

/**
 * The connections to one port, from what Linux knows about them and the runtime doesn't say. Ends them with
 * shutdown(2): to close the file stays up to the runtime.
 */
async function openConnections(port: number): Promise<Connections> {
  const { ptr, ...libc } = await openLibrary();
  const most = maxOpenFiles();
  const info = new DataView(new ArrayBuffer(INFO_BYTES));
  const address = new DataView(new ArrayBuffer(ADDRESS_BYTES));
  const length = new Uint32Array(1);
  const [infoAt, addressAt, lengthAt] = [ptr(info), ptr(address), ptr(length)];
  let next = 0;

  function portOf(file: number, read: typeof libc.getsockname): number | undefined {
    length[0] = ADDRESS_BYTES;
    return read(file, addressAt, lengthAt) === 0 ? address.getUint16(PORT_AT) : undefined;
  }

  const number = (at: number) => info.getUint32(at, true);

  function look(file: number): Connection | undefined {
    length[0] = INFO_BYTES;
    if (libc.getsockopt(file, IPPROTO_TCP, TCP_INFO, infoAt, lengthAt) !== 0) return undefined;
    // A kernel before 4.6 says less.
    if (length[0] !== INFO_BYTES || portOf(file, libc.getsockname) !== port) return undefined;
    const clientPort = portOf(file, libc.getpeername);
    if (clientPort === undefined) return undefined;
    return {
      file,
      clientPort,
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
