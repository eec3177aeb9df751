import { expect, test } from "bun:test";
import { createTestServer } from "ws-ticket/testing";

test("a socket closes when its credential expires", async () => {
  await using server = await createTestServer();
  const alice = await server.connectAs("alice");
  await server.clock.advance(3_600_000);
  expect(await alice.closed).toMatchObject({ code: 4001 });
});
