import { describe, expect, test } from "bun:test";
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { peopleOf, TOKEN_SECRET } from "../support/people.ts";
import { startProcess } from "../support/process.ts";
import { describeWith } from "../support/require.ts";
import { keptIn } from "../support/writing.ts";
import { copyTo, runLines } from "./folder.ts";
import { temporaryFolder } from "../support/folder.ts";
import { blockWith, fitted } from "./readme.ts";

const unit = blockWith("/etc/systemd/system/ws-ticket.service");

/** The value of a directive in the unit. */
function directive(name: string): string {
  return new RegExp(`^${name}=(.*)$`, "m").exec(unit)?.[1] ?? "";
}

describeWith("systemd-analyze")("the README's unit", () => {
  test("is clean by systemd-analyze verify, and exposes little", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "ws-ticket.service");
    await Bun.write(file, fitted(unit, { "/usr/local/bin/bun": process.execPath }));
    const analyze = (...args: string[]) => {
      const { exitCode, stdout, stderr } = Bun.spawnSync(["systemd-analyze", ...args, file]);
      return { exitCode, output: `${stdout}${stderr}` };
    };
    // An unknown directive is a line, and no failure.
    expect(analyze("verify", "--recursive-errors=no")).toEqual({ exitCode: 0, output: "" });
    // Tenths of the exposure level: 2.0 is what systemd itself calls OK.
    expect(analyze("security", "--offline=true", "--threshold=20")).toMatchObject({ exitCode: 0 });
  });
});

describeWith("openssl", "sqlite3")("the README's lines for a new machine", () => {
  test("make settings that only root can read, a server that starts with them, and a backup", async () => {
    await using folder = await temporaryFolder();
    const path = (name: string) => join(folder.path, name);
    await mkdir(path("opt"));
    await copyTo(path("opt"), ["package.json", "bun.lock", "bunfig.toml", "tsconfig.json", "src"]);
    await Bun.write(path("opt/issuer.secret"), TOKEN_SECRET);
    await mkdir(path("state"));

    const [setUp = "", backUp = ""] = blockWith("SESSION_SECRET=").split(
      /^systemctl .*\n.*doctor .*\n/m,
    );
    const settings = path("ws-ticket.env");
    const lines = fitted(setUp, { "/opt/ws-ticket": path("opt"), "/etc/ws-ticket.env": settings });
    runLines(lines, folder.path);
    expect((await stat(settings)).mode & 0o777).toBe(0o600);
    const pairs = (await Bun.file(settings).text()).trim().split("\n");
    const environment = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s)));
    expect(environment).toMatchObject({ NODE_ENV: "production", TRUST_PROXY: "1" });

    const program = fitted(directive("ExecStart"), {
      "/usr/local/bin/bun": process.execPath,
      "/opt/ws-ticket": path("opt"),
    });
    expect(directive("WorkingDirectory")).toBe(`/var/lib/${directive("StateDirectory")}`);
    expect(fitted(directive("EnvironmentFile"), { "/etc/ws-ticket.env": settings })).toBe(settings);
    await using server = startProcess(
      { ...environment, CHAT_DATABASE: "" },
      { program: program.split(" "), cwd: path("state") },
    );
    const people = peopleOf((await server.listening).origin);
    const headers = { Host: "chat.example.com", Authorization: `Bearer ${await people.token()}` };
    const issued = await people.ask("/api/auth/ws-ticket", { method: "POST", headers });
    expect(issued.status).toBe(200);
    const warned = server.events.filter(({ event }) => event === "setting_warning");
    expect(warned.map(({ variable }) => variable)).not.toContainAnyValues([
      "PUBLIC_URL",
      "TRUST_PROXY",
      "CHAT_DATABASE",
    ]);

    await mkdir(path("backups"));
    runLines(
      `umask 077\n${fitted(backUp, { "/var/lib/ws-ticket": path("state"), "/var/backups": path("backups") })}`,
      folder.path,
    );
    const [backup = ""] = await Array.fromAsync(
      new Bun.Glob("chat-*.sqlite").scan(path("backups")),
    );
    expect(keptIn(join(path("backups"), backup))).toEqual(new Set());
    expect((await stat(join(path("backups"), backup))).mode & 0o777).toBe(0o600);
  }, 60_000);
});

