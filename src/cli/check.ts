import { inspect } from "../check/inspect.ts";
import { fault, type Report } from "../check/report.ts";
import { nearMisses } from "../check/settings.ts";
import { explainToken } from "../check/token.ts";
import { readConfig } from "../config.ts";
import { systemClock } from "../lib/clock.ts";
import { type Command, EXIT_CONFIG, readArguments, UsageError } from "./command.ts";

/** `ws-ticket check`: what the server would find, before it is started. */
export const command: Command = {
  usage: `ws-ticket check [--token FILE]

Reads the settings as the server does, from the environment and .env, reaches everything that they name, and
prints a line for each thing found: ok, warn or fault. Writes no file; in a Redis it tries every command on keys
of its own, which it deletes. Exits with 0, or with 78 where anything is a fault.

  --token FILE  Instead, says of the JWT in FILE, claim by claim, what the server needs and finds. Prints claims,
                and never the token. Exits with 78 where the server would refuse it.`,
  async run(args, { environment, print }) {
    const { values } = readArguments(args, { options: { token: { type: "string" } }, words: [] });
    const token = values.token === undefined ? undefined : await readToken(values.token);
    const read = readConfig(environment);
    const clock = systemClock;
    const reports = !read.ok
      ? [
          ...read.faults.map(({ variable, note }) => fault(variable, note, "")),
          ...nearMisses(environment),
        ]
      : token === undefined
        ? await inspect(read.config, environment, { clock, isRunning: false })
        : await explainToken(token, { config: read.config, clock });
    for (const report of reports) print(lineOf(report));
    return reports.some(({ level }) => level === "fault") ? EXIT_CONFIG : 0;
  },
};

function lineOf({ level, subject, found, note }: Report): string {
  const text = note ? `${found}. ${note}` : found;
  return `${level.padEnd(5)}  ${subject.padEnd(24)}  ${text}`;
}

/** The token in a file, as it is or as an `Authorization` header has it. */
async function readToken(path: string): Promise<string> {
  try {
    const text = await Bun.file(path).text();
    return text.trim().replace(/^(?:authorization: *)?bearer +/i, "");
  } catch {
    throw new UsageError(`Can't read the file ${path}`);
  }
}
