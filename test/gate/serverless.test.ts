import { describe, expect, test } from "bun:test";
import { createContext, runInContext } from "node:vm";
import type * as Entry from "../../src/mod.ts";
import { fakeClock } from "../support/clock.ts";
import { forge } from "../support/keys.ts";
import { HANDSHAKE } from "../support/raw.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/server.ts";
import { watchStore } from "../support/store.ts";

/** The entry `ws-ticket` as a bundler makes one file of it. */
async function bundle(options: Partial<Bun.BuildConfig> = {}): Promise<string> {
  const entrypoints = [new URL("../../src/mod.ts", import.meta.url).pathname];
  const built = await Bun.build({ entrypoints, target: "browser", ...options } as Bun.BuildConfig);
  expect([built.success, built.outputs.length]).toEqual([true, 1]);
  return (await built.outputs[0]?.text()) ?? "";
}

/** What every runtime has that is meant: web standards, and nothing of its own. */
const WEB_STANDARDS = [
  ...["AbortController", "AbortSignal", "Blob", "DOMException", "Event", "EventTarget", "FormData"],
  ...["Headers", "ReadableStream", "Request", "Response", "TextDecoder", "TextEncoder"],
  ...["TransformStream", "Uint8Array", "URL", "URLSearchParams", "WritableStream", "atob", "btoa"],
  ...["clearInterval", "clearTimeout", "console", "crypto", "fetch", "performance"],
  ...["queueMicrotask", "setInterval", "setTimeout", "structuredClone"],
];

/** The bundle in a place that has web standards alone. */
async function loadBare(): Promise<typeof Entry> {
  const globals = Object.fromEntries(
    WEB_STANDARDS.map((name) => [name, Reflect.get(globalThis, name)]),
  );
  const context = createContext({ ...globals, module: { exports: {} } });
  const others = ["Bun", "Deno", "process", "Buffer", "require", "setImmediate"];
  const present = runInContext(
    `[${others.map((name) => `typeof ${name}`).join()}].join()`,
    context,
  );
  expect(present).toBe(others.map(() => "undefined").join());
  // As libraries do that follow what is asynchronous: the runtime's own promises are no instances of it.
  runInContext("globalThis.Promise = class Replaced extends Promise {}", context);
  runInContext(await bundle({ format: "cjs" }), context);
  return (context as { module: { exports: typeof Entry } }).module.exports;
}

describe("the entry ws-ticket", () => {
  test("is one file without imports of any runtime's modules", async () => {
    const text = await bundle();
    expect(text).not.toMatch(
      /\b(?:from|import|require)\b\s*\(?\s*["'](?:node|bun|deno|npm|cloudflare):/,
    );
    expect(text).not.toMatch(/\brequire\(|\bimport\s*\(|^\s*import\s/m);
  });

  test("has no global of any runtime's own in its own code, except Bun's after looking for it", async () => {
    const text = await bundle({ packages: "external" });
    const names = /\b(?:Bun|Deno|process|Buffer|require|setImmediate|__dirname|WebSocketPair)\b/;
    const uses = text.split("\n").filter((line) => names.test(line));
    for (const line of uses) expect(line).toMatch(/Reflect\.get\(globalThis, "Bun"\)/);
  });

  test("has names in its exports, and no default", async () => {
    const names = Object.keys(await loadBare());
    expect(names).toContain("createGate");
    expect(names).not.toContain("default");
  });
});

describe("without any runtime's own globals", () => {
  async function start() {
    const { createGate, memoryTicketStore } = await loadBare();
    const clock = fakeClock();
    const store = watchStore(memoryTicketStore({ clock }));
    const gate = createGate({
      users: { secret: TOKEN_SECRET },
      visitors: { secret: SESSION_SECRET },
      ...{ store, clock, log: () => {} },
    });
    const post = (path: string, headers: Record<string, string> = {}) =>
      gate.fetch(
        new Request(`https://chat.example.com/api/auth/${path}`, { method: "POST", headers }),
      );
    return { gate, store, clock, post };
  }

  test.each([
    ["HS256", "sha256"],
    ["HS384", "sha384"],
    ["HS512", "sha512"],
  ])("it mints for an %s token behind https, and redeems once", async (alg, hash) => {
    const { gate, store, clock, post } = await start();
    const claims = { sub: "alice", exp: clock.nowMs() / 1000 + 60 };
    const token = forge({ alg, typ: "JWT" }, claims, { hash });
    const minted = await post("ws-ticket", { Authorization: `Bearer ${token}` });
    const body = (await minted.json()) as { ticket: string };
    expect(body as unknown).toEqual({
      ticket: expect.stringMatching(/^[\w-]{43}$/),
      expiresIn: 30,
    });
    const key = new Bun.CryptoHasher("sha256").update(body.ticket).digest("hex");
    expect(store.puts.map((put) => put.hash)).toEqual([key]);
    expect(await gate.redeem(body.ticket)).toMatchObject({ ok: true, identity: { id: "alice" } });
    expect(await gate.redeem(body.ticket)).toEqual({ ok: false, code: "ticket_refused" });
    const forged = `${token.slice(0, -4)}AAAA`;
    const refused = await post("ws-ticket", { Authorization: `Bearer ${forged}` });
    expect([refused.status, await refused.json()]).toMatchObject([401, { code: "token_invalid" }]);
  });

  test("it gives visitors a cookie that admits them", async () => {
    const { gate, post } = await start();
    const session = await post("anonymous-session");
    expect(session.headers.get("set-cookie")).toStartWith("__Host-anonSessionId=v1.");
    const Cookie = session.headers.get("set-cookie")?.split(";")[0] as string;
    const handshake = (cookie: string) => {
      const headers = { ...HANDSHAKE, Origin: "https://chat.example.com", Cookie: cookie };
      return gate.admit(new Request("https://chat.example.com/live", { headers }));
    };
    expect(await handshake(Cookie)).toMatchObject({ ok: true, identity: { kind: "visitor" } });
    expect(await handshake(`${Cookie.slice(0, -4)}AAAA`)).toMatchObject({
      code: "session_refused",
    });
  });
});

test("it mints where a platform calls it with a Request alone", async () => {
  const { createGate, signToken } = await import("../../src/mod.ts");
  const gate = createGate({ users: { secret: TOKEN_SECRET } });
  const expiresAtMs = Date.now() + 60_000;
  const token = await signToken({ secret: TOKEN_SECRET, user: "alice", expiresAtMs });
  const minted = await gate.fetch(
    new Request("https://chat.example.com/api/auth/ws-ticket", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    }),
  );
  expect(await minted.json()).toEqual({
    ticket: expect.stringMatching(/^[\w-]{43}$/),
    expiresIn: 30,
  });
});