describe("the README's Dockerfile", () => {
  interface Instruction {
    readonly name: string;
    readonly rest: string;
  }
  const instructions: readonly Instruction[] = blockWith("FROM ")
    .trim()
    .split("\n")
    .map((line) => {
      const [name = "", rest = ""] = line.split(/ (.*)/s);
      return { name, rest };
    });
  const only = (name: string) => instructions.find((one) => one.name === name)?.rest ?? "";
  const command = (text: string): string[] => JSON.parse(/\[.*\]$/.exec(text)?.[0] ?? "");

  test("names the Bun that the tests run on, and no instruction that isn't tried here", () => {
    expect(only("FROM")).toBe(`oven/bun:${Bun.version}-slim`);
    const tried = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "HEALTHCHECK", "CMD"];
    expect(instructions.filter(({ name }) => !tried.includes(name))).toEqual([]);
  });

  test("builds, serves, and checks its health, with a folder in place of an image", async () => {
    await using image = await temporaryFolder();
    const at = (path: string) => join(image.path, path);
    const directory = at(only("WORKDIR"));
    await mkdir(directory);
    for (const { name, rest } of instructions) {
      const words = rest.split(" ");
      if (name === "COPY") await copyTo(directory, words.slice(0, -1));
      if (name === "RUN") {
        const lines = rest
          .replace(" -o bun", "")
          .replaceAll(/ (\/\w+)/g, (_, path) => ` ${at(path)}`);
        runLines(lines, directory);
      }
    }
    const set = Object.fromEntries(
      only("ENV")
        .split(" ")
        .map((pair) => pair.split("=")),
    );
    expect(set.HOST).toBe("0.0.0.0");
    const environment = {
      ...{
        JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
        PUBLIC_URL: "https://chat.example.com",
      },
      ...{
        SESSION_SECRET: crypto.randomUUID().repeat(2),
        NODE_ENV: "production",
        TRUST_PROXY: "1",
      },
      ...{ ...set, CHAT_DATABASE: at(set.CHAT_DATABASE) },
    };
    const inImage = ([, ...args]: string[]) => [process.execPath, ...args];
    const options = { program: inImage(command(only("CMD"))), cwd: directory };
    await using server = startProcess(environment, options);
    const { port } = await server.listening;
    const isHealthy = () =>
      Bun.spawnSync(inImage(command(only("HEALTHCHECK"))), {
        cwd: directory,
        env: { ...environment, PORT: port },
      }).exitCode;
    expect(isHealthy()).toBe(0);
    expect(await Bun.file(environment.CHAT_DATABASE).exists()).toBe(true);
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(isHealthy()).toBe(1);
  }, 60_000);

  test("fits the README's compose file", () => {
    const { services, volumes } = Bun.YAML.parse(blockWith("services:")) as {
      services: Record<string, Record<string, string | string[]>>;
      volumes: Record<string, unknown>;
    };
    const { chat } = services;
    expect(Object.keys(chat ?? {})).toEqual([
      ...["build", "env_file", "ports", "volumes", "restart", "stop_grace_period"],
    ]);
    // A restart doesn't mend settings, and Docker can't tell.
    expect(chat?.restart).toMatch(/^on-failure:\d$/);
    const [volume = "", path = ""] = chat?.volumes?.[0]?.split(":") ?? [];
    expect(Object.keys(volumes)).toEqual([volume]);
    expect(only("ENV")).toContain(`CHAT_DATABASE=${path}/`);
    // The port that the server has by default, on this machine alone.
    expect(chat?.ports).toEqual(["127.0.0.1:3000:3000"]);
  });
});
