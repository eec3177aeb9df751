import manifest from "../../package.json" with { type: "json" };
import { systemClock } from "../lib/clock.ts";
import { faultCode } from "../lib/log.ts";
import { isExactOrigin } from "../request/origin.ts";
import { BASE_PATH, SOCKET_PATH, TICKET_PATH, VISITOR_PATH } from "../wire/paths.ts";
import { type Command, EXIT_USAGE, readArguments, type Terminal, UsageError } from "./command.ts";
import { examine, type Progress } from "./doctor/examine.ts";
import { type CheckResult, CHECKS, type Finding } from "./doctor/finding.ts";
import { MAX_REQUESTS, Target, type TargetOptions } from "./doctor/target.ts";

/** Exit code for a deployment with something open. */
const EXIT_FINDINGS = 1;

const OPTIONS = {
  "token-file": { type: "string" },
  "ticket-path": { type: "string", default: BASE_PATH + TICKET_PATH },
  "socket-path": { type: "string", default: SOCKET_PATH },
  "session-path": { type: "string", default: BASE_PATH + VISITOR_PATH },
  "ticket-pointer": { type: "string", default: "/ticket" },
  parameter: { type: "string", default: "ticket" },
  origin: { type: "string" },
  instances: { type: "string", default: "1" },
  slow: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
} as const;

/** `ws-ticket doctor URL`: judges any deployment of tickets from outside. */
export const command: Command = {
  usage: `ws-ticket doctor URL [--token-file FILE] [options]

Does to a deployment what a browser and what an attacker would do, and prints what is open: what was sent, what
came back, why it matters, and how to mend it. Sends ${MAX_REQUESTS} requests at most, within some two minutes. Ask whoever
runs it first, and use a token that you can do without: it is sent in URLs, to see whether they are refused.

  --token-file FILE         A JWT that the server accepts; without it most checks are skipped
  --origin ORIGIN           The origin whose pages may connect (the URL's own)
  --ticket-path PATH        Where tickets are issued (${BASE_PATH}${TICKET_PATH})
  --ticket-pointer POINTER  Where the ticket is in the response, as a JSON pointer (/ticket)
  --socket-path PATH        Where sockets are opened (${SOCKET_PATH})
  --parameter NAME          The parameter that has the ticket there (ticket)
  --session-path PATH       Where a visitor's cookie is set (${BASE_PATH}${VISITOR_PATH})
  --instances COUNT         How many instances are behind the URL, each with limits of its own (1)
  --slow                    Also waits until a ticket should have ended
  --json                    Prints one JSON object

Exits with 0 where nothing is open, with 1 where something is, with 2 where it can't be said.
Checks: ${Object.keys(CHECKS).join(", ")}.`,
  async run(args, terminal) {
    const { values, words } = readArguments(args, { options: OPTIONS, words: ["URL"] });
    const url = readUrl(words[0] as string);
    const { isWatched, report } = terminal;
    const options: TargetOptions = {
      url,
      token: values["token-file"] === undefined ? undefined : await readToken(values["token-file"]),
      ticketPath: readPath(values["ticket-path"], "--ticket-path"),
      socketPath: readPath(values["socket-path"], "--socket-path"),
      sessionPath: readPath(values["session-path"], "--session-path"),
      pointer: readPointer(values["ticket-pointer"]),
      parameter: values.parameter,
      origin: readOrigin(values.origin ?? url.origin),
      instances: readCount(values.instances),
      clock: systemClock,
      onWait: (reason) => report(isWatched ? `\r\u001b[K${reason}` : `${reason}\n`),
    };
    report(
      `Sends at most ${MAX_REQUESTS} requests to ${url.host}, and opens sockets as the token's user.\n`,
    );
    return judge(new Target(options), { slow: values.slow, json: values.json }, terminal);
  },
};

