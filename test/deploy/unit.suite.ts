import { afterAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { peopleOf, SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";
import { copyTo, runLines } from "./folder.ts";
import { temporaryFolder } from "../support/folder.ts";
import { blockWith } from "./readme.ts";
import { bootMachine } from "./systemd.ts";

const decoder = new TextDecoder();
const folder = await temporaryFolder();
const path = (name: string) => join(folder.path, name);
const UNIT = "etc/systemd/system/ws-ticket.service";
const SETTINGS = [
  ...["NODE_ENV=production", "PUBLIC_URL=https://chat.example.com", "TRUST_PROXY=1"],
  ...[
    `JWT_SECRET=${decoder.decode(TOKEN_SECRET)}`,
    `SESSION_SECRET=${decoder.decode(SESSION_SECRET)}`,
  ],
];

/** A machine on which everything is where the README says. */
async function setUp() {
  const here = (name: string) => path(`files/${name}`);
  await mkdir(here("opt/ws-ticket"), { recursive: true });
  await copyTo(here("opt/ws-ticket"), ["package.json", "bun.lock", "tsconfig.json", "src"]);
  runLines("bun install --frozen-lockfile --production", here("opt/ws-ticket"));
  await Bun.write(here(UNIT), blockWith(`/${UNIT}`));
  await Bun.write(here("etc/ws-ticket.env"), `${SETTINGS.join("\n")}\n`);
  await chmod(here("etc/ws-ticket.env"), 0o600);
  await mkdir(here("usr/local/bin"), { recursive: true });
  if (process.execPath !== "/usr/local/bin/bun")
    await symlink(process.execPath, here("usr/local/bin/bun"));
  await mkdir(path("machine"));
  return bootMachine(path("machine"), path("files"));
}

const isRoot = process.getuid?.() === 0;
const machine = isRoot && Bun.which("systemd-analyze") ? await setUp() : undefined;
if (!machine)
  console.warn("Skipped: a systemd of one's own takes root, namespaces and control groups");
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

/** What a command prints on that machine. */
async function on(...command: string[]): Promise<string> {
  return (await machine?.run(...command))?.stdout ?? "";
}

/** The status of a response over there. */
function statusOf(route: string, ...options: string[]): Promise<string> {
  const url = `http://127.0.0.1:3000${route}`;
  return on("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", ...options, url);
}

async function isReady(): Promise<void> {
  while ((await statusOf("/readyz")) !== "200") await Bun.sleep(50);
}

async function show(...properties: string[]): Promise<Record<string, string>> {
  const text = await on("systemctl", "show", "ws-ticket", "-p", properties.join(","));
  return Object.fromEntries(text.split("\n").map((line) => line.split("=") as [string, string]));
}

describe.skipIf(!machine)("the README's unit, under systemd itself,", () => {
  test("serves as nobody in particular, with no rights, and keeps its file to itself", async () => {
    await on("systemctl", "start", "ws-ticket");
    await isReady();
    const token = await peopleOf("http://127.0.0.1").token();
    const headers = ["-H", `Authorization: Bearer ${token}`, "-H", "Host: chat.example.com"];
    expect(await statusOf("/api/auth/ws-ticket", "-X", "POST", ...headers)).toBe("200");
    expect(await statusOf("/client.js")).toBe("200");
    const { MainPID = "" } = await show("MainPID");
    const status = await on("cat", `/proc/${MainPID}/status`);
    const value = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1];
    expect(value("Uid")).not.toBe("0");
    expect(["CapEff", "NoNewPrivs", "Seccomp"].map(value)).toEqual(["0000000000000000", "1", "2"]);
    const file = "/var/lib/private/ws-ticket/ws-ticket.sqlite";
    expect(await on("stat", "-c", "%U %a", file)).toBe("ws-ticket 600");
  }, 30_000);

  test("is started again when it was killed, and not when it was stopped", async () => {
    const before = await show("MainPID");
    await on("systemctl", "kill", "--signal=KILL", "ws-ticket");
    while (["0", before.MainPID].includes((await show("MainPID")).MainPID)) await Bun.sleep(50);
    await isReady();
    expect(await show("NRestarts")).toEqual({ NRestarts: "1" });
    await on("systemctl", "stop", "ws-ticket");
    expect(await show("Result", "SubState")).toEqual({ Result: "success", SubState: "dead" });
  }, 30_000);

  test("isn't started again with settings that can't be used", async () => {
    await on("sed", "-i", "/^JWT_SECRET/d", "/etc/ws-ticket.env");
    await on("systemctl", "start", "ws-ticket");
    while ((await show("SubState")).SubState !== "failed") await Bun.sleep(50);
    // Longer than systemd would wait before it starts it again.
    await Bun.sleep(500);
    expect(await show("ExecMainStatus", "NRestarts", "SubState")).toEqual({
      ...{ ExecMainStatus: "78", NRestarts: "0", SubState: "failed" },
    });
  }, 30_000);
});
