/**
 * `bun run abuse`: an honest crowd beside one abuser at a time, for each way of abuse that was ever proven, on each
 * backend; prints how long the crowd waits with and without the abuser, and how many of its sockets ended. With
 * `--short`: smaller and shorter, without a word on times; ends with 1 when more got through than may, or when the
 * crowd lost a socket or a request.
 */
import { ATTACKS, type Tally } from "./attacks.ts";
import type { AbuserJob, AbuserOutcome } from "./abuser.ts";
import { type CrowdJob, type CrowdOutcome, DEEDS } from "./crowd.ts";
import { type Backend, BACKENDS, startServers } from "./servers.ts";

const isShort = process.argv.includes("--short");
const SECONDS = Number(process.env.ABUSE_SECONDS || (isShort ? 1.5 : 6));
const PAIRS = isShort ? 25 : 100;
/** How far the count may be over the limit. */
const TOLERANCE = 1.1;
/** In the short form Upstash has only what is its own: the rest is the same code as with Redis. */
const SHORT_ON_UPSTASH = ["quotes", "messages", "pages"];

interface Row {
  readonly backend: Backend;
  readonly attack: string;
  readonly tally: Tally | { readonly fault: string };
  readonly most: number;
  readonly before: CrowdOutcome;
  readonly during: CrowdOutcome;
}

const rows: Row[] = [];
const wanted = process.argv.slice(2).filter((name) => name in ATTACKS);
for (const backend of BACKENDS) await measure(backend);
if (isShort) printCounts();
else printTimes();
const faults = rows.flatMap(faultsOf);
for (const fault of faults) console.log(fault);
console.log(faults.length === 0 ? "Nobody was harmed" : `${faults.length} faults`);
process.exitCode = faults.length === 0 ? 0 : 1;

async function measure(backend: Backend): Promise<void> {
  await using servers = await startServers(backend);
  const { origins } = servers;
  using crowd = startProcess<CrowdJob, CrowdOutcome>("crowd.ts");
  await crowd.run({ kind: "gather", origins, pairs: PAIRS });
  const live = () => crowd.run({ kind: "live", seconds: SECONDS });
  // Until everything has run once.
  if (!isShort) await live();
  for (const [number, attack] of attacksOn(backend).entries()) {
    using abuser = startProcess<AbuserJob, AbuserOutcome>("abuser.ts");
    const before = await live();
    const job = { attack, origins, number: number + 1, seconds: SECONDS };
    const [tally, during] = await Promise.all([abuser.run(job), live()]);
    const most = ATTACKS[attack]?.most(origins.length, SECONDS + 1) ?? 0;
    rows.push({ backend, attack, tally, most, before, during });
    console.log(new Date().toISOString(), backend, attack, JSON.stringify(tally));
  }
}

function attacksOn(backend: Backend): string[] {
  if (wanted.length > 0) return wanted;
  const all = Object.keys(ATTACKS);
  if (!isShort) return all;
  // What it does is a matter of time, and of Bun's.
  const short = all.filter((name) => name !== "idle");
  return backend === "Upstash" ? SHORT_ON_UPSTASH : short;
}

/** A process that takes jobs; the abuser's machine is another one, so its process comes last. */
function startProcess<Job, Outcome>(
  file: string,
): Disposable & { run(job: Job): Promise<Outcome> } {
  let finish: (outcome: Outcome) => void = () => {};
  let fail: (error: Error) => void = () => {};
  const priority = file === "abuser.ts" ? ["nice", "-n", "19"] : [];
  const child = Bun.spawn([...priority, process.execPath, `${import.meta.dir}/${file}`], {
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

function faultsOf({ backend, attack, tally, most, before, during }: Row): string[] {
  const where = `${backend}, ${attack}:`;
  const faults: string[] = [];
  if ("fault" in tally) faults.push(`${where} ${tally.fault}`);
  else if (tally.attempts === 0) faults.push(`${where} nothing was attempted`);
  else if (tally.through > most * TOLERANCE) {
    faults.push(`${where} ${tally.through} got through, ${Math.ceil(most)} may`);
  }
  for (const { ended, failures, count } of [before, during]) {
    if (ended > 0) faults.push(`${where} ${ended} sockets of the crowd ended`);
    if (attack === "idle") continue;
    for (const [failure, times] of Object.entries(failures)) {
      faults.push(`${where} ${failure}, ${times} times`);
    }
    if (DEEDS.some((deed) => count[deed] === 0)) faults.push(`${where} the crowd did nothing`);
  }
  return faults;
}

function printCounts(): void {
  console.table(
    rows.map(({ backend, attack, tally, most, during }) => ({
      backend,
      attack,
      ...("fault" in tally ? {} : tally),
      most: Math.ceil(most),
      ended: during.ended,
      failed: Object.values(during.failures).reduce((sum, times) => sum + times, 0),
    })),
  );
}

function printTimes(): void {
  for (const backend of BACKENDS) {
    console.log(`${backend}: p99 of the crowd in milliseconds, without and with one abuser`);
    console.table(
      rows
        .filter((row) => row.backend === backend)
        .map(({ attack, tally, before, during }) => ({
          row: ATTACKS[attack]?.row,
          attack: ATTACKS[attack]?.what,
          ...("fault" in tally ? {} : { through: `${tally.through} of ${tally.attempts}` }),
          ...Object.fromEntries(
            DEEDS.map((deed) => [
              deed,
              `${before.p99Ms[deed].toFixed(0)} → ${during.p99Ms[deed].toFixed(0)}`,
            ]),
          ),
          ended: `${before.ended} → ${during.ended}`,
          failed: Object.values(during.failures).reduce((sum, times) => sum + times, 0),
        })),
    );
  }
}
