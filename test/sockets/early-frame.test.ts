import { expect, test } from "bun:test";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { fakeClock } from "../support/clock.ts";
import { frame, OPCODE } from "../support/frame.ts";
import { handshake, openRaw } from "../support/raw.ts";
import { startServer, type TestServer } from "../support/server.ts";

const ATTEMPTS = 10;

/** Sends handshakes with a first frame right behind each, in one packet; returns what came back. */
async function sendTogether(server: TestServer): Promise<string[]> {
  const heads: string[] = [];
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const request = handshake(`/ws/chat?ticket=${await server.ticket()}`);
    using connection = await openRaw(server.port);
    const first = frame(OPCODE.text, '{"type":"?"}');
    connection.write(Buffer.concat([Buffer.from(request, "latin1"), first]));
    await connection.until((text) => text.includes("malformed") || text.includes(" 400 "));
    heads.push(connection.text.slice(0, 12));
  }
  return heads;
}

// RFC 6455 section 4.1 has clients wait for the response before they send anything.
test("a frame in one packet with the handshake is served with tickets in memory", async () => {
  await using server = startServer({ limits: { maxPerIdentity: 0 } });
  expect(await sendTogether(server)).toEqual(Array(ATTEMPTS).fill("HTTP/1.1 101"));
});

test("and gets Bun's own 400 where the store takes its time; without it the handshake is good", async () => {
  const inner = memoryTicketStore({ clock: fakeClock() });
  const later: TicketStore = {
    ...inner,
    async take(hash) {
      await new Promise((resolve) => setImmediate(resolve));
      return inner.take(hash);
    },
  };
  await using server = startServer({ store: later, limits: { maxPerIdentity: 0 } });
  expect(await sendTogether(server)).toEqual(Array(ATTEMPTS).fill("HTTP/1.1 400"));
  await using socket = await server.openUser();
  socket.send({ type: "?" });
  expect(await socket.next()).toMatchObject({ code: "malformed" });
  expect(server.server.socketCount).toBe(1);
});

test("as from a server that consists of nothing but Bun", async () => {
  using bare = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request, server) {
      await new Promise((resolve) => setImmediate(resolve));
      return server.upgrade(request) ? undefined : new Response(null, { status: 418 });
    },
    websocket: { message() {} },
  });
  using connection = await openRaw(bare.port as number);
  const request = Buffer.from(handshake("/"), "latin1");
  connection.write(Buffer.concat([request, frame(OPCODE.text, "hello")]));
  await connection.until((text) => text.includes("\r\n"));
  expect(connection.text).toStartWith("HTTP/1.1 400");
});
