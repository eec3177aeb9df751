/**
 * `bun run abuse`: an honest crowd beside one abuser at a time, for each way of abuse that was ever proven, on each
 * backend. Prints how long the crowd waits with and without the abuser, how many of its sockets ended, and what the
 * abuser left behind. Abuser, crowd and server share one machine: what that alone does is shown by a control, in which
 * the abuser has as many requests in progress, all for the cheapest answer that there is. Names of backends and attacks as arguments: only those. With `--short`: smaller and shorter,
 * without a word on times. Ends with 1 when more got through than may, or when the crowd lost a socket or a request.
 */
import { ATTACKS, type Tally } from "./attacks.ts";
import type { AbuserJob, AbuserOutcome } from "./abuser.ts";
import { type CrowdJob, type CrowdOutcome, DEEDS } from "./crowd.ts";
import { type Backend, BACKENDS, type Servers, startServers, type Traces } from "./servers.ts";
import { KEY_VARIABLE } from "./tokens.ts";

const isShort = process.argv.includes("--short");
const SECONDS = Number(process.env.ABUSE_SECONDS || (isShort ? 1 : 6));
const PAIRS = isShort ? 25 : 100;
const LEAST_ATTEMPTS = isShort ? 400 : 0;
/** Longest time to prepare an attack. */
const PREPARE_MS = 60_000;
/** How far a count may be over the limit. */
const TOLERANCE = 1.1;
/** In the short form each backend has what is its own: the rest is the same code. */
const SHORT: Readonly<Record<Backend, readonly string[]>> = {
  SQLite: Object.keys(ATTACKS),
  Redis: ["tickets", "messages", "accomplices", "sign-outs", "signatures", "pages", "reads"],
  Upstash: ["quotes", "sign-outs"],
};

interface Row {
  readonly backend: Backend;
  readonly attack: string;
  readonly tally: Tally | { readonly fault: string };
  readonly most: number;
  /** What the abuser left behind. */
  readonly left: Traces;
  readonly mostLeft: number;
  /** Of the servers' processors without the abuser, in milliseconds. */
  readonly usualCpuMs: number;
  /** Not in the short form. */
  readonly before: CrowdOutcome | undefined;
  readonly during: CrowdOutcome;
  /** Neither in the short form, nor for what isn't a flood. */
  readonly control: Control | undefined;
}

interface Control {
  readonly attempts: number;
  readonly during: CrowdOutcome;
  readonly cpuMs: number;
}

const rows: Row[] = [];
const words = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const attacks = words.filter((word) => word in ATTACKS);
const backends = BACKENDS.filter((backend) => words.includes(backend));
if (attacks.length + backends.length < words.length) {
  console.error(`Takes names of ${BACKENDS.join(", ")}, and of ${Object.keys(ATTACKS).join(", ")}`);
  process.exit(2);
}
for (const backend of backends.length > 0 ? backends : BACKENDS) await measure(backend);
if (isShort) printCounts();
else printTimes();
const faults = rows.flatMap(faultsOf);
for (const fault of faults) console.log(fault);
console.log(faults.length === 0 ? "Nobody was harmed" : `${faults.length} faults`);
// Without waiting for timers that have nothing to do any more.
process.exit(faults.length === 0 ? 0 : 1);

async function measure(backend: Backend): Promise<void> {
  await using servers = await startServers(backend);
  const { origins } = servers;
  using crowd = startProcess<CrowdJob, CrowdOutcome>("crowd.ts", servers);
  await crowd.run({ kind: "gather", origins, pairs: PAIRS });
  const live = () => crowd.run({ kind: "live", seconds: SECONDS });
  // Until everything has run once.
  await live();
  for (const [at, attack] of attacksOn(backend, servers).entries()) {
    using abuser = startProcess<AbuserJob, AbuserOutcome>("abuser.ts", servers);
    const name = `abuser ${String.fromCharCode(97 + at)}`;
    const times = { seconds: SECONDS, least: LEAST_ATTEMPTS };
    const job = { ...times, attack, origins, name, address: `203.0.113.${at + 1}` };
    const prepared = await Promise.race([
      abuser.run({ ...job, kind: "prepare" }),
      Bun.sleep(PREPARE_MS).then((): AbuserOutcome => ({ fault: "can't be prepared" })),
    ]);
    const start = await servers.traces(name);
    const before = isShort ? undefined : await live();
    const earlier = await servers.traces(name);
    const startMs = performance.now();
    const [tally, during] =
      "fault" in prepared
        ? [prepared, await live()]
        : await Promise.all([abuser.run({ ...job, kind: "attack" }), live()]);
    const seconds = (performance.now() - startMs) / 1000;
    const later = await servers.traces(name);
    const control = async (): Promise<Control | undefined> => {
      if (isShort || attack === "idle") return undefined;
      const [flooded, crowded] = await Promise.all([
        abuser.run({ ...job, kind: "control" }),
        live(),
      ]);
      const { cpuMs } = await servers.traces(name);
      const attempts = "fault" in flooded ? 0 : flooded.attempts;
      return { attempts, during: crowded, cpuMs: cpuMs - later.cpuMs };
    };
    const { most, traces = () => 0 } = ATTACKS[attack] as (typeof ATTACKS)[string];
    const left = {
      rows: later.rows - earlier.rows,
      entries: later.entries - earlier.entries,
      logBytes: later.logBytes - earlier.logBytes,
      cpuMs: later.cpuMs - earlier.cpuMs,
    };
    const usualCpuMs = earlier.cpuMs - start.cpuMs;
    const limitOf = (limit: typeof most) => limit(origins.length, seconds);
    const limits = { most: limitOf(most), mostLeft: limitOf(traces) };
    const measured = { backend, attack, tally, left, usualCpuMs, before, during };
    rows.push({ ...measured, ...limits, control: await control() });
    console.log(new Date().toISOString(), backend, attack, JSON.stringify({ ...tally, ...left }));
  }
}

