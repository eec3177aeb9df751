import type { Clock } from "../lib/clock.ts";
import { createCounts } from "../lib/counts.ts";
import { createRateLimit } from "../lib/limit.ts";
import { maxOpenFiles } from "./files.ts";

/** Refusals, and responses that nothing else limits, per address: at once, or spread over this time in milliseconds. */
const REFUSALS = { allowed: 200, windowMs: 2_000, debtMs: 2_000 };
const READS = { allowed: 700, windowMs: 700, debtMs: 1_000 };
/** Longest time that a response waits, in milliseconds. */
const MAX_WAIT_MS = 1_000;
/** Share of the files that the process may have open, for connections whose response waits; most of them; an address's share. */
const WAITING_SHARE = 0.25;
const MAX_WAITING = 5_000;
const ADDRESS_SHARE = 0.25;

/**
 * Holds back responses to an address that gets more of them than anybody needs. Whoever repeats a request as fast as the
 * responses come would take the processor from everybody else.
 */
export interface Pace {
  /**
   * Resolves when the response may leave, within a second, or when its request is aborted. `false`: the connection has to
   * end with it, since too many responses wait already.
   */
  refusal(address: string, signal: AbortSignal): Promise<boolean>;
  /** The same for a response that is no refusal. */
  read(address: string, signal: AbortSignal): Promise<boolean>;
  /** Holds back none any more. */
  end(): void;
}

export function createPace(clock: Clock): Pace {
  const refusals = createRateLimit<string>({ ...REFUSALS, clock });
  const reads = createRateLimit<string>({ ...READS, clock });
  // Each takes a file, and others need some, too.
  const maxWaiting = Math.min(MAX_WAITING, Math.floor(maxOpenFiles() * WAITING_SHARE));
  const waiting = new Set<() => void>();
  /** How many of them are an address's. */
  const counts = createCounts<string>();
  let isEnded = false;

  async function inTurn(limit: typeof reads, address: string, signal: AbortSignal) {
    const waitMs = Math.min(limit.waitMs(address), MAX_WAIT_MS);
    limit.count(address);
    if (waitMs === 0 || isEnded || signal.aborted) return true;
    const isTooMuch = counts.of(address) >= maxWaiting * ADDRESS_SHARE;
    if (isTooMuch || waiting.size >= maxWaiting) return false;
    await new Promise<void>((resolve) => {
      const end = () => {
        cancel();
        signal.removeEventListener("abort", end);
        if (waiting.delete(end)) counts.add(address, -1);
        resolve();
      };
      const cancel = clock.after(waitMs, end);
      signal.addEventListener("abort", end);
      waiting.add(end);
      counts.add(address, 1);
    });
    return true;
  }

  return {
    refusal: (address, signal) => inTurn(refusals, address, signal),
    read: (address, signal) => inTurn(reads, address, signal),
    end() {
      isEnded = true;
      for (const end of waiting) end();
    },
  };
}
