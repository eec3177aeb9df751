import { describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as close from "../../src/wire/close.ts";
import * as frames from "../../src/wire/frames.ts";
import * as paths from "../../src/wire/paths.ts";
import { describeWith } from "../support/require.ts";
import { startSite } from "../support/site.ts";

const SOURCE = join(import.meta.dir, "../../src");
/** Largest client with everything that it exports, gzipped, in bytes. */
const MAX_CLIENT_BYTES = 7 * 1024;

describe("every page", () => {
  for (const path of ["/", "/chat/alice", "/inbox"]) {
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
      expect(headers.get("cache-control")).toBe("no-store");
    });
  }

  test("allows GET and HEAD only", async () => {
    await using site = startSite();
    for (const path of ["/", "/chat/alice", "/inbox", "/client.js", "/assets/style.css"]) {
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

  test("repeats no Host that could be a command in a shell", async () => {
    await using site = startSite();
    for (const host of ["a$(id)b", "a;id", "a'b", "a`id`b"]) {
      const { text } = await site.ask("/", { headers: { Host: host } });
      expect(text).not.toContain(host.slice(1));
    }
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
    expect(links.length).toBeGreaterThanOrEqual(3);
    for (const link of links) expect((await site.ask(link as string)).status).toBe(200);
  }
});

describeWith("curl")("the commands on the first page", () => {
  /** What a shell prints when the commands under this label are pasted into it, and the last of them once more. */
  async function paste(
    site: ReturnType<typeof startSite>,
    label: string,
    token = "",
  ): Promise<string> {
    const { text } = await site.ask("/");
    const block = new RegExp(`aria-label="${label}"><code>(.*?)</code>`, "s").exec(text)?.[1] ?? "";
    const commands = block
      .replaceAll("&quot;", '"')
      .replaceAll("&#39;", "'")
      .replaceAll("&lt;", "<")
      .replaceAll("&gt;", ">")
      .replaceAll("&amp;", "&");
    const last = commands.slice(commands.lastIndexOf("\ncurl"));
    const shell = Bun.spawn(["bash"], {
      stdin: new Blob([`${commands}\n${last}\n`]),
      stderr: "ignore",
      env: { PATH: process.env.PATH, TOKEN: token },
    });
    return new Response(shell.stdout).text();
  }

  for (const demo of [true, false]) {
    test.concurrent(
      `let a user in once${demo ? " in the demo" : " with a token in TOKEN"}`,
      async () => {
        await using site = startSite({ demo });
        const output = await paste(site, "Shell, as a user", demo ? "" : await site.token("alice"));
        expect(output.match(/^HTTP\/1.1 \d+/gm)).toEqual(["HTTP/1.1 101", "HTTP/1.1 401"]);
        expect(output).toContain("ticket_refused");
      },
    );
  }

  test.concurrent("let a visitor in as often as the cookie is sent", async () => {
    await using site = startSite();
    const output = await paste(site, "Shell, as a visitor");
    expect(output.match(/^HTTP\/1.1 \d+/gm)).toEqual(["HTTP/1.1 101", "HTTP/1.1 101"]);
  });
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
          "/assets/inbox.js",
          "/assets/style.css",
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
