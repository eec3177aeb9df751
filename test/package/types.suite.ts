import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { createProject, type Project } from "./project.ts";

/** What a page or a function writes, without the types of any runtime. */
const PORTABLE = `
import { CLOSE, createGate, type Gate, memoryTicketStore, type Refusal } from "ws-ticket";
import { connect, type Connection, createChatClient, Failure } from "ws-ticket/client";

interface Claims { room: string }
export const gate: Gate<Claims> = createGate<Claims>({
  users: { secret: "a secret of at least thirty-two bytes", issuer: "me" },
  store: memoryTicketStore(),
});
export async function mint(): Promise<string | Refusal> {
  const issued = await gate.issue({ user: "a", expiresAtMs: 1, claims: { room: "7" } });
  return issued.ok ? issued.ticket : issued;
}
export async function room(ticket: string): Promise<string | undefined> {
  const redeemed = await gate.redeem(ticket);
  return redeemed.ok ? redeemed.identity.claims?.room : undefined;
}
export function open(): Connection {
  const connection = connect({
    url: "https://example.com",
    getTicket: async ({ signal }) => (await fetch("/ticket", { signal })).text(),
    runtime: { random: () => 0 },
  });
  connection.on("message", (text: string) => connection.send(text));
  connection.on("down", (failure) => failure instanceof Failure && failure.code === CLOSE.signedOut.code);
  return connection;
}
export function count(): number {
  using chat = createChatClient({ getToken: () => "jwt" });
  return chat.conversation("alice").messages.filter(({ status }) => status === "failed").length;
}
// @ts-expect-error: what a gate is made of is checked.
createGate({ users: {} });
`;

/** What runs on Bun, with its types. */
const ON_BUN = `
import { createGate } from "ws-ticket";
import { createChat, createSockets, openRedis, serve, sqliteChatHistory } from "ws-ticket/bun";
import { createTestServer } from "ws-ticket/testing";

const gate = createGate<{ room: string }>({ users: () => undefined });
export const sockets = createSockets(gate, {
  message: (socket, { id, claims }, text) => void socket.send([id, claims?.room, text].join()),
});
export const chat = createChat(createGate({ users: () => undefined }), sqliteChatHistory({ path: ":memory:" }));
export const server = serve(gate, { message: () => {} });
Bun.serve({ fetch: (request, bun) => sockets.upgrade(request, bun), websocket: sockets.websocket });
export const redis = await openRedis({ url: "redis://127.0.0.1" });
await using testServer = await createTestServer();
export const alice = await testServer.connectAs("alice");
`;

const compilerOptions = {
  ...{ strict: true, skipLibCheck: false, noEmit: true, target: "ES2022" },
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
};

let project: Project;
beforeAll(async () => {
  const config = (files: string[], options: Record<string, unknown>) =>
    JSON.stringify({ compilerOptions: { ...compilerOptions, ...options }, files });
  const bundler = { module: "preserve", moduleResolution: "bundler" };
  const nodenext = { module: "nodenext" };
  const web = { lib: ["ES2022", "DOM", "DOM.Iterable"], types: [] };
  const bun = { lib: ["ESNext"], types: ["bun"], target: "ESNext" };
  project = await createProject({
    packages: ["typescript", "@types/bun", "deno"],
    others: { "typescript-5": "npm:typescript@5.9.3" },
    files: {
      "portable.ts": PORTABLE,
      "bun.ts": ON_BUN,
      "web-bundler.json": config(["portable.ts"], { ...web, ...bundler }),
      "web-nodenext.json": config(["portable.ts"], { ...web, ...nodenext }),
      "bun-bundler.json": config(["portable.ts", "bun.ts"], { ...bun, ...bundler }),
      "bun-nodenext.json": config(["portable.ts", "bun.ts"], { ...bun, ...nodenext }),
    },
  });
}, 300_000);
afterAll(() => project[Symbol.asyncDispose](), 60_000);

test.each([
  ["TypeScript 7", "typescript", "web-bundler"],
  ["TypeScript 7", "typescript", "web-nodenext"],
  ["TypeScript 7", "typescript", "bun-bundler"],
  ["TypeScript 7", "typescript", "bun-nodenext"],
  // Slower, and used for long yet.
  ["TypeScript 5.9", "typescript-5", "web-nodenext"],
  ["TypeScript 5.9", "typescript-5", "bun-bundler"],
])(
  "%s (%s), strict and without skipLibCheck: %s",
  async (_, name, config) => {
    const tsc = project.path("node_modules", name, "bin", "tsc");
    const output = await project.run(["node", tsc, "--project", `${config}.json`]);
    expect(output).toBe("");
  },
  120_000,
);

test("Deno checks the same", async () => {
  const deno = project.path("node_modules", ".bin", "deno");
  await project.run([deno, "check", "portable.ts"]);
}, 120_000);

test("a registry of TypeScript sources would take the entries that run everywhere", async () => {
  const rooms = ["mod.ts", "lib", "wire", "request", "redis", "gate", "client"];
  for (const room of rooms) {
    const source = join(import.meta.dir, "../../src", room);
    await cp(source, project.path("sources/src", room), { recursive: true });
  }
  const { license, version, dependencies } = manifest;
  const imports = Object.entries(dependencies).map(([name, range]) => [
    name,
    `npm:${name}@${range}`,
  ]);
  await project.write({
    "sources/deno.json": JSON.stringify({
      ...{ name: "@stranger/ws-ticket", version, license },
      exports: { ".": "./src/mod.ts", "./client": "./src/client/mod.ts" },
      imports: Object.fromEntries(imports),
      // As this repository's own.
      compilerOptions: { noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true },
      // Not part of the project around it.
      workspace: [],
    }),
  });
  const deno = project.path("node_modules", ".bin", "deno");
  const command = [deno, "publish", "--dry-run", "--allow-dirty", "--quiet"];
  await project.run([...command, "--config", project.path("sources/deno.json")]);
}, 120_000);
