import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import manifest from "../../package.json" with { type: "json" };
import { signToken } from "../../src/gate/token.ts";
import { type IssuerKey, issuerKey } from "../support/keys.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { openSocket } from "../support/socket.ts";
import { startUpstashBridge, type UpstashBridge } from "../support/upstash.ts";
import {
  CLIENT,
  FIRST_TEST,
  FUNCTION,
  MINIFLARE,
  ON_BUN,
  ON_DENO,
  ON_NODE,
  ON_WORKERD,
  SOCKETS,
} from "./programs.ts";
import { createProject, NODES, type Project } from "./project.ts";

const decoder = new TextDecoder();
const JWT_SECRET = decoder.decode(TOKEN_SECRET);

/** The oldest versions that this package says it works with. */
const OLDEST = Object.fromEntries(
  Object.entries(manifest.dependencies).map(([name, range]) => [name, range.replace("^", "")]),
);

let redis: TestRedis;
let bridge: UpstashBridge;
let issuer: IssuerKey;
let keys: Bun.Server<undefined>;
let project: Project;
let npmProject: Project;
let sockets: Awaited<ReturnType<Project["serve"]>>;
let environment: Record<string, string>;

beforeAll(async () => {
  redis = await startRedis();
  bridge = await startUpstashBridge(redis.url);
  issuer = await issuerKey("ES256", "k1");
  keys = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => Response.json({ keys: [issuer.jwk] }),
  });
  environment = {
    JWT_SECRET,
    SESSION_SECRET: decoder.decode(SESSION_SECRET),
    JWT_JWKS_URL: keys.url.href,
    REDIS_URL: redis.url,
    UPSTASH_REDIS_REST_URL: bridge.url,
    UPSTASH_REDIS_REST_TOKEN: bridge.token,
  };
  const files = {
    "function.js": FUNCTION,
    "bun.js": ON_BUN,
    "node.js": ON_NODE,
    "deno.js": ON_DENO,
    "worker.js": ON_WORKERD,
    "miniflare.js": MINIFLARE,
    "sockets.js": SOCKETS,
    "client.js": CLIENT,
    "first.test.js": FIRST_TEST,
  };
  project = await createProject({ files, packages: ["deno", "miniflare"], others: NODES });
  npmProject = await createProject({ files, others: OLDEST, installer: "npm" });
  sockets = await project.serve(["bun", "sockets.js"], environment);
}, 300_000);

afterAll(async () => {
  for (const one of [sockets, project, npmProject, bridge, redis]) await one[Symbol.asyncDispose]();
  await keys.stop(true);
}, 60_000);

function programOf(name: keyof typeof NODES): string {
  return project.path("node_modules", name, "bin", "node");
}

const deno = (file: string) => [
  project.path("node_modules", ".bin", "deno"),
  ...["run", "--no-prompt", "--allow-net", "--allow-env", file],
];

function tokenFor(user: string): Promise<string> {
  const nowMs = Date.now();
  const claims = { iat: Math.floor(nowMs / 1000), sid: crypto.randomUUID() };
  return signToken({ secret: TOKEN_SECRET, user, expiresAtMs: nowMs + 3_600_000, claims });
}

async function post(url: string, token?: string, body?: string): Promise<Response> {
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(url, { method: "POST", headers, body: body ?? null });
}

async function mint(origin: string, token: string, base = "auth"): Promise<string> {
  const response = await post(`${origin}/api/${base}/ws-ticket`, token);
  const body = (await response.json()) as { ticket: string; expiresIn: number };
  expect([response.status, body]).toMatchObject([200, { expiresIn: 30 }]);
  return body.ticket;
}

async function openLive(ticket: string) {
  const socket = openSocket(`${sockets.origin.replace("http", "ws")}/live?ticket=${ticket}`);
  await socket.opened;
  return socket;
}

const functions: [string, () => ReturnType<Project["serve"]>][] = [
  ["Bun", () => project.serve(["bun", "bun.js"], environment)],
  ["Node 20", () => project.serve([programOf("node-oldest"), "node.js"], environment)],
  ["the newest Node", () => project.serve([programOf("node-newest"), "node.js"], environment)],
  [
    "this machine's Node, installed by npm beside the oldest versions of what it needs",
    () => npmProject.serve(["node", "node.js"], environment),
  ],
  ["Deno", () => project.serve(deno("deno.js"), environment)],
  [
    "workerd",
    async () => {
      const bundle = ["bun", "build", "worker.js", "--target=browser", "--outfile=bundle.mjs"];
      await project.run(bundle);
      return project.serve([programOf("node-newest"), "miniflare.js"], environment);
    },
  ],
];

