import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createGate } from "../../src/gate/gate.ts";
import { signToken } from "../../src/gate/token.ts";
import { openRedis } from "../../src/open.ts";
import { serve } from "../../src/sockets/serve.ts";
import { TOKEN_SECRET } from "../support/people.ts";
import { freePort, startRedis } from "../support/redis.ts";
import { openSocket } from "../support/socket.ts";
import { startUpstashBridge } from "../support/upstash.ts";
import { createProject, type Project } from "./project.ts";

/** Sizes that nothing may grow beyond, in bytes: of the client gzipped, of the gate as it is. */
const MAX_CHAT_BYTES = 5 * 1024;
const MAX_CONNECT_BYTES = 2.6 * 1024;
const MAX_GATE_BYTES = 90_000;

/** Mints and redeems with everything in one file. */
const GATE = `
import { createGate, memoryTicketStore, redisTicketStore, signToken, upstashTransport } from "ws-ticket";
const secret = "a secret of at least thirty-two bytes";
export const onRedis = () => redisTicketStore(upstashTransport({ url: "http://localhost", token: "t" }));
export async function main() {
  const gate = createGate({ users: { secret }, visitors: { secret }, store: memoryTicketStore() });
  const token = await signToken({ secret, user: "alice", expiresAtMs: Date.now() + 60_000 });
  const request = new Request("https://example.com/api/auth/ws-ticket", {
    method: "POST",
    headers: { Authorization: "Bearer " + token },
  });
  const { ticket } = await (await gate.fetch(request)).json();
  const first = await gate.redeem(ticket);
  const second = await gate.redeem(ticket);
  console.log(first.identity.id, second.code);
}
void main();
`;

/** The client, with and without the chat. */
const CONNECT = 'import { connect } from "ws-ticket/client"; globalThis.made = connect;';
const CHAT =
  'import { createChatClient } from "ws-ticket/client"; globalThis.made = createChatClient;';

let project: Project;
beforeAll(async () => {
  project = await createProject({
    packages: ["@rollup/plugin-node-resolve", "rollup", "vite", "webpack", "webpack-cli"],
    files: {
      "gate.js": GATE,
      "connect.js": CONNECT,
      "chat.js": CHAT,
      "webpack.config.js": `
        export default [
          {
            ...{ mode: "production", target: "node", entry: "./gate.js" },
            output: { path: import.meta.dirname + "/webpack", filename: "gate.cjs" },
          },
          {
            ...{ mode: "production", target: "web", entry: { connect: "./connect.js", chat: "./chat.js" } },
            output: { path: import.meta.dirname + "/webpack", filename: "[name].js" },
          },
        ];
      `,
      "rollup.config.js": `
        import resolve from "@rollup/plugin-node-resolve";
        export default ["gate", "connect", "chat"].map((name) => ({
          input: name + ".js",
          output: { file: "rollup/" + name + ".js", inlineDynamicImports: true },
          plugins: [resolve()],
          onwarn(warning) { throw new Error(warning.message); },
        }));
      `,
      ...Object.fromEntries(
        ["gate", "connect", "chat"].map((name) => [
          `vite.${name}.js`,
          `export default {
            logLevel: "error",
            build: {
              ...{ outDir: "vite", emptyOutDir: false, modulePreload: false, target: "esnext" },
              rollupOptions: {
                input: "${name}.js",
                output: { entryFileNames: "[name].js", codeSplitting: false },
              },
            },
          };`,
        ]),
      ),
    },
  });
}, 300_000);
afterAll(() => project[Symbol.asyncDispose](), 60_000);

/** What the gate's program prints, some time after it was loaded. */
const MINTED = "undefined alice ticket_refused";

const tool = (name: string) => project.path("node_modules", ".bin", name);

/** Runs what a bundler made on this machine's Node; what it prints, and the type of what it makes. */
async function runBuilt(file: string): Promise<string> {
  const script = "await import(process.argv[1]); console.log(typeof globalThis.made)";
  const command = ["node", "--input-type=module", "--eval", script, project.path(file)];
  return (await project.run(command)).trim().replace("\n", " ");
}

async function gzipped(file: string): Promise<number> {
  return Bun.gzipSync(await Bun.file(project.path(file)).bytes(), { level: 9 }).length;
}

