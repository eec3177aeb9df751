import { systemClock } from "../lib/clock.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { maxOpenFiles, openFiles } from "./files.ts";

/** How often files are counted, in milliseconds: a flood takes hundreds in that time. */
const CHECK_MS = 20;
/** Share of the files that the process may have open from which no connection stays open after its response. */
const SCARCE_SHARE = 0.8;
/** The same from which connections without a request are ended. */
const SHORT_SHARE = 0.9;
/** Share of the files for requests of one address that are in progress, while files are short; loopback excepted. */
const ADDRESS_SHARE = 0.1;
/** Checks in a row that find files short before connections that had a response are closed. */
const CLOSE_AFTER = 10;
/** How long a connection may take for what it sends to be read, in milliseconds. */
const READ_MS = 5;
/** Files looked at in one check: that takes some milliseconds. */
const FILES_PER_CHECK = 5_000;
/** Least time between two lines of the log, in milliseconds. */
const REPORT_MS = 60_000;
const NOTE =
  "Almost all files that the process may have open are connections: those without a request are ended. Put a proxy in front, or raise the limit (ulimit -n)";

/** Keeps files free for those who make requests. */
export interface FileGuard {
  /** Whether connections had better end after their response. */
  readonly areScarce: boolean;
  end(): void;
}

/**
 * Ends connections without a request while files are short: the runtime accepts as many as there are files, gives each
 * ten seconds to make a request, and meanwhile accepts nobody else. Goes by the system's clock, as the files do.
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
  let areScarce = false;
  let timesShort = 0;
  let reportAtMs = 0;
  let opening: Promise<void> | undefined;
  let connections: Connections | undefined;

  async function open(): Promise<void> {
    if (process.platform !== "linux" || server.port === undefined) return;
    try {
      connections = await openConnections(server.port);
    } catch (error) {
      const note = "Connections without a request can't be ended";
      log("error", "files_exhausted", { code: faultCode(error), note });
    }
  }

  function check(): void {
    const share = openFiles() / most;
    areScarce = share >= SCARCE_SHARE;
    if (share < SHORT_SHARE) {
      timesShort = 0;
      return;
    }
    const nowMs = systemClock.monotonicMs();
    if (nowMs >= reportAtMs) {
      reportAtMs = nowMs + REPORT_MS;
      log("error", "files_exhausted", { note: NOTE });
    }
    // A last resort: somebody may be about to use one of them.
    if (++timesShort % CLOSE_AFTER === 0) server.closeIdleConnections();
    opening ??= open();
    const found = connections?.find() ?? [];
    if (found.length > 0) systemClock.after(READ_MS, () => endSilent(found));
  }

  function endSilent(found: readonly Connection[]): void {
    const busy = busyPorts();
    for (const one of found) if (!busy.has(one.clientPort)) connections?.end(one);
  }

  /** Ports of clients that wait for a response, or send their request's body: of an address only so many. */
  function busyPorts(): ReadonlySet<number | undefined> {
    const ports = new Set<number | undefined>();
    const counts = new Map<string, number>();
    for (const request of requests) {
      const address = addressOf(request);
      const count = address === undefined ? 0 : (counts.get(address) ?? 0) + 1;
      if (address !== undefined) counts.set(address, count);
      if (count <= most * ADDRESS_SHARE) ports.add(server.requestIP(request)?.port);
    }
    return ports;
  }

  const end = systemClock.every(CHECK_MS, check);
  return {
    get areScarce() {
      return areScarce;
    },
    end,
  };
}

/** A connection to the server that has had no response. */
interface Connection {
  readonly file: number;
  readonly clientPort: number;
}

interface Connections {
  /** Those among some files; the next call looks at the next ones. */
  find(): readonly Connection[];
  /** Ends one, unless it is another one meanwhile, or has had a response. */
  end(connection: Connection): void;
}

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const SHUT_RDWR = 2;
/** Where `struct tcp_info` says how many segments with data were sent. */
const SENT_AT = 156;
/** Where `struct sockaddr_in` and `sockaddr_in6` have the port, in network byte order. */
const PORT_AT = 2;
const ADDRESS_BYTES = 28;

/**
 * The connections to one port, from what Linux knows about them and the runtime doesn't say. Ends them with
 * shutdown(2): to close the file stays up to the runtime.
 */
async function openConnections(port: number): Promise<Connections> {
  const libc = await openLibrary();
  const most = maxOpenFiles();
  const info = new DataView(new ArrayBuffer(SENT_AT + 4));
  const address = new DataView(new ArrayBuffer(ADDRESS_BYTES));
  const length = new Uint32Array(1);
  let next = 0;

  function isUnanswered(file: number): boolean {
    length[0] = info.byteLength;
    if (libc.getsockopt(file, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return false;
    // A kernel before 4.6 says less.
    return length[0] === info.byteLength && info.getUint32(SENT_AT, true) === 0;
  }

  function portOf(file: number, read: typeof libc.getsockname): number | undefined {
    length[0] = ADDRESS_BYTES;
    return read(file, address, length) === 0 ? address.getUint16(PORT_AT) : undefined;
  }

  return {
    find() {
      const found: Connection[] = [];
      const until = Math.min(most, next + FILES_PER_CHECK);
      for (let file = next; file < until; file++) {
        if (!isUnanswered(file) || portOf(file, libc.getsockname) !== port) continue;
        const clientPort = portOf(file, libc.getpeername);
        if (clientPort !== undefined) found.push({ file, clientPort });
      }
      next = until === most ? 0 : until;
      return found;
    },
    end({ file, clientPort }) {
      if (!isUnanswered(file) || portOf(file, libc.getpeername) !== clientPort) return;
      libc.shutdown(file, SHUT_RDWR);
    },
  };
}

/** Loaded when it is needed: most servers never run short of files. */
async function openLibrary() {
  const { dlopen } = await import("bun:ffi");
  const functions = {
    getsockopt: { args: ["i32", "i32", "i32", "buffer", "buffer"], returns: "i32" },
    getsockname: { args: ["i32", "buffer", "buffer"], returns: "i32" },
    getpeername: { args: ["i32", "buffer", "buffer"], returns: "i32" },
    shutdown: { args: ["i32", "i32"], returns: "i32" },
  } as const;
  try {
    return dlopen("libc.so.6", functions).symbols;
  } catch {
    // musl, as in Alpine Linux.
    const machine = process.arch === "x64" ? "x86_64" : "aarch64";
    return dlopen(`libc.musl-${machine}.so.1`, functions).symbols;
  }
}
