import { expect, test } from "bun:test";
import { startWatched } from "../support/gate.ts";
import { handshake, openRaw } from "../support/raw.ts";

// The runtime gives a request ten seconds to arrive, by a clock that no test can move.
test("silence, half a request and one byte a second are cut off", async () => {
  await using server = startWatched();
  const request = handshake("/ws/chat?ticket=x");
  const connections = await Promise.all([0, 1, 2].map(() => openRaw(server.port)));
  const [, half, drip] = connections;
  half?.write(request.slice(0, 40));
  let sent = 0;
  const timer = setInterval(() => drip?.write(request.charAt(sent++)), 1_000);
  await Promise.all(connections.map(({ closed }) => closed));
  clearInterval(timer);
  expect(server.store.takes).toEqual([]);
  expect((await server.knock(await server.ticket())).status).toBe(101);
}, 30_000);
