import { handshake } from "./raw.ts";

/** Kinds of frames (RFC 6455 section 5.2). */
export const OPCODE = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const;

/** One frame as a client writes it. What is said about it beside its payload need not be true. */
export function frame(
  opcode: number,
  payload: string | Uint8Array = "",
  options: {
    fin?: boolean;
    /** The three reserved bits, as a number. */
    rsv?: number;
    masked?: boolean;
    /** The length that the header claims. */
    length?: number | bigint;
    /** Bytes in which it does; default as few as will do. */
    lengthBytes?: 0 | 2 | 8;
  } = {},
): Uint8Array {
  const bytes = Buffer.from(payload);
  const { fin = true, rsv = 0, masked = true, length = bytes.length } = options;
  const { lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8 } = options;
  const header = Buffer.alloc(2 + lengthBytes);
  header[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  header[1] =
    (masked ? 0x80 : 0) | (lengthBytes === 0 ? Number(length) : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) header.writeUInt16BE(Number(length), 2);
  if (lengthBytes === 8) header.writeBigUInt64BE(BigInt(length), 2);
  if (!masked) return Buffer.concat([header, bytes]);
  const mask = Buffer.from([0x12, 0x34, 0x56, 0x78]);
  return Buffer.concat([header, mask, bytes.map((byte, at) => byte ^ (mask[at % 4] as number))]);
}

/** The payload of a Close frame. */
export function closing(code: number, reason: string | Uint8Array = ""): Uint8Array {
  return Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]);
}

/** One frame as the server wrote it. */
export interface ServerFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** The first whole frame in `bytes` and how long it is. */
function readServerFrame(bytes: Buffer): { frame: ServerFrame; length: number } | undefined {
  if (bytes.length < 2) return undefined;
  const short = (bytes[1] as number) & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const start = 2 + lengthBytes;
  if (bytes.length < start) return undefined;
  const size =
    lengthBytes === 0
      ? short
      : lengthBytes === 2
        ? bytes.readUInt16BE(2)
        : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < start + size) return undefined;
  const payload = Buffer.from(bytes.subarray(start, start + size));
  return { frame: { opcode: (bytes[0] as number) & 0x0f, payload }, length: start + size };
}

/** A client's end of a socket that does nothing by itself: no pong, no answer to a Close, and no reading after `stopReading`. */
export interface RawSocket extends Disposable {
  /** Frames received so far. */
  readonly frames: readonly ServerFrame[];
  /** The code of the server's Close frame, once the connection has ended; `undefined` when it ended without one. */
  readonly closeCode: Promise<number | undefined>;
  write(bytes: Uint8Array): void;
  /** Resolves when the frames so far are as wanted, rejects when the connection ends before. */
  until(wanted: (frames: readonly ServerFrame[]) => boolean): Promise<void>;
  /** Resolves when the server has read all that was written. */
  flushed(): Promise<void>;
  stopReading(): void;
  readOn(): void;
  /** Half of the connection: nothing more will be written. */
  finish(): void;
  /** A reset in place of any goodbye. */
  reset(): void;
}

/** Shakes hands by hand. Rejects when the server doesn't. */
export async function openRawSocket(
  origin: string,
  target: string,
  headers: Record<string, string> = {},
): Promise<RawSocket> {
  const { hostname, port, host } = new URL(origin);
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const frames: ServerFrame[] = [];
  const waiting = new Set<() => void>();
  let unread = Buffer.alloc(0);
  let isOpen = false;
  let flushes = 0;

  function read(chunk: Buffer): void {
    unread = Buffer.concat([unread, chunk]);
    if (!isOpen) {
      const end = unread.indexOf("\r\n\r\n");
      if (end < 0) return;
      if (!unread.toString("latin1").startsWith("HTTP/1.1 101 ")) {
        return opened.reject(new Error(`No socket: ${unread.toString("latin1", 0, 80)}`));
      }
      unread = unread.subarray(end + 4);
      isOpen = true;
      opened.resolve();
    }
    for (let next = readServerFrame(unread); next; next = readServerFrame(unread)) {
      frames.push(next.frame);
      unread = unread.subarray(next.length);
    }
    for (const look of waiting) look();
  }

  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    allowHalfOpen: true,
    socket: {
      data: (_, chunk) => read(chunk),
      end: () => ended.resolve(),
      error: () => ended.resolve(),
      close() {
        opened.reject(new Error("No socket: the connection has closed"));
        ended.resolve();
      },
    },
  });
  socket.write(handshake(target, headers, { host }));
  await opened.promise;

  async function until(wanted: (frames: readonly ServerFrame[]) => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => void (wanted(frames) && resolve());
    waiting.add(look);
    look();
    await Promise.race([
      promise,
      ended.promise.then(() => {
        if (!wanted(frames)) throw new Error("Connection ended before what was wanted had come");
      }),
    ]);
    waiting.delete(look);
  }

  return {
    frames,
    closeCode: ended.promise.then(() => {
      const close = frames.find(({ opcode }) => opcode === OPCODE.close);
      return close && close.payload.length >= 2 ? close.payload.readUInt16BE(0) : undefined;
    }),
    write: (bytes) => void socket.write(bytes),
    until,
    async flushed() {
      const mark = `flush ${++flushes}`;
      socket.write(frame(OPCODE.ping, mark));
      await until((all) =>
        all.some(({ opcode, payload }) => opcode === OPCODE.pong && payload.toString() === mark),
      );
    },
    stopReading: () => socket.pause(),
    readOn: () => socket.resume(),
    finish: () => socket.shutdown(),
    reset: () => socket.terminate(),
    [Symbol.dispose]: () => socket.terminate(),
  };
}