async function judge(
  target: Target,
  { slow, json }: { slow: boolean; json: boolean },
  { print, report, isWatched }: Terminal,
): Promise<number> {
  const startedAtMs = performance.now();
  let results: CheckResult[];
  try {
    const onProgress = (progress: Progress) => report(lineOf(progress, isWatched));
    results = await examine(target, { slow, onProgress });
  } catch (error) {
    const { host } = target.options.url;
    report(`${isWatched ? "\r\u001b[K" : ""}ws-ticket: can't reach ${host}: ${faultCode(error)}\n`);
    return EXIT_USAGE;
  }
  if (isWatched) report("\r\u001b[K");
  const findings = results.flatMap((one) => (one.outcome === "finding" ? one.findings : []));
  if (json) {
    const durationMs = Math.round(performance.now() - startedAtMs);
    const { requests } = target;
    const checks = results.map(({ id, outcome, ...rest }) => ({
      id,
      title: CHECKS[id],
      outcome,
      ...("reason" in rest && { reason: rest.reason }),
    }));
    const { href } = target.options.url;
    const body = { url: href, version: manifest.version, requests, durationMs, checks, findings };
    print(JSON.stringify(body, undefined, 2));
  } else {
    for (const result of results) print(resultLine(result));
    for (const finding of findings) print(paragraph(finding));
    const skipped = results.filter(({ outcome }) => outcome === "skipped").length;
    print(`\n${findings.length} findings, ${skipped} checks skipped, ${target.requests} requests`);
  }
  return findings.length > 0 ? EXIT_FINDINGS : 0;
}

function lineOf({ id, done, of, requests }: Progress, isWatched: boolean): string {
  const line = `${done + 1}/${of} ${id}: ${CHECKS[id]} (${requests} requests)`;
  return isWatched ? `\r\u001b[K${line}` : `${line}\n`;
}

function resultLine(result: CheckResult): string {
  const { id } = result;
  const mark = { good: "ok  ", finding: "OPEN", skipped: "-   " }[result.outcome];
  const reason = result.outcome === "skipped" ? ` (skipped: ${result.reason})` : "";
  return `${mark}  ${id.padEnd(12)} ${CHECKS[id]}${reason}`;
}

function paragraph({ id, title, sent, received, why, references, mend }: Finding): string {
  const indent = (text: string) => text.replaceAll("\n", `\n${" ".repeat(12)}`);
  return [
    `\n${id}: ${title}`,
    `  sent      ${indent(sent)}`,
    `  received  ${indent(received)}`,
    `  why       ${why} (${references.join(", ")})`,
    `  mend      ${mend}`,
  ].join("\n");
}

function readUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new UsageError("URL must be like https://chat.example.com");
  }
  if (url.username || url.password || url.search || url.hash) {
    throw new UsageError("URL must have neither credentials nor a query");
  }
  return url;
}

function readOrigin(text: string): string {
  if (isExactOrigin(text)) return text;
  throw new UsageError("--origin must be like https://chat.example.com");
}

function readCount(text: string): number {
  if (/^[1-9]\d{0,2}$/.test(text)) return Number(text);
  throw new UsageError("--instances must be a number from 1 to 999");
}

function readPath(text: string, option: string): string {
  if (/^\/[!-~]*$/.test(text) && !/[?#]/.test(text)) return text;
  throw new UsageError(`${option} must be a path such as /live`);
}

function readPointer(text: string): string {
  if (text === "" || text.startsWith("/")) return text;
  throw new UsageError("--ticket-pointer must be a JSON pointer such as /data/ticket");
}

async function readToken(path: string): Promise<string> {
  const text = await Bun.file(path)
    .text()
    .catch(() => {
      throw new UsageError(`Can't read the file ${path}`);
    });
  const token = text.trim().replace(/^(?:authorization: *)?bearer +/i, "");
  if (!/^[\w.~+/-]+=*$/.test(token)) throw new UsageError(`There is no token in ${path}`);
  return token;
}
