import {
  endsBadFrames,
  knowsItsProtocols,
  limitsAddresses,
  QUIET_MS,
  speaksHttp2,
  staysOpen,
} from "./connection.ts";
import { type CheckId, type CheckResult, CHECKS, type Finding, Skipped } from "./finding.ts";
import {
  connects,
  encrypts,
  endsSoon,
  isClosedToOthers,
  isNotCached,
  isRandom,
  needsHeader,
  refusesGet,
  repeatsNothing,
  staysEncrypted,
} from "./issuing.ts";
import { isOutOfReach, refusesBadTickets, refusesForeignPages } from "./pages.ts";
import { Exhausted, type Target } from "./target.ts";
import {
  endsOnTime,
  hasOneSpelling,
  isKnownEverywhere,
  refusesTokensInUrl,
  spendsNothing,
  worksOnce,
  worksOnceAtOnce,
} from "./tickets.ts";

interface Check {
  readonly id: CheckId;
  run(target: Target): Promise<Finding[]>;
  /** What has to work first: nothing, issuing tickets, or telling a good credential from none. */
  readonly needs: "nothing" | "ticket" | "refusal";
}

const BEFORE: readonly Check[] = [
  { id: "tls", needs: "nothing", run: encrypts },
  { id: "header", needs: "ticket", run: needsHeader },
  { id: "method", needs: "ticket", run: refusesGet },
  { id: "entropy", needs: "ticket", run: isRandom },
  { id: "cache", needs: "ticket", run: isNotCached },
  { id: "hsts", needs: "nothing", run: staysEncrypted },
  { id: "cors", needs: "nothing", run: isClosedToOthers },
  { id: "echo", needs: "nothing", run: repeatsNothing },
  { id: "url", needs: "refusal", run: refusesTokensInUrl },
  { id: "spent", needs: "refusal", run: spendsNothing },
  { id: "replay", needs: "refusal", run: worksOnce },
  { id: "race", needs: "refusal", run: worksOnceAtOnce },
  { id: "spelling", needs: "refusal", run: hasOneSpelling },
  { id: "origin", needs: "refusal", run: refusesForeignPages },
  { id: "cookie", needs: "nothing", run: isOutOfReach },
  { id: "downgrade", needs: "refusal", run: refusesBadTickets },
  { id: "subprotocol", needs: "ticket", run: knowsItsProtocols },
  { id: "frames", needs: "ticket", run: endsBadFrames },
  { id: "http2", needs: "ticket", run: speaksHttp2 },
  { id: "instances", needs: "refusal", run: isKnownEverywhere },
];

/** What can be told about an examination while it goes on. */
export interface Progress {
  /** A check begins. */
  readonly id: CheckId;
  readonly done: number;
  readonly of: number;
  readonly requests: number;
}

/**
 * Makes every check, and returns what became of each. `slow`: also waits for a ticket to end. Rejects when the
 * deployment can't be reached at all.
 */
export async function examine(
  target: Target,
  options: {
    slow: boolean;
    quietMs?: number | undefined;
    onProgress?: ((progress: Progress) => void) | undefined;
  },
): Promise<CheckResult[]> {
  const { slow, quietMs = QUIET_MS, onProgress } = options;
  const results: CheckResult[] = [];
  const of = Object.keys(CHECKS).length;
  /** Why checks that need it are skipped. */
  const missing: { ticket?: string; refusal?: string } = {};

  function announce(id: CheckId): void {
    onProgress?.({ id, done: results.length, of, requests: target.requests });
  }

  async function make({ id, needs, run }: Check): Promise<void> {
    announce(id);
    const reason =
      needs === "nothing"
        ? undefined
        : (missing.ticket ?? (needs === "refusal" ? missing.refusal : undefined));
    results.push(reason === undefined ? await outcomeOf(id, run(target)) : skipped(id, reason));
  }

  // Whether it can be reached: a failure here is no finding.
  await target.send(target.path("/"));
  announce("connect");
  const connected =
    target.options.token === undefined
      ? skipped("connect", "needs a token: --token-file")
      : await outcomeOf("connect", connects(target));
  results.push(connected);
  if (connected.outcome === "skipped") missing.ticket = connected.reason;
  if (connected.outcome === "finding") missing.ticket = "no good ticket opens a socket";
  target.isOpenToAll = (await target.knock("")).status === 101;
  if (target.isOpenToAll) {
    missing.refusal = "sockets open without any credential, so that nothing tells a refusal";
  }

  // Quiet all the while, so that nobody waits for it twice.
  const quiet = missing.ticket
    ? Promise.resolve(skipped("idle", missing.ticket))
    : outcomeOf("idle", staysOpen(target, quietMs));
  for (const check of BEFORE) await make(check);
  if (target.isOpenToAll) {
    const at = results.findIndex(({ id }) => id === "downgrade");
    results[at] = { id: "downgrade", outcome: "finding", findings: [openToAll(target)] };
  }
  await make({
    id: "expiry",
    needs: slow ? "refusal" : "ticket",
    run: async () => {
      // Said, and where there is time kept.
      const said = await endsSoon(target).catch((error) => {
        if (slow && error instanceof Skipped) return [];
        throw error;
      });
      return slow ? [...said, ...(await endsOnTime(target))] : said;
    },
  });
  announce("idle");
  results.push(await quiet);
  await make({ id: "limits", needs: "nothing", run: limitsAddresses });
  const order = Object.keys(CHECKS);
  return results.toSorted((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
}

function openToAll(target: Target): Finding {
  return {
    id: "downgrade",
    title: "Sockets open without any credential",
    sent: target.show(`GET ${target.path(target.options.socketPath)}`),
    received: "101",
    why: "A ticket that was refused goes unnoticed: whoever it was goes on as a stranger",
    references: ["ASVS 16.5.3", "ASVS 4.4.4"],
    mend: "Give visitors a signed cookie, and refuse handshakes with neither a ticket nor a cookie",
  };
}

function skipped(id: CheckId, reason: string): CheckResult {
  return { id, outcome: "skipped", reason };
}

async function outcomeOf(id: CheckId, making: Promise<Finding[]>): Promise<CheckResult> {
  try {
    const findings = await making;
    return findings.length === 0 ? { id, outcome: "good" } : { id, outcome: "finding", findings };
  } catch (error) {
    if (error instanceof Exhausted) return skipped(id, "no requests were left");
    if (error instanceof Skipped) return skipped(id, error.message);
    const { code, name } = error as { code?: unknown; name?: string };
    return skipped(id, `the connection failed: ${String(code ?? name)}`);
  }
}
