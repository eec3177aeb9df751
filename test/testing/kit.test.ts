import { expect, test } from "bun:test";
import { createTestServer } from "../../src/testing.ts";
import { CLOSE } from "../../src/wire/close.ts";

const echo = {
  message(socket: Bun.ServerWebSocket<unknown>, _: unknown, text: string) {
    socket.send(`echo ${text}`);
  },
};

test("a first test: a user's socket echoes", async () => {
  await using server = await createTestServer({ handlers: echo });
  const alice = await server.connectAs("alice");
  alice.send("hello");
  expect(await alice.next()).toBe("echo hello");
});

test("an hour ends in an expired credential, not in a missed heartbeat", async () => {
  await using server = await createTestServer({ handlers: echo });
  const alice = await server.connectAs("alice");
  await server.clock.advance(3_590_000);
  alice.send("still here");
  expect(await alice.next()).toBe("echo still here");
  await server.clock.advance(15_000);
  expect(await alice.closed).toMatchObject({ code: CLOSE.credentialExpired.code });
});

test("a store that fails is a 503, and recovers", async () => {
  await using server = await createTestServer({ handlers: echo });
  const mint = async () =>
    fetch(`${server.url}/api/auth/ws-ticket`, {
      method: "POST",
      headers: { Authorization: `Bearer ${await server.token("alice")}` },
    });
  server.store.fail();
  expect((await mint()).status).toBe(503);
  expect(server.logLines.join("")).toContain("store_failed");
  server.store.recover();
  expect((await mint()).status).toBe(200);
});

test("a visitor and a user write to each other without handlers of one's own", async () => {
  await using server = await createTestServer();
  const alice = await server.connectAs("alice");
  const visitor = await server.connectVisitor();
  visitor.send(JSON.stringify({ type: "ANON_TO_USER", to: "alice", content: "Hi" }));
  expect(JSON.parse(await alice.next())).toMatchObject({ type: "ANON_TO_USER", content: "Hi" });
  const [id] = [visitor.cookie.split(".")[1]];
  await server.gate.revoke({ visitor: id as string });
  expect(await visitor.closed).toMatchObject({ code: CLOSE.signedOut.code });
});

test("claims are typed in handlers, and parameters reach them", async () => {
  await using server = await createTestServer<{ room: string }>({
    handlers: {
      message: () => {},
      open: (socket, { claims }) =>
        void socket.send(`${claims?.room} ${socket.data.parameters.get("color")}`),
    },
  });
  const options = { claims: { room: "7" }, parameters: { color: "red" } };
  const alice = await server.connectAs("alice", options);
  expect(await alice.next()).toBe("7 red");
});

test("a refused handshake rejects", async () => {
  await using server = await createTestServer({ handlers: echo, limits: { maxSockets: 1 } });
  await server.connectAs("alice");
  expect(server.connectAs("bob")).rejects.toThrow("refused");
});

test("a visitor's socket has its parameters, too", async () => {
  await using server = await createTestServer({
    handlers: {
      message: () => {},
      open: (socket) => void socket.send(String(socket.data.parameters)),
    },
  });
  const visitor = await server.connectVisitor({ parameters: { room: "7" } });
  expect(await visitor.next()).toBe("room=7");
});
