import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "../lib/deadline.ts";
import { createRateLimit } from "../lib/limit.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import { CLOSE } from "../wire/close.ts";
import { type Identity, identityFields } from "./identity.ts";
import type { Live } from "./live.ts";
import type { Revocation, SharedLimit, TicketStore } from "./store.ts";
import { MAX_TOKEN_LIFETIME_MS } from "./claims.ts";

/** Later tokens of a session outlive the one that it was ended with; they are refused this long, in milliseconds. */
const SESSION_MEMORY_MS = 30 * 86_400_000;

/** Sign-outs per user and minute. */
export const SIGN_OUTS_PER_MINUTE = 10;

/** The same per day, too: each is remembered for so long that they add up. */
const SIGN_OUTS: readonly SharedLimit[] = [
  { allowed: SIGN_OUTS_PER_MINUTE, windowMs: 60_000 },
  { allowed: 200, windowMs: 86_400_000 },
];

/** Ends credentials before their time, here and on every instance that shares the store. */
export interface Revocations {
  /**
   * Spends one of the sign-outs that a user may make, over all processes that share the store; resolves to the milliseconds
   * to wait when there is none left.
   */
  spendSignOut(user: string): Promise<number>;
  /** Ends one session of a user. */
  endSession(credential: {
    id: string;
    session: string;
    expiresAtMs?: number;
  }): Promise<{ readonly ok: true } | Refusal>;
  /** Ends everything that was issued to a user or visitor up to now. */
  endAll(identity: Pick<Identity, "kind" | "id">): Promise<{ readonly ok: true } | Refusal>;
  /** Whether a credential was revoked; `unknown` when the store can't say, which is no admission either. */
  isRevoked(identity: Identity): Promise<boolean | "unknown">;
  /**
   * Resolves to `true` once every later revocation by another process will arrive here. To be awaited before
   * the store is read, so that no revocation falls between that and the open connection.
   */
  areFollowed(): Promise<boolean>;
  /** Whether revocations by other processes can't be read now. */
  readonly areMissed: boolean;
}

export function createRevocations(options: {
  store: TicketStore;
  live: Live;
  clock: Clock;
  log: Log;
}): Revocations {
  const { store, live, clock, log } = options;
  const feed = store.revocations === "unavailable" ? undefined : store.revocations;
  const signOuts = SIGN_OUTS.map((limit) => createRateLimit<string>({ ...limit, clock }));

  /** What all processes have seen together; 0 where that can't be said, since the revocation itself will fail then. */
  async function spendShared(user: string): Promise<number> {
    if (!store.spend) return 0;
    try {
      const spending = store.spend(`sign-out:${user}`, SIGN_OUTS);
      return await withinDeadline(spending, DEPENDENCY_DEADLINE_MS, clock);
    } catch (error) {
      log("error", "store_failed", { code: faultCode(error) });
      return 0;
    }
  }

  feed?.subscribe({
    onRevoked: live.revoke,
    onGap: () => live.endAll(CLOSE.missedEvents),
    isNeeded: () => live.size > 0,
  });

  async function revoke(revocation: Revocation): Promise<{ readonly ok: true } | Refusal> {
    log("info", "revoked", identityFields(revocation));
    live.revoke(revocation);
    try {
      await withinDeadline(store.revoke(revocation), DEPENDENCY_DEADLINE_MS, clock);
      return { ok: true };
    } catch (error) {
      log("error", "store_failed", { ...identityFields(revocation), code: faultCode(error) });
      return refuse("store_unavailable");
    }
  }

  return {
    async spendSignOut(user) {
      const waitMs = Math.max(...signOuts.map((limit) => limit.waitMs(user)));
      if (waitMs > 0) return waitMs;
      // At once: further ones may come before the store answers.
      for (const limit of signOuts) limit.count(user);
      return spendShared(user);
    },
    endSession({ id, session, expiresAtMs = 0 }) {
      const atMs = clock.nowMs();
      const untilMs = Math.max(expiresAtMs, atMs + SESSION_MEMORY_MS);
      return revoke({ kind: "user", id, session, atMs, untilMs });
    },
    endAll({ kind, id }) {
      const atMs = clock.nowMs();
      return revoke({ kind, id, atMs, untilMs: atMs + MAX_TOKEN_LIFETIME_MS });
    },
    async isRevoked(identity) {
      try {
        return await withinDeadline(store.isRevoked(identity), DEPENDENCY_DEADLINE_MS, clock);
      } catch (error) {
        log("error", "store_failed", { code: faultCode(error) });
        return "unknown";
      }
    },
    get areMissed() {
      return feed?.isFailing ?? false;
    },
    async areFollowed() {
      if (!feed) return true;
      try {
        await withinDeadline(feed.ready(), DEPENDENCY_DEADLINE_MS, clock);
        return true;
      } catch (error) {
        log("error", "feed_failed", { code: faultCode(error) });
        return false;
      }
    },
  };
}
