import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { createGate } from "../../src/gate/gate.ts";
import { callCommand, runCommand } from "../support/command.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";
import { startInstance, startProcess } from "../support/process.ts";

const ROOT = join(import.meta.dir, "../..");
const SECRETS = {
  JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
  SESSION_SECRET: new TextDecoder().decode(SESSION_SECRET),
};
const COMMANDS = ["start", "check", "token", "doctor", "healthcheck"];

describe("ws-ticket", () => {
  test("is the package's command, and has a shebang", async () => {
    expect(manifest.bin).toEqual({ "ws-ticket": "src/cli.ts" });
    const source = await Bun.file(join(ROOT, manifest.bin["ws-ticket"])).text();
    expect(source).toStartWith("#!/usr/bin/env bun\n");
  });

  test("--help lists every command, and starts nothing", async () => {
    const { code, stdout, stderr, files } = await runCommand(["--help"], { environment: SECRETS });
    expect([code, stderr, files]).toEqual([0, "", []]);
    for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${name} `, "m"));
    expect(await callCommand(["-h"])).toEqual({ code, stdout, stderr });
  });

  test.each(COMMANDS)("%s --help explains the command, and starts nothing", async (name) => {
    const { code, stdout, stderr } = await callCommand([name, "--help"], SECRETS);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toStartWith(`Usage: ws-ticket ${name}`);
  });

  test("--version is the package's", async () => {
    const { code, stdout } = await callCommand(["--version"]);
    expect([code, stdout]).toEqual([0, `${manifest.version}\n`]);
  });

  test("called wrongly exits with 2, and leaves no file", async () => {
    const { code, stdout, files } = await runCommand(["start", "now"], { environment: SECRETS });
    expect([code, stdout, files]).toEqual([2, "", []]);
  });

  test.each([
    ["no command", [], "A command is missing"],
    ["an unknown command", ["serve"], "Unknown command: serve"],
    ["a name that every object has", ["constructor"], "Unknown command: constructor"],
    ["an unknown option", ["start", "--port=3000"], "Unknown option '--port'"],
    ["a word too many", ["start", "now"], "Unknown argument: now"],
    ["a word too few", ["token"], "USER is missing"],
    ["a user that can't be one", ["token", "a\nb"], "USER must be"],
    ["an unknown flag", ["healthcheck", "-x"], "Unknown option '-x'"],
  ])("with %s exits with 2, and says how it is used", async (_, args, complaint) => {
    const { code, stdout, stderr } = await callCommand(args, SECRETS);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toStartWith(`ws-ticket: ${complaint}`);
    expect(stderr).toContain("Usage: ws-ticket ");
  });
});

describe("bun start", () => {
  test.each([
    [["--help"], 0, "stdout"],
    [["-h"], 0, "stdout"],
    [["--port", "3000"], 2, "stderr"],
  ] as const)("with %p starts nothing, and exits with %i", async (args, code, stream) => {
    const child = Bun.spawn([process.execPath, join(ROOT, "src/main.ts"), ...args], {
      cwd: import.meta.dir,
      env: {},
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(await child.exited).toBe(code);
    expect(await new Response(child[stream]).text()).toContain("bun src/cli.ts --help");
  });
});

describe("ws-ticket start", () => {
  test("serves until a signal ends it", async () => {
    await using server = startProcess(SECRETS, { command: ["cli.ts", "start"] });
    const url = await server.listening;
    expect((await fetch(new URL("/readyz", url))).status).toBe(200);
    server.kill("SIGTERM");
    expect([await server.exited, server.stderr]).toEqual([0, ""]);
    expect(server.events.at(-1)).toMatchObject({ event: "stopped" });
  });

  test("exits with 78 for settings that can't be used, .env included", async () => {
    const { code, stdout, files } = await runCommand(["start"], {
      environment: { JWT_SECRET: SECRETS.JWT_SECRET },
      files: { ".env": "SESSION_SECRET=canary-short\n" },
    });
    expect([code, files]).toEqual([78, []]);
    expect(JSON.parse(stdout)).toMatchObject({
      event: "config_fault",
      variable: "SESSION_SECRET",
      note: expect.stringContaining("32 bytes"),
    });
    expect(stdout).not.toContain("canary");
  });
});

describe("ws-ticket token", () => {
  /** The gate of the same settings. */
  function gateOf(options: { issuer?: string; audience?: string; userClaim?: string }) {
    return createGate({ users: { secret: SECRETS.JWT_SECRET, ...options }, log: () => {} });
  }

  async function mint(gate: ReturnType<typeof gateOf>, token: string): Promise<number> {
    const response = await gate.fetch(
      new Request("http://127.0.0.1/api/auth/ws-ticket", {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
      }),
    );
    return response.status;
  }

  test.each<[Record<string, string>, Parameters<typeof gateOf>[0]]>([
    [{}, {}],
    [
      { JWT_ISSUER: "https://id.example", JWT_AUDIENCE: "chat", USER_CLAIM: "email" },
      { issuer: "https://id.example", audience: "chat", userClaim: "email" },
    ],
  ])(
    "prints a token that a server with %p accepts, and nothing else",
    async (settings, options) => {
      const environment = { ...SECRETS, ...settings };
      const { code, stdout, stderr } = await callCommand(["token", "a@b.example"], environment);
      expect([code, stderr]).toEqual([0, ""]);
      const token = stdout.trimEnd();
      expect(token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
      await using gate = gateOf(options);
      expect(await mint(gate, token)).toBe(200);
      await using stranger = gateOf({ issuer: "https://else.example" });
      expect(await mint(stranger, token)).toBe(401);
    },
  );

  test.each<[string, Record<string, string>, string]>([
    ["nothing set", {}, "JWT_SECRET"],
    [
      "a key set in place of a secret",
      { JWT_JWKS_URL: "https://id.example/jwks", SESSION_SECRET: SECRETS.SESSION_SECRET },
      "JWT_SECRET",
    ],
    ["other settings that can't be used", { ...SECRETS, PORT: "canary" }, "PORT must be"],
  ])("with %s exits with 78, and signs nothing", async (_, environment, complaint) => {
    const { code, stdout, stderr } = await callCommand(["token", "alice"], environment);
    expect([code, stdout]).toEqual([78, ""]);
    expect(stderr).toContain(complaint);
    expect(stderr).not.toContain("canary");
  });
});

describe("ws-ticket healthcheck", () => {
  test("exits with 0 while the server is ready, with 1 once it is gone", async () => {
    await using server = await startInstance();
    const { port } = new URL(server.origin);
    const environment = { PORT: port, HOST: "0.0.0.0" };
    expect(await runCommand(["healthcheck"], { environment })).toMatchObject({
      ...{ code: 0, stdout: "", stderr: "" },
    });
    server.kill("SIGKILL");
    await server.exited;
    const gone = await callCommand(["healthcheck"], environment);
    expect([gone.code, gone.stderr]).toEqual([1, `ws-ticket: no response from port ${port}\n`]);
  });

  test("exits with 1 while the server isn't ready", async () => {
    using server = Bun.serve({ port: 0, hostname: "::1", fetch: answer });
    function answer(request: Request): Response {
      return new Response(null, {
        status: new URL(request.url).pathname === "/readyz" ? 503 : 200,
      });
    }
    const environment = { PORT: String(server.port), HOST: "::" };
    const { code, stderr } = await callCommand(["healthcheck"], environment);
    expect([code, stderr]).toEqual([1, "ws-ticket: not ready: 503\n"]);
  });

  test.each(["0", "canary"])("exits with 78 where PORT is %s", async (PORT) => {
    const { code, stderr } = await callCommand(["healthcheck"], { PORT });
    expect(code).toBe(78);
    expect(stderr).toStartWith("ws-ticket: PORT must be");
  });
});
