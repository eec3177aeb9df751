import { describe, expect, test } from "bun:test";
import { startInstance } from "../support/process.ts";

/** Longer than any test. */
const LONG = { DRAIN_DELAY_SECONDS: "300" };

describe("a server that is about to end", () => {
  test("says so at /readyz for a while, serves meanwhile, and then closes its sockets", async () => {
    await using server = await startInstance({ DRAIN_DELAY_SECONDS: "1" });
    const before = await server.openVisitor();
    expect((await server.ask("/readyz")).status).toBe(200);
    const startedAtMs = performance.now();
    server.kill("SIGTERM");
    await server.event("draining");
    const ready = await server.ask("/readyz");
    expect([ready.status, ready.body.code]).toEqual([503, "shutting_down"]);
    expect(ready.headers.has("retry-after")).toBe(true);
    expect((await server.ask("/healthz")).status).toBe(200);
    const during = await server.openVisitor();
    for (const visitor of [before, during]) {
      visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
      await visitor.next(({ type }) => type === "ACK");
    }
    for (const visitor of [before, during]) expect((await visitor.closed).code).toBe(1012);
    expect(performance.now() - startedAtMs).toBeGreaterThan(1_000);
    expect(await server.exited).toBe(0);
    expect(server.events.at(-1)).toMatchObject({ event: "stopped", level: "info" });
  });

  test("ends at once with 130 at the second SIGINT, and loses nothing that was acknowledged", async () => {
    await using server = await startInstance(LONG);
    const visitor = await server.openVisitor();
    server.kill("SIGINT");
    await server.event("draining");
    visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
    await visitor.next(({ type }) => type === "ACK");
    server.kill("SIGINT");
    expect(await server.exited).toBe(130);
    expect(server.events.at(-1)).toMatchObject({ event: "stopped", code: "interrupted" });
    expect(server.stderr).toBe("");
  });

  test("isn't hurried by one SIGINT after a SIGTERM, and is by two", async () => {
    await using server = await startInstance(LONG);
    server.kill("SIGTERM");
    await server.event("draining");
    server.kill("SIGINT");
    expect((await server.ask("/readyz")).status).toBe(503);
    server.kill("SIGINT");
    expect(await server.exited).toBe(130);
  });
});

test("the first line says how many sockets may be open: 80 % of the files", async () => {
  await using server = await startInstance(
    {},
    { within: ["bash", "-c", 'ulimit -n 1000 && exec "$@"', "bash"] },
  );
  expect(await server.event("listening")).toMatchObject({ maxSockets: 800 });
});
