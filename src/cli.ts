#!/usr/bin/env bun
import manifest from "../package.json" with { type: "json" };
import { type Command, EXIT_USAGE, type Terminal, UsageError } from "./cli/command.ts";

const USAGE = `Usage: ws-ticket <command>

  start         Starts the server
  check         Checks the settings, and reaches everything that they name
  token USER    Signs a JWT for USER with JWT_SECRET, to try things out
  doctor URL    Attacks a deployment of tickets, and says what is open
  healthcheck   Whether the server on this machine is ready

  --help        After a command: its options
  --version

Settings are environment variables, and a .env file in the working directory.`;

/** Loaded when they are called: the server doesn't wait for the doctor. */
const COMMANDS: Readonly<Record<string, () => Promise<{ command: Command }>>> = {
  start: () => import("./cli/start.ts"),
  check: () => import("./cli/check.ts"),
  token: () => import("./cli/token.ts"),
  doctor: () => import("./cli/doctor.ts"),
  healthcheck: () => import("./cli/healthcheck.ts"),
};

/** Runs what the arguments say, and returns the exit code; `undefined` for what goes on. */
export async function run(
  [name, ...args]: readonly string[],
  terminal: Terminal,
): Promise<number | undefined> {
  if (name === "--help" || name === "-h") {
    terminal.print(USAGE);
    return 0;
  }
  if (name === "--version" || name === "-v") {
    terminal.print(manifest.version);
    return 0;
  }
  const load = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!load) {
    const complaint = name === undefined ? "A command is missing" : `Unknown command: ${name}`;
    terminal.report(`ws-ticket: ${complaint}\n\n${USAGE}\n`);
    return EXIT_USAGE;
  }
  const { command } = await load();
  if (args.includes("--help") || args.includes("-h")) {
    terminal.print(`Usage: ${command.usage}`);
    return 0;
  }
  try {
    return await command.run(args, terminal);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const [line] = command.usage.split("\n");
    terminal.report(`ws-ticket: ${error.message}\nUsage: ${line}\n`);
    return EXIT_USAGE;
  }
}

if (import.meta.main) {
  const code = await run(process.argv.slice(2), {
    environment: process.env,
    print: (line) => void process.stdout.write(`${line}\n`),
    report: (text) => void process.stderr.write(text),
    isWatched: process.stderr.isTTY === true,
  });
  if (code !== undefined) process.exitCode = code;
}
