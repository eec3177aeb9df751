import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "../lib/deadline.ts";
import type { Deps } from "./gate.ts";
import { faultCode } from "../lib/log.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import type { Credential, Revocation } from "./store.ts";
import { MAX_TOKEN_LIFETIME_MS, type TokenUser } from "./token.ts";

/** A session's later tokens outlive the one it was ended with; they are refused for so long, in milliseconds. */
const SESSION_MEMORY_MS = 30 * 86_400_000;

type RevokeDeps = Pick<Deps, "store" | "clock" | "log" | "onRevoked">;

/**
 * Ends the session that a token belongs to, or with `everywhere` all the user's sessions up to now: its
 * sockets here at once and on every instance within a second, its unused tickets, and its tokens' right to
 * new ones. `store_unavailable` when only this instance could be told, `token_invalid` for `everywhere`
 * with a token that was signed out itself.
 */
export async function signOut(
  user: TokenUser,
  deps: RevokeDeps,
  { everywhere = false } = {},
): Promise<{ readonly ok: true } | Refusal> {
  const { id, session, tokenExpiresAtMs } = user;
  if (everywhere) {
    // Whoever still has the token of a session that was ended must not end the others.
    const revoked = await isRevoked({ kind: "user", ...user }, deps);
    return revoked === true ? refuse("token_invalid") : kick({ kind: "user", id }, deps);
  }
  const atMs = deps.clock.nowMs();
  const untilMs = Math.max(tokenExpiresAtMs, atMs + SESSION_MEMORY_MS);
  return revoke({ kind: "user", id, session, atMs, untilMs }, deps);
}

/** Ends everything that a user or a visitor was let in with up to now. Failure as with `signOut`. */
export function kick(
  { kind, id }: Pick<Credential, "kind" | "id">,
  deps: RevokeDeps,
): Promise<{ readonly ok: true } | Refusal> {
  const atMs = deps.clock.nowMs();
  return revoke({ kind, id, atMs, untilMs: atMs + MAX_TOKEN_LIFETIME_MS }, deps);
}

async function revoke(
  revocation: Revocation,
  { store, log, onRevoked }: RevokeDeps,
): Promise<{ readonly ok: true } | Refusal> {
  const { kind, id } = revocation;
  log("info", "revoked", { [kind]: id });
  onRevoked(revocation);
  try {
    await withinDeadline(store.revoke(revocation), DEPENDENCY_DEADLINE_MS);
    return { ok: true };
  } catch (error) {
    log("error", "store_failed", { [kind]: id, code: faultCode(error) });
    return refuse("store_unavailable");
  }
}

/** Whether a credential was ended; `unknown` when the store doesn't say, which is no admission either. */
export async function isRevoked(
  credential: Credential,
  { store, log }: Pick<Deps, "store" | "log">,
): Promise<boolean | "unknown"> {
  try {
    return await withinDeadline(store.isRevoked(credential), DEPENDENCY_DEADLINE_MS);
  } catch (error) {
    log("error", "store_failed", { code: faultCode(error) });
    return "unknown";
  }
}
