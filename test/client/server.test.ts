import { describe, expect, test } from "bun:test";
import { connect, type Connection, createChatClient } from "../../src/client/mod.ts";
import { createTestServer, type TestServer } from "../../src/testing.ts";
import { startTunnel } from "../support/tunnel.ts";
import { describeOnNode } from "../recipes/program.ts";

/** A protocol of one's own: text, and a word before the credential ends. */
const handlers = {
  message: (socket: { send(text: string): unknown }, _: unknown, text: string) =>
    void socket.send(`echo ${text}`),
  expiring: (socket: { send(text: string): unknown }) => void socket.send("expiring"),
};

/** Resolves with what the event brings, once it is as wanted. */
function once<Name extends "state" | "message" | "down">(
  connection: Connection,
  name: Name,
  isWanted: (event: never) => boolean = () => true,
): Promise<unknown> {
  return new Promise((resolve) => {
    const off = connection.on(name, (event) => {
      if (!isWanted(event as never)) return;
      off();
      resolve(event);
    });
  });
}

async function start(options: { path?: string } = {}) {
  const server = await createTestServer({ handlers, path: "/live", ...options });
  const connection = connect({
    url: server.url,
    paths: { socket: "/live" },
    getToken: () => server.token("alice"),
  });
  return { server, connection };
}

describe("connect and the server", () => {
  test("speak a protocol of one's own", async () => {
    const { server, connection } = await start();
    await using _server = server;
    using _connection = connection;
    connection.on("open", () => connection.send("hello"));
    expect(await once(connection, "message")).toBe("echo hello");
  });

  test("renew a credential that ends soon without a gap", async () => {
    await using server = await createTestServer({ handlers, path: "/live" });
    const { clock } = server;
    let tokens = 0;
    using connection = connect({
      url: server.url,
      paths: { socket: "/live" },
      getToken() {
        tokens++;
        return server.token("alice");
      },
      // One clock for both sides.
      runtime: { after: clock.after, nowMs: clock.nowMs, monotonicMs: clock.monotonicMs },
    });
    const downs: unknown[] = [];
    connection.on("down", (failure) => downs.push(failure));
    connection.on("message", (text) => text === "expiring" && connection.renew());
    const opened = () =>
      new Promise<void>((resolve) => void connection.on("open", () => resolve()));
    const first = opened();
    clock.step(0);
    await first;
    const second = opened();
    // Not further: an attempt may take ten seconds of this clock.
    await clock.advance(3_600_000 - 30_000);
    await second;
    // Past the end of the first credential.
    await clock.advance(60_000);
    connection.send("still here");
    expect(await once(connection, "message")).toBe("echo still here");
    expect([connection.state.status, tokens, downs]).toEqual(["open", 2, []]);
  });

  test("end when the path goes dark without a FIN; the heartbeat keeps the chat's open before", async () => {
    await using server = await createTestServer();
    await using tunnel = await startTunnel(Number(new URL(server.url).port));
    const { clock } = server;
    using chat = createChatClient({
      url: `http://127.0.0.1:${tunnel.port}`,
      getToken: () => server.token("alice"),
      runtime: { after: clock.after, nowMs: clock.nowMs, monotonicMs: clock.monotonicMs },
    });
    const states: string[] = [];
    const opened = Promise.withResolvers<void>();
    chat.on("state", ({ status }) => {
      states.push(status);
      if (status === "open") opened.resolve();
    });
    clock.step(0);
    await opened.promise;
    await clock.advance(600_000);
    expect(states).toEqual(["open"]);
    tunnel.stopForwarding();
    await clock.advance(60_000);
    expect(states.slice(0, 2)).toEqual(["open", "waiting"]);
  });

  test("end at sign-out, with its code and reason", async () => {
    const { server, connection } = await start();
    await using _server = server;
    using _connection = connection;
    await once(connection, "state", ({ status }: { status: string }) => status === "open");
    const closed = once(connection, "state", ({ status }: { status: string }) => status !== "open");
    await server.gate.revoke({ user: "alice" });
    expect(await closed).toMatchObject({
      status: "closed",
      failure: { code: 4500, reason: "Signed out" },
    });
  });

  test("tell a refused handshake from a refused ticket", async () => {
    const { server, connection } = await start({ path: "/elsewhere" });
    await using _server = server;
    using _connection = connection;
    expect(await once(connection, "down")).toMatchObject({ code: 1006 });
    using stranger = connect({ url: server.url, getToken: "no.jwt.here" });
    expect(await once(stranger, "down")).toMatchObject({ code: 401, reason: "token_invalid" });
    expect(stranger.state.status).toBe("closed");
  });
});

/** Runs on Node: connects, says hello, waits to be signed out; then tries an address where no socket opens. */
const PROGRAM = `
  import { connect } from "ws-ticket/client";
  const { SERVER: url, TOKEN: getToken, OTHER_TOKEN } = process.env;
  const say = (...words) => console.log(words.join(" "));
  const connection = connect({ url, getToken, paths: { socket: "/live" } });
  connection.on("open", () => connection.send("hello"));
  connection.on("message", say);
  connection.on("down", ({ code, reason }) => {
    say(code, reason);
    const refused = connect({ url, getToken: OTHER_TOKEN, paths: { socket: "/nowhere" } });
    refused.on("state", ({ status }) => say("refused:", status));
    refused.on("down", ({ code }) => {
      say("refused:", code);
      refused.dispose();
      const visitor = connect({ url });
      visitor.on("state", ({ status, failure }) => say("visitor:", status, failure?.reason));
    });
  });
`;

async function runOnNode(server: TestServer, onLine: (line: string) => void): Promise<void> {
  const built = await Bun.build({
    entrypoints: [`${import.meta.dir}/program.js`],
    files: { [`${import.meta.dir}/program.js`]: PROGRAM },
    target: "node",
  });
  const { stdout } = Bun.spawnSync(["node", "--version"]);
  const hasWebSocket = Number(/\d+/.exec(String(stdout))?.[0]) >= 22;
  const child = Bun.spawn(
    ["node", ...(hasWebSocket ? [] : ["--experimental-websocket"]), "--input-type=module", "-"],
    {
      env: {
        PATH: process.env.PATH,
        SERVER: server.url,
        TOKEN: await server.token("alice", { claims: { sid: "first" } }),
        OTHER_TOKEN: await server.token("alice", { claims: { sid: "second" } }),
      },
      stdin: new Blob([(await built.outputs[0]?.text()) ?? ""]),
      stdout: "pipe",
      stderr: "ignore",
    },
  );
  let rest = "";
  for await (const chunk of child.stdout as unknown as AsyncIterable<Uint8Array>) {
    const lines = (rest + Buffer.from(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
}

describeOnNode("connect on Node", () => {
  test("echoes, ends at sign-out, notices a refused handshake, and is no visitor", async () => {
    await using server = await createTestServer({ handlers, path: "/live" });
    const lines: string[] = [];
    await runOnNode(server, (line) => {
      lines.push(line);
      if (line === "echo hello") void server.gate.revoke({ user: "alice", session: "first" });
    });
    expect(lines).toEqual([
      "echo hello",
      "4500 Signed out",
      "refused: 1006",
      "visitor: closed no_cookies",
    ]);
  });
});