function attacksOn(backend: Backend, { key }: Servers): readonly string[] {
  const all = isShort ? SHORT[backend] : Object.keys(ATTACKS);
  const wanted = attacks.length > 0 ? attacks : all;
  // With a secret, a token has no other signature.
  return wanted.filter((name) => name !== "signatures" || key !== undefined);
}

/** A process that takes jobs; the abuser's machine is another one, so its process comes last. */
function startProcess<Job, Outcome>(
  file: string,
  { key }: Servers,
): Disposable & { run(job: Job): Promise<Outcome> } {
  let finish: (outcome: Outcome) => void = () => {};
  let fail: (error: Error) => void = () => {};
  const priority = file === "abuser.ts" && !isShort ? ["nice", "-n", "19"] : [];
  const child = Bun.spawn([...priority, process.execPath, `${import.meta.dir}/${file}`], {
    env: { ...process.env, [KEY_VARIABLE]: key ?? "" },
    stdout: "inherit",
    stderr: "inherit",
    ipc: (outcome: Outcome) => finish(outcome),
    onExit: () => fail(new Error(`${file} has ended`)),
  });
  return {
    run(job) {
      const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
      finish = resolve;
      fail = reject;
      child.send(job as never);
      return promise;
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}

function faultsOf(row: Row): string[] {
  const { backend, attack, tally, most, left, mostLeft, before, during, control } = row;
  const where = `${backend}, ${attack}:`;
  const faults: string[] = [];
  if ("fault" in tally) faults.push(`${where} ${tally.fault}`);
  else if (tally.attempts === 0) faults.push(`${where} nothing was attempted`);
  else if (tally.through > most * TOLERANCE) {
    faults.push(`${where} ${tally.through} got through, ${Math.ceil(most)} may`);
  }
  for (const what of ["rows", "entries"] as const) {
    if (left[what] <= mostLeft * TOLERANCE) continue;
    faults.push(`${where} ${left[what]} ${what} were left behind, ${Math.ceil(mostLeft)} may be`);
  }
  for (const outcome of [before, during, control?.during]) {
    if (!outcome) continue;
    const { ended, failures, count } = outcome;
    if (ended > 0) faults.push(`${where} ${ended} sockets of the crowd ended`);

    for (const [failure, times] of Object.entries(failures)) {
      faults.push(`${where} ${failure}, ${times} times`);
    }
    if (DEEDS.some((deed) => count[deed] === 0)) faults.push(`${where} the crowd did nothing`);
  }
  return faults;
}

function countsOf({ tally, most, left, during }: Row): Record<string, unknown> {
  return {
    ...("fault" in tally ? {} : tally),
    most: Math.ceil(most),
    rows: left.rows,
    entries: left.entries,
    ended: during.ended,
    failed: Object.values(during.failures).reduce((sum, times) => sum + times, 0),
  };
}

function printCounts(): void {
  console.table(rows.map((row) => ({ on: row.backend, attack: row.attack, ...countsOf(row) })));
}

function printTimes(): void {
  for (const backend of BACKENDS) {
    const own = rows.filter((row) => row.backend === backend);
    if (own.length === 0) continue;
    console.log(
      `${backend}: p99 of the crowd in milliseconds, and the servers' CPU, without and with one abuser / with the control`,
    );
    console.table(
      own.map((row) => {
        const { attack, tally, left, usualCpuMs, before, during, control } = row;
        const times = DEEDS.map((deed): [string, string] => {
          const [without, with_] = [before?.p99Ms[deed] ?? 0, during.p99Ms[deed]];
          return [
            deed,
            `${without.toFixed(0)} → ${with_.toFixed(0)}${beside(control?.during.p99Ms[deed].toFixed(0))}`,
          ];
        });
        const percent = (cpuMs: number) => (cpuMs / SECONDS / 10).toFixed(0);
        const microseconds = (cpuMs: number, attempts: number) =>
          ((1000 * (cpuMs - usualCpuMs)) / Math.max(1, attempts)).toFixed(0);
        const attempts = "fault" in tally ? 0 : tally.attempts;
        return {
          attack,
          ...Object.fromEntries(times),
          cpu: `${percent(usualCpuMs)} → ${percent(left.cpuMs)}${beside(control && percent(control.cpuMs))} %`,
          "µs each": `${microseconds(left.cpuMs, attempts)}${beside(control && microseconds(control.cpuMs, control.attempts))}`,
          ...countsOf(row),
          "log KB": Math.round(left.logBytes / 1024),
        };
      }),
    );
  }
}

function beside(figure: string | undefined): string {
  return figure === undefined ? "" : ` / ${figure}`;
}
