import { expect, test } from "bun:test";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { peopleOf } from "../support/people.ts";
import { SETTINGS, startInstance } from "../support/process.ts";
import { getAnswer } from "../support/writing.ts";
import { ROOT, runLines } from "./folder.ts";
import { temporaryFolder } from "../support/folder.ts";
import { fitted, section } from "./readme.ts";

test("the compiled binary serves chats from a file and pages from itself, and runs every command", async () => {
  await using folder = await temporaryFolder();
  const binary = join(folder.path, "bin/ws-ticket");
  const [, line = ""] = /`(bun build --compile [^`]+)`/.exec(section) ?? [];
  runLines(fitted(line, { "--outfile ws-ticket": `--outfile ${binary}` }), ROOT);

  const cwd = folder.path;
  const environment = { CHAT_DATABASE: "", METRICS_PORT: "0" };
  const options = { program: [binary, "start"], cwd };
  const cookie = await (async () => {
    await using server = await startInstance(environment, options);
    const cookie = await server.visitorCookie();
    await using visitor = await server.openVisitor(cookie);
    await getAnswer(server, visitor, "alice");
    expect((await server.ask("/")).text).toContain("<html");
    const { text: page } = await server.ask("/chat/alice");
    const assets = [...page.matchAll(/(?:src|href)="(\/[^"]+\.(?:js|css))"/g)];
    expect(assets.length).toBeGreaterThan(1);
    for (const path of ["/client.js", ...assets.map(([, path = ""]) => path)]) {
      const { status, text } = await server.ask(path);
      expect([path, status, text.length > 100]).toEqual([path, 200, true]);
    }
    const { url } = await server.event("metrics_listening");
    expect(await (await fetch(`${url}metrics`)).text()).toContain("ws_ticket");
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    return cookie;
  })();

  await using server = await startInstance(environment, options);
  const page = await server.ask("/api/chats/alice/messages", { cookie });
  expect(page.body.messages.map(({ content }: { content: string }) => content)).toEqual([
    "begin",
    "answer",
  ]);

  const { port, origin } = new URL(server.origin);
  const run = (...args: string[]) => {
    const env = { ...SETTINGS, PORT: port };
    const { exitCode, stdout } = Bun.spawnSync([binary, ...args], { cwd, env });
    return [exitCode, stdout.toString()] as const;
  };
  expect(run("--version")).toEqual([0, `${manifest.version}\n`]);
  expect(run("healthcheck")).toEqual([0, ""]);
  expect(run("check")[0]).toBe(0);
  const [, token] = run("token", "alice");
  expect((await peopleOf(origin).mint(token.trim())).status).toBe(200);
  expect(run("doctor", "http://127.0.0.1:1")[0]).toBe(2);
  expect(run("wrong")[0]).toBe(2);
}, 120_000);
