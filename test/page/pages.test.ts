import { describe, expect, spyOn, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import * as viewsOf from "../../src/page/views.tsx";
import * as close from "../../src/wire/close.ts";
import * as frames from "../../src/wire/frames.ts";
import * as paths from "../../src/wire/paths.ts";
import type { TestServer } from "../support/server.ts";
import { startSite } from "../support/site.ts";

const SOURCE = join(import.meta.dir, "../../src");
/** Largest client with everything that it exports, gzipped, in bytes. */
const MAX_CLIENT_BYTES = 7 * 1024;

describe("every page", () => {
  for (const path of ["/", "/chat/alice", "/inbox", "/inbox/100%25"]) {
    test(`${path} allows scripts and styles of its own server, and nothing else`, async () => {
      await using site = startSite();
      const { status, headers } = await site.ask(path);
      expect(status).toBe(200);
      expect(headers.get("content-type")).toBe("text/html; charset=UTF-8");
      const policy = new Map(
        (headers.get("content-security-policy") ?? "").split("; ").map((directive) => {
          const [name = "", ...values] = directive.split(" ");
          return [name, values.join(" ")];
        }),
      );
      expect(Object.fromEntries(policy)).toEqual({
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
      });
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("referrer-policy")).toBe("no-referrer");
      expect(headers.get("cross-origin-opener-policy")).toBe("same-origin");
      // Back may show a page again, but nothing of an inbox whose user has signed out.
      const isInbox = path.startsWith("/inbox");
      expect(headers.get("cache-control")).toBe(isInbox ? "no-store" : "no-cache");
    });
  }

  test("allows GET and HEAD only", async () => {
    await using site = startSite();
    for (const path of ["/", "/chat/alice", "/inbox", "/client.js", await assetOf(site, "css")]) {
      expect((await site.ask(path, { method: "HEAD" })).status).toBe(200);
      const { status, headers } = await site.ask(path, { method: "POST" });
      expect(status).toBe(405);
      expect(headers.get("allow")).toBe("GET, HEAD");
    }
  });

  test("has the user's name as text, wherever it stands", async () => {
    await using site = startSite();
    const { text } = await site.ask(`/chat/${encodeURIComponent(`"><script>alert(1)</script>`)}`);
    expect(text).not.toContain("<script>alert");
    expect(text).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
  });

  test("is put together once, however many load it", async () => {
    using views = new DisposableStack();
    const made = (["home", "chat", "inbox", "notFound"] as const).map((name) =>
      views.use(spyOn(viewsOf, name)),
    );
    await using site = startSite();
    const headers = { Accept: "text/html" };
    for (let time = 0; time < 5; time++) {
      for (const path of ["/", "/chat/alice", "/chat/bob", "/inbox", "/nowhere"]) {
        expect((await site.ask(path, { headers })).text).toContain("</html>");
      }
    }
    expect(made.map((view) => view.mock.calls.length)).toEqual([1, 2, 1, 1]);
  });

  test("of a user is shown 3,000 times a minute to one address, and as often to others", async () => {
    await using site = startSite({ trustProxy: 1, demo: false });
    const statusFor = async (address: string) => {
      const headers = { "X-Forwarded-For": address };
      return (await fetch(`${site.origin}/chat/alice`, { headers })).status;
    };
    let [shown, atMs] = [0, 0];
    for (let isOver = false; !isOver;) {
      const some = Array.from({ length: 100 }, () => statusFor("192.0.2.1"));
      const statuses = await Promise.all(some);
      shown += statuses.filter((status) => status === 200).length;
      isOver = statuses.includes(429);
      // Further responses to one address would wait.
      if (!isOver) site.clock.advance(100);
      if (!isOver) atMs += 100;
    }
    expect(shown).toBe(3_000 + (3_000 * atMs) / 60_000);
    expect(await statusFor("192.0.2.1")).toBe(429);
    expect(await statusFor("192.0.2.2")).toBe(200);
    site.clock.advance(60_000 / 3_000);
    expect(await statusFor("192.0.2.1")).toBe(200);
  });

  for (const name of ["%00", "a%0Ab", "x".repeat(256)]) {
    test(`is not found for a user who can't exist: ${name.slice(0, 12)}`, async () => {
      await using site = startSite();
      expect((await site.ask(`/chat/${name}`)).status).toBe(404);
    });
  }

  test("doesn't offer to sign in under any name without the demo mode", async () => {
    await using site = startSite({ demo: false });
    for (const path of ["/", "/inbox"]) {
      expect((await site.ask(path)).text).not.toMatch(/demo|any name/);
    }
    expect((await site.ask("/inbox")).text).not.toMatch(/<(?:textarea|input)[^>]* name=/);
  });
});

describe("client.js", () => {
  test("is one module of at most 7 KB gzipped, with the exports of the client", async () => {
    await using site = startSite();
    const { status, headers, text } = await site.ask("/client.js");
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("text/javascript; charset=utf-8");
    expect(Bun.gzipSync(text, { level: 9 }).length).toBeLessThanOrEqual(MAX_CLIENT_BYTES);
    const { imports, exports } = new Bun.Transpiler({ loader: "js" }).scan(text);
    expect(imports).toEqual([]);
    expect(exports.sort()).toEqual([
      ...[
        "Failure",
        "connect",
        "createChatClient",
        "createChatList",
        "createDrafts",
        "createOutbox",
      ],
    ]);
  });

  test("isn't sent again while it is unchanged", async () => {
    await using site = startSite();
    const first = await fetch(`${site.origin}/client.js`);
    const etag = first.headers.get("etag") ?? "";
    const again = await fetch(`${site.origin}/client.js`, { headers: { "If-None-Match": etag } });
    expect(again.status).toBe(304);
    expect(await again.text()).toBe("");
  });

  test("can be imported by the pages of allowed origins, and by no others", async () => {
    const allowed = "https://app.example";
    await using site = startSite({ demo: false, origins: [allowed] });
    const from = (Origin: string) => site.ask("/client.js", { headers: { Origin } });
    const { headers } = await from(allowed);
    expect(headers.get("access-control-allow-origin")).toBe(allowed);
    expect(headers.get("vary")).toBe("Origin, Accept-Encoding");
    for (const foreign of ["https://evil.example", "null"]) {
      expect((await from(foreign)).headers.has("access-control-allow-origin")).toBe(false);
    }
  });

  test("imports only itself and the wire, whose modules import nothing", async () => {
    const importsOf = async (path: string) => {
      const source = await Bun.file(join(SOURCE, path)).text();
      return new Bun.Transpiler({ loader: "ts" }).scan(source).imports.map((one) => one.path);
    };
    const names = (await readdir(join(SOURCE, "client"))).map((name) => `client/${name}`);
    const imports = (await Promise.all(names.map(importsOf))).flat();
    const wire = new Set(imports.filter((path) => !path.startsWith("./")));
    expect([...wire].sort()).toEqual(["../wire/close.ts", "../wire/frames.ts", "../wire/paths.ts"]);
    for (const path of wire) expect(await importsOf(path.replace("../", ""))).toEqual([]);
  });

  test("has functions of the wire that use nothing outside themselves", () => {
    // They are served as text, each by itself.
    const functions = [close, frames, paths]
      .flatMap((module) => Object.values<unknown>(module))
      .filter((value) => typeof value === "function");
    expect(functions).toHaveLength(2);
    for (const one of functions) {
      const alone: (...args: unknown[]) => unknown = (0, eval)(`(${String(one)})`);
      for (const argument of [4000, 4500, "user", "visitor"]) {
        expect(alone(argument)).toBe((one as typeof alone)(argument));
      }
    }
  });
});

/** The path of the asset of a page whose name ends like this. */
async function assetOf(site: TestServer, ending: string, page = "/chat/alice"): Promise<string> {
  const { text } = await site.ask(page);
  return new RegExp(`"(/assets/[^"]+\\.${ending})"`).exec(text)?.[1] ?? "";
}

describe("assets", () => {
  test("have a hash of their content in their names, and are kept for a year", async () => {
    await using site = startSite();
    for (const ending of ["js", "css", "svg"]) {
      const path = await assetOf(site, ending);
      const [, hash = ""] = /^\/assets\/\w+-([0-9a-f]{16})\.\w+$/.exec(path) ?? [];
      const { headers, text } = await site.ask(path);
      expect(new Bun.CryptoHasher("sha256").update(text).digest("hex")).toStartWith(hash);
      expect(hash).toHaveLength(16);
      expect(headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    }
  });

  test("aren't found under the name of another version", async () => {
    await using site = startSite();
    const path = (await assetOf(site, "js")).replace(/-\w{16}/, "-0123456789abcdef");
    expect((await site.ask(path)).status).toBe(404);
  });

  test.each([
    ["gzip, deflate, br", "br"],
    ["gzip;q=1.0, br;q=0", "gzip"],
    ["GZIP", "gzip"],
    ["deflate", null],
    ["gzip;q=0, br; q=0.0", null],
    ["", null],
  ])("are compressed as Accept-Encoding says: %p gives %p", async (accepted, encoding) => {
    await using site = startSite();
    const url = site.origin + (await assetOf(site, "js"));
    const plain = await (await fetch(url, { headers: { "Accept-Encoding": "" } })).text();
    const response = await fetch(url, {
      headers: { "Accept-Encoding": accepted },
      decompress: false,
    });
    expect(response.headers.get("content-encoding")).toBe(encoding);
    expect(response.headers.get("vary")).toBe("Accept-Encoding");
    const bytes = new Uint8Array(await response.arrayBuffer());
    const decode = { br: brotliDecompressSync, gzip: gunzipSync }[encoding ?? ""];
    expect(new TextDecoder().decode(decode ? decode(bytes) : bytes)).toBe(plain);
    if (encoding) expect(bytes.length).toBeLessThan(plain.length / 2);
  });
});

describe("what doesn't exist", () => {
  const NAVIGATION = { Accept: "text/html,application/xhtml+xml,*/*;q=0.8" };
  const PATHS = ["/nothing", "/inbox/", "/chat/%00", "/inbox/a/b", "/assets/nothing.js"];

  test.each(PATHS)("is a page for a browser that shows it: %s", async (path) => {
    await using site = startSite();
    const { status, headers, text } = await site.ask(path, { headers: NAVIGATION });
    expect(status).toBe(404);
    expect(headers.get("content-type")).toBe("text/html; charset=UTF-8");
    expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
    expect(headers.get("cache-control")).toBe("no-store");
    expect(text).toContain("Page not found</h1>");
  });

  test.each(PATHS)("is a problem in JSON for everything else: %s", async (path) => {
    await using site = startSite();
    expect((await site.ask(path)).body.code).toBe("not_found");
    const posted = await site.ask(path, { method: "POST", headers: NAVIGATION });
    expect(posted.headers.get("content-type")).toBe("application/problem+json");
  });

  test("is a problem in JSON below /api, whoever asks", async () => {
    await using site = startSite();
    const { status, body } = await site.ask("/api/nothing", { headers: NAVIGATION });
    expect([status, body.code]).toEqual([404, "not_found"]);
  });
});

test("only the pages' own files are served", async () => {
  await using site = startSite();
  for (const name of ["nothing.js", "..%2Fpages.ts", "__proto__", "constructor"]) {
    expect((await site.ask(`/assets/${name}`)).status).toBe(404);
  }
  expect((await site.ask("/page/pages.ts")).status).toBe(404);
});

test("every file that a page links to is served", async () => {
  await using site = startSite();
  for (const path of ["/", "/chat/alice", "/inbox"]) {
    const { text } = await site.ask(path);
    const links = [...text.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(([, link]) => link);
    expect(links.length).toBeGreaterThanOrEqual(2);
    for (const link of links) expect((await site.ask(link as string)).status).toBe(200);
  }
});

test.concurrent(
  "the compiled binary serves the same pages from any folder",
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "ws-ticket-"));
    try {
      const binary = join(folder, "ws-ticket");
      const build = Bun.spawn(
        [process.execPath, "build", "--compile", join(SOURCE, "main.ts"), "--outfile", binary],
        { stdout: "ignore", stderr: "pipe" },
      );
      expect(await new Response(build.stderr).text()).not.toContain("error");
      expect(await build.exited).toBe(0);
      const server = Bun.spawn([binary], { cwd: folder, env: { PORT: "0" }, stdout: "pipe" });
      try {
        const url = await listeningUrl(server.stdout);
        await using site = startSite();
        for (const path of [
          "/chat/alice",
          "/inbox",
          "/client.js",
          await assetOf(site, "js", "/inbox"),
          await assetOf(site, "css"),
        ]) {
          const compiled = await fetch(new URL(path, url));
          expect(compiled.status).toBe(200);
          expect(await compiled.text()).toBe((await site.ask(path)).text);
        }
        expect(await (await fetch(url)).text()).toContain("Be both sides of a chat");
      } finally {
        server.kill();
        await server.exited;
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  },
  30_000,
);

/** The address in the log line of a server that listens. */
async function listeningUrl(stdout: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stdout as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    const line = text.split("\n").find((one) => one.includes('"listening"') && one.endsWith("}"));
    if (line) return (JSON.parse(line) as { url: string }).url;
  }
  throw new Error(`Server ended: ${text}`);
}