describe.each(functions)("a function on %s", (runtime, start) => {
  let origin: string;
  let running: Awaited<ReturnType<Project["serve"]>>;
  beforeAll(async () => {
    running = await start();
    origin = running.origin;
  }, 60_000);
  afterAll(() => running[Symbol.asyncDispose](), 10_000);

  test("mints a ticket that opens a socket on Bun, once", async () => {
    const ticket = await mint(origin, await tokenFor("alice"));
    await using socket = await openLive(ticket);
    socket.send("hello");
    expect(await socket.next()).toEqual({ from: "alice", text: "hello" });
    await expect(openLive(ticket)).rejects.toThrow();
    expect(await (await post(`${origin}/api/auth/redeem`, undefined, ticket)).json()).toMatchObject(
      {
        code: "ticket_refused",
      },
    );
  });

  test("mints for an issuer's keys, and refuses others'", async () => {
    const claims = { sub: "bob", exp: Math.floor(Date.now() / 1000) + 3_600 };
    await using socket = await openLive(await mint(origin, await issuer.sign(claims), "issuer"));
    socket.send("hello");
    expect(await socket.next()).toEqual({ from: "bob", text: "hello" });
    const stranger = await issuerKey("ES256", "k1");
    const refused = await post(`${origin}/api/issuer/ws-ticket`, await stranger.sign(claims));
    expect([refused.status, await refused.json()]).toMatchObject([401, { code: "token_invalid" }]);
  });

  test("redeems a ticket by itself, once", async () => {
    const ticket = await mint(origin, await tokenFor("carol"));
    const redeem = () => post(`${origin}/api/auth/redeem`, undefined, ticket);
    const first = await redeem();
    expect([first.status, await first.json()]).toMatchObject([200, { kind: "user", id: "carol" }]);
    const second = await redeem();
    expect([second.status, await second.json()]).toMatchObject([401, { code: "ticket_refused" }]);
  });

  test("gives visitors their cookie", async () => {
    const response = await post(`${origin}/api/auth/anonymous-session`);
    expect(response.status).toBe(204);
    expect(response.headers.get("set-cookie")).toMatch(/^anonSessionId=v1\.[\w-]{22}\./);
  });

  test("signs out, which closes the socket on Bun", async () => {
    const token = await tokenFor("dave");
    await using socket = await openLive(await mint(origin, token));
    const unused = await mint(origin, token);
    expect((await post(`${origin}/api/auth/sign-out`, token)).status).toBe(204);
    expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
    await expect(openLive(unused)).rejects.toThrow();
    const refused = await post(`${origin}/api/auth/ws-ticket`, token);
    expect([runtime, refused.status]).toEqual([runtime, 401]);
  });
});

test("nobody has two copies of what it needs", async () => {
  for (const [name, version] of Object.entries(OLDEST)) {
    const { stdout } = Bun.spawnSync([
      "find",
      npmProject.directory,
      "-path",
      `*/${name}/package.json`,
    ]);
    const found = String(stdout).trim().split("\n");
    const installed = await Promise.all(found.map((file) => Bun.file(file).json()));
    const own = installed.filter((one) => one.name === name);
    expect(own.map((one) => one.version)).toEqual([version]);
  }
});

test("the command starts a server with its pages where the package is installed", async () => {
  const command = [project.path("node_modules", ".bin", "ws-ticket"), "start"];
  await using server = await project.serve(command, { PORT: "0" });
  for (const [path, type] of [
    ["/", "text/html"],
    ["/client.js", "text/javascript"],
  ] as const) {
    const response = await fetch(server.origin + path);
    expect([response.status, response.headers.get("content-type")]).toMatchObject([
      200,
      expect.stringContaining(type),
    ]);
  }
}, 60_000);

test("a stranger's first test passes, with the server and the chat on Bun", async () => {
  await project.run(["bun", "test", "first.test.js"]);
}, 60_000);

describe("the client", () => {
  let running: Awaited<ReturnType<Project["serve"]>>;
  beforeAll(async () => {
    running = await project.serve(["bun", "bun.js"], environment);
  }, 60_000);
  afterAll(() => running[Symbol.asyncDispose](), 10_000);

  test.each<[string, () => readonly string[]]>([
    ["Bun", () => ["bun", "client.js"]],
    ["the newest Node", () => [programOf("node-newest"), "client.js"]],
    ["Deno", () => deno("client.js")],
  ])("on %s connects with a ticket and ends with the sign-out", async (_, command) => {
    const output = await project.run(command(), {
      SOCKETS: sockets.origin,
      FUNCTION: running.origin,
      TOKEN: await tokenFor("erin"),
    });
    expect(output.trim().split("\n")).toEqual([
      '{"from":"erin","text":"hello"}',
      "4500 Signed out",
      "visitor: 0 no_cookies",
    ]);
  });

  test("on Node 20, which has no WebSocket, ends with a reason", async () => {
    const output = await project.run([programOf("node-oldest"), "client.js"], {
      SOCKETS: sockets.origin,
      FUNCTION: running.origin,
      TOKEN: await tokenFor("erin"),
    });
    expect(output.trim().split("\n")).toEqual(["0 no_socket", "visitor: 0 no_cookies"]);
  });
});
