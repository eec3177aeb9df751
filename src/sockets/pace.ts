import type { Clock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import { maxOpenFiles } from "./files.ts";

/** Refusals, and responses that nothing else limits, per address: at once, or spread over this time in milliseconds. */
const REFUSALS = { allowed: 200, windowMs: 2_000, debtMs: 2_000 };
const READS = { allowed: 5_000, windowMs: 5_000, debtMs: 5_000 };
/** Longest time that a response waits, in milliseconds. */
const MAX_WAIT_MS = 1_000;
/** Share of the files that the process may have open, for connections whose response waits; and most of them. */
const WAITING_SHARE = 0.25;
const MAX_WAITING = 5_000;

/**
 * Holds back responses to an address that gets more of them than anybody needs. Whoever repeats a request as fast as the
 * responses come would take the processor from everybody else.
 */
export interface Pace {
  /** Resolves when the response may leave, within a second. */
  refusal(address: string): Promise<void>;
  /** The same for a response that is no refusal. */
  read(address: string): Promise<void>;
  /** Holds back none any more. */
  end(): void;
}

export function createPace(clock: Clock): Pace {
  const refusals = createRateLimit<string>({ ...REFUSALS, clock });
  const reads = createRateLimit<string>({ ...READS, clock });
  // Each takes a file, and others need some, too.
  const maxWaiting = Math.min(MAX_WAITING, Math.floor(maxOpenFiles() * WAITING_SHARE));
  const waiting = new Set<() => void>();
  let isEnded = false;

  async function inTurn(limit: typeof reads, address: string): Promise<void> {
    const waitMs = Math.min(limit.waitMs(address), MAX_WAIT_MS);
    limit.count(address);
    if (waitMs === 0 || isEnded || waiting.size >= maxWaiting) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        cancel();
        waiting.delete(end);
        resolve();
      };
      const cancel = clock.after(waitMs, end);
      waiting.add(end);
    });
  }

  return {
    refusal: (address) => inTurn(refusals, address),
    read: (address) => inTurn(reads, address),
    end() {
      isEnded = true;
      for (const end of waiting) end();
    },
  };
}