describe("what a bundler makes mints and redeems:", () => {
  test("webpack", async () => {
    await project.run([tool("webpack"), "--no-stats"]);
    expect(await runBuilt("webpack/gate.cjs")).toBe(MINTED);
    expect(await runBuilt("webpack/connect.js")).toBe("function");
    expect(await runBuilt("webpack/chat.js")).toBe("function");
  }, 120_000);

  test("rollup", async () => {
    await project.run([tool("rollup"), "--config", "--silent"]);
    expect(await runBuilt("rollup/gate.js")).toBe(MINTED);
    expect(await runBuilt("rollup/connect.js")).toBe("function");
    expect(await runBuilt("rollup/chat.js")).toBe("function");
  }, 120_000);

  test("Vite, and the client stays as small as it was", async () => {
    for (const name of ["gate", "connect", "chat"]) {
      await project.run([tool("vite"), "build", "--config", `vite.${name}.js`]);
    }
    expect(await runBuilt("vite/gate.js")).toBe(MINTED);
    const sizes = {
      chat: await gzipped("vite/chat.js"),
      connect: await gzipped("vite/connect.js"),
    };
    console.log("Vite, gzipped:", sizes);
    expect(sizes.chat).toBeLessThanOrEqual(MAX_CHAT_BYTES);
    expect(sizes.connect).toBeLessThanOrEqual(MAX_CONNECT_BYTES);
  }, 120_000);

  test("Bun, and what a function loads stays as small as it was", async () => {
    const build = (entry: string, out: string) =>
      project.run(["bun", "build", "--minify", "--target=browser", entry, `--outfile=${out}`]);
    await build("node_modules/ws-ticket/dist/mod.js", "bun/mod.js");
    await build("gate.js", "bun/gate.js");
    for (const name of ["connect", "chat"]) await build(`${name}.js`, `bun/${name}.js`);
    expect(await runBuilt("bun/gate.js")).toBe(MINTED);
    const gate = Bun.file(project.path("bun/mod.js")).size;
    const [chat, connect] = [await gzipped("bun/chat.js"), await gzipped("bun/connect.js")];
    console.log("Bun, minified, the client gzipped:", { gate, chat, connect });
    expect(gate).toBeLessThanOrEqual(MAX_GATE_BYTES);
    expect(connect).toBeLessThanOrEqual(MAX_CONNECT_BYTES);
  }, 120_000);
});

describe("Next", () => {
  test("has the gate as a route handler and the client in a page; its sign-out closes the socket on Bun", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    const environment = {
      JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
      UPSTASH_REDIS_REST_URL: bridge.url,
      UPSTASH_REDIS_REST_TOKEN: bridge.token,
    };
    await using next = await createProject({
      packages: ["next", "react", "react-dom"],
      files: {
        "app/layout.jsx": `
          export default ({ children }) => <html lang="en"><body>{children}</body></html>;
        `,
        "app/page.jsx": `
          "use client";
          import { useEffect, useState } from "react";
          import { connect } from "ws-ticket/client";
          export default function Page() {
            const [status, setStatus] = useState("not yet");
            useEffect(() => {
              const connection = connect();
              const off = connection.on("state", (state) => setStatus(state.status));
              return () => { off(); connection.dispose(); };
            }, []);
            return <p>Socket: {status}</p>;
          }
        `,
        "app/api/auth/[...path]/route.js": `
          import { createGate, redisTicketStore, upstashTransport } from "ws-ticket";
          let gate;
          const open = () => createGate({
            users: { secret: process.env.JWT_SECRET },
            store: redisTicketStore(upstashTransport({
              url: process.env.UPSTASH_REDIS_REST_URL,
              token: process.env.UPSTASH_REDIS_REST_TOKEN,
            })),
          });
          const handler = (request) => (gate ??= open()).fetch(request);
          export { handler as POST, handler as OPTIONS };
        `,
      },
    });
    const bin = next.path("node_modules", ".bin", "next");
    await next.run([bin, "build"]);
    const port = String(freePort());
    const command = [bin, "start", "--hostname", "127.0.0.1", "--port", port];
    await using running = await next.serve(command, environment);

    expect(await (await fetch(running.origin)).text()).toContain("not yet");
    const shared = await openRedis({ url: redis.url }, { log: () => {} });
    await using gate = createGate({ users: { secret: TOKEN_SECRET }, store: shared.store });
    const message = (socket: { send(text: string): unknown }, { id }: { id: string }) =>
      void socket.send(JSON.stringify({ from: id }));
    await using server = serve(gate, { message }, { path: "/live" });
    const nowMs = Date.now();
    const token = await signToken({
      ...{ secret: TOKEN_SECRET, user: "alice", expiresAtMs: nowMs + 3_600_000 },
      claims: { iat: Math.floor(nowMs / 1000), sid: "s" },
    });
    const post = (path: string) =>
      fetch(`${running.origin}/api/auth/${path}`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
      });
    const { ticket } = (await (await post("ws-ticket")).json()) as { ticket: string };
    const live = `${server.url.origin.replace("http", "ws")}/live?ticket=${ticket}`;
    await using socket = openSocket(live);
    await socket.opened;
    socket.send("hello");
    expect(await socket.next()).toEqual({ from: "alice" });
    expect((await post("sign-out")).status).toBe(204);
    expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
  }, 300_000);
});
