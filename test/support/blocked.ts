/**
 * A server of its own whose clock runs 100 times as fast, so that a heartbeat takes a quarter of a second. A
 * message `block` keeps the whole process busy for 0.6 s: a minute of its time.
 */
import { createGate } from "../../src/gate/gate.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { serve } from "../../src/sockets/serve.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "./people.ts";

const SPEED = 100;
const BLOCK_MS = 600;
const startedAtMs = Date.now();

const gate = createGate({
  users: { secret: TOKEN_SECRET },
  visitors: { secret: SESSION_SECRET },
  ticketsPerMinute: 0,
  log: () => {},
  clock: {
    nowMs: () => startedAtMs,
    monotonicMs: () => performance.now() * SPEED,
    every: (intervalMs, run) => systemClock.every(intervalMs / SPEED, run),
    // Deadlines stay as they are.
    after: systemClock.after,
  },
});
const server = serve(
  gate,
  {
    message(socket, _, text) {
      if (text === "block") {
        const endMs = performance.now() + BLOCK_MS;
        while (performance.now() < endMs);
      }
      socket.send(JSON.stringify({ echo: text }));
    },
  },
  { limits: { maxPerIdentity: 0, messagesPerSecond: 0 } },
);
process.stdout.write(`${server.url.origin}\n`);
