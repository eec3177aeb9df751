import type { Connection, WireResponse } from "./wire.ts";

/** Kinds of frames (RFC 6455 section 5.2). */
export const OPCODE = { text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;

/** A client masks what it sends; the key may be any. */
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

/** One frame as a client writes it, with what may be wrong about it. */
export function toFrame(
  opcode: number,
  payload: string | Uint8Array,
  { isMasked = true, claimedLength }: { isMasked?: boolean; claimedLength?: number } = {},
): Buffer {
  const bytes = Buffer.from(payload);
  const length = claimedLength ?? bytes.length;
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const header = Buffer.alloc(2 + lengthBytes);
  header[0] = 0x80 | opcode;
  header[1] = (isMasked ? 0x80 : 0) | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) header.writeUInt16BE(length, 2);
  if (lengthBytes === 8) header.writeBigUInt64BE(BigInt(length), 2);
  if (!isMasked) return Buffer.concat([header, bytes]);
  const masked = bytes.map((byte, at) => byte ^ (MASK[at % MASK.length] as number));
  return Buffer.concat([header, MASK, masked]);
}

/** An open socket, as a browser has it: pings are answered, everything else is only looked at. */
export interface OpenSocket extends Disposable {
  /** Code of the server's Close frame; `undefined` while there is none. */
  readonly closeCode: number | undefined;
  readonly isClosed: boolean;
  write(bytes: Uint8Array): void;
  /** Whether it has ended within that time, with a Close frame or without. */
  ends(withinMs: number): Promise<boolean>;
  /** Whether the server responds to a ping within that time. */
  responds(withinMs: number): Promise<boolean>;
}

/** Goes on with a connection whose handshake was accepted. */
export function openSocket(connection: Connection, { headLength }: WireResponse): OpenSocket {
  let at = headLength;
  let closeCode: number | undefined;
  let pongs = 0;

  function read(): void {
    for (;;) {
      const frame = readFrame(connection.received.subarray(at));
      if (!frame) return;
      at += frame.length;
      const { opcode, payload } = frame;
      if (opcode === OPCODE.ping && !connection.isClosed) {
        connection.write(toFrame(OPCODE.pong, payload));
      }
      if (opcode === OPCODE.pong) pongs++;
      if (opcode === OPCODE.close) {
        closeCode ??= payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      }
    }
  }
  connection.onData = read;
  read();

  return {
    get closeCode() {
      return closeCode;
    },
    get isClosed() {
      return connection.isClosed;
    },
    write: (bytes) => connection.write(bytes),
    async ends(withinMs) {
      const hasEnded = () => connection.isClosed || closeCode !== undefined;
      await connection.until(hasEnded, withinMs);
      return hasEnded();
    },
    responds(withinMs) {
      const before = pongs;
      connection.write(toFrame(OPCODE.ping, "doctor"));
      return connection.until(() => pongs > before, withinMs);
    },
    [Symbol.dispose]() {
      if (!connection.isClosed) {
        // 1000, in order that no server takes it for a failure.
        connection.write(toFrame(OPCODE.close, Buffer.from([0x03, 0xe8])));
      }
      connection[Symbol.dispose]();
    },
  };
}

/** The first whole frame of a server's; `undefined` while there is none. */
function readFrame(bytes: Buffer): { opcode: number; payload: Buffer; length: number } | undefined {
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
  const payload = bytes.subarray(start, start + size);
  return { opcode: (bytes[0] as number) & 0x0f, payload, length: start + size };
}
