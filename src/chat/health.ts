import type { Clock } from "../lib/clock.ts";
import type { ChatHistory } from "./history.ts";

/** How long a failure to store counts, in milliseconds, unless something is stored meanwhile. */
const FAILURE_MS = 10_000;
/** How long a good probe is good for, in milliseconds: it writes to the disk. */
const PROBED_MS = 10_000;

/** Whether messages can be stored, from what became of the last ones. */
export interface Health {
  /** A message was stored. */
  stored(): void;
  /** One couldn't be. */
  failed(error: unknown): void;
  /** Rejects while messages can't be stored. Writes only where nothing else has told. */
  probe(): Promise<void>;
}

export function createHealth(history: Pick<ChatHistory, "probe">, clock: Clock): Health {
  let failure: { readonly atMs: number; readonly error: unknown } | undefined;
  let goodAtMs = Number.NEGATIVE_INFINITY;

  return {
    stored() {
      failure = undefined;
      goodAtMs = clock.monotonicMs();
    },
    failed(error) {
      failure = { atMs: clock.monotonicMs(), error };
    },
    async probe() {
      const nowMs = clock.monotonicMs();
      // A message takes more room than a probe, and more commands.
      if (failure && nowMs - failure.atMs < FAILURE_MS) throw failure.error;
      if (nowMs - goodAtMs < PROBED_MS) return;
      await history.probe?.();
      failure = undefined;
      goodAtMs = nowMs;
    },
  };
}
