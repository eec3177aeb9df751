import { describe, expect, test } from "bun:test";
import { signToken } from "../../src/gate/token.ts";
import { runCommand } from "../support/command.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";
import { SETTINGS, startProcess } from "../support/process.ts";
import { freePort } from "../support/redis.ts";

const SECRETS = {
  JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
  SESSION_SECRET: new TextDecoder().decode(SESSION_SECRET),
};
const GOOD = { ...SECRETS, JWT_ISSUER: "https://id.example", JWT_AUDIENCE: "chat" };

/** The lines of a check, as words: level, subject and the rest. */
function linesOf(stdout: string): string[][] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => /^(\w+) +(\S+) +(.*)$/.exec(line)?.slice(1) ?? [line]);
}

describe("ws-ticket check", () => {
  test("exits with 0 for good settings, says what it found, and leaves no file", async () => {
    const { code, stdout, stderr, files } = await runCommand(["check"], { environment: GOOD });
    expect([code, stderr, files]).toEqual([0, "", []]);
    const lines = linesOf(stdout);
    expect(lines.map(([level]) => level)).toEqual(["ok", "ok"]);
    expect(lines[0]).toEqual(["ok", "CHAT_DATABASE", "will be created"]);
  });

  test("exits with 0 where there are only warnings, each in one line", async () => {
    const environment = { ...SECRETS, PUBLIC_URI: "https://chat.example" };
    const { code, stdout } = await runCommand(["check"], { environment });
    expect(code).toBe(0);
    const warned = linesOf(stdout).filter(([level]) => level === "warn");
    expect(warned.map(([, subject]) => subject)).toEqual([
      ...["PUBLIC_URI", "JWT_ISSUER", "JWT_AUDIENCE"],
    ]);
  });

  test("reads .env as the server does, and exits with 78 for what can't be used, without a value", async () => {
    const { code, stdout, files } = await runCommand(["check"], {
      environment: { JWT_SECRET: SECRETS.JWT_SECRET },
      files: { ".env": "SESION_SECRET=canary-secret\nPORT=canary-port\n" },
    });
    expect([code, files]).toEqual([78, []]);
    expect(linesOf(stdout).map(([level, subject]) => [level, subject])).toEqual([
      ["fault", "SESSION_SECRET"],
      ["fault", "PORT"],
      ["warn", "SESION_SECRET"],
    ]);
    expect(stdout).not.toContain("canary");
  });

  test("exits with 78 where something can't be reached", async () => {
    const environment = {
      ...{ ...GOOD, JWT_SECRET: "", REDIS_URL: `redis://u:canary@127.0.0.1:${freePort()}` },
      JWT_JWKS_URL: `http://127.0.0.1:${freePort()}/canary`,
    };
    const { code, stdout } = await runCommand(["check"], { environment });
    expect(code).toBe(78);
    expect(linesOf(stdout).map(([level, subject]) => [level, subject])).toEqual([
      ["fault", "REDIS_URL"],
      ["fault", "JWT_JWKS_URL"],
    ]);
    expect(stdout).not.toContain("canary");
  });

  test("says that it is the demo where nothing is set", async () => {
    const { code, stdout, files } = await runCommand(["check"]);
    expect([code, files]).toEqual([0, []]);
    expect(linesOf(stdout)).toEqual([["ok", "settings", expect.stringContaining("the demo")]]);
  });

  describe("--token", () => {
    const claims = { iss: GOOD.JWT_ISSUER, aud: "chat", iat: 0, jti: "j" };
    const token = (extra = {}) =>
      signToken({
        ...{ secret: TOKEN_SECRET, user: "alice", expiresAtMs: Date.now() + 60_000 },
        claims: { ...claims, ...extra },
      });

    test.each(["", "Bearer ", "Authorization: Bearer "])(
      "with %p in front of a good one exits with 0, and never shows it",
      async (before) => {
        const good = await token();
        const { code, stdout, stderr } = await runCommand(["check", "--token", "jwt"], {
          environment: GOOD,
          files: { jwt: `${before}${good}\n` },
        });
        expect([code, stderr]).toEqual([0, ""]);
        expect(linesOf(stdout).at(-1)?.[1]).toBe("verdict");
        for (const part of good.split(".")) expect(stdout).not.toContain(part);
      },
    );

    test("of another audience exits with 78, and says which claim", async () => {
      const { code, stdout } = await runCommand(["check", "--token", "jwt"], {
        environment: GOOD,
        files: { jwt: await token({ aud: "other" }) },
      });
      expect(code).toBe(78);
      const faults = linesOf(stdout).filter(([level]) => level === "fault");
      expect(faults.map(([, subject]) => subject)).toEqual(["aud", "verdict"]);
    });

    test("of a file that isn't there exits with 2", async () => {
      const { code, stderr } = await runCommand(["check", "--token", "nowhere"]);
      expect(code).toBe(2);
      expect(stderr).toContain("Can't read the file nowhere");
    });
  });
});

describe("a server that starts", () => {
  test("logs what check would warn of, once it listens, and no value of a setting", async () => {
    await using server = startProcess({
      ...SETTINGS,
      // Its own URL isn't tried: it may not lead here yet.
      ...{ PUBLIC_URL: `http://localhost:${freePort()}`, ALLOWED_ORIGIN: "canary" },
      REDIS_URL: `redis://:canary@127.0.0.1:${freePort()}`,
    });
    await server.listening;
    for (;;) {
      const warned = server.events.filter(({ event }) => event === "setting_warning");
      const variables = warned.map(({ variable }) => variable);
      if (!variables.includes("REDIS_URL")) {
        await Bun.sleep(5);
        continue;
      }
      expect(variables).toEqual([
        ...["ALLOWED_ORIGIN", "JWT_ISSUER", "JWT_AUDIENCE", "CHAT_DATABASE", "REDIS_URL"],
      ]);
      expect(new Set(warned.map(({ level }) => level))).toEqual(new Set(["warn"]));
      break;
    }
    expect(server.stdout).not.toContain("canary");
  });

  test("logs the name that was meant beside the setting that is missing", async () => {
    await using server = startProcess({
      JWT_SECRET: SECRETS.JWT_SECRET,
      SESION_SECRET: "canary",
    });
    expect(await server.exited).toBe(78);
    expect(server.events).toMatchObject([
      { event: "config_fault", variable: "SESSION_SECRET" },
      { event: "setting_warning", variable: "SESION_SECRET", note: "not read: SESSION_SECRET is" },
    ]);
    expect(server.stdout).not.toContain("canary");
  });
});
