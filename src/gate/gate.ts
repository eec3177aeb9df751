/// <reference lib="esnext.disposable" preserve="true" />
import { type Clock, systemClock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import { createLog, faultCode, type Log } from "../lib/log.ts";
import { isLine } from "../lib/text.ts";
import {
  type ConnectionInfo,
  headersFor,
  type Incoming,
  type Origins,
  readRequest,
  type RequestPolicy,
  type Suspicion,
} from "../request/incoming.ts";
import { publicPathOf } from "../request/origin.ts";
import { type Refusal, refusalResponse, refuse } from "../request/refusal.ts";
import type { Close } from "../wire/close.ts";
import { isUserId, isVisitorId } from "../wire/ids.ts";
import { BASE_PATH } from "../wire/paths.ts";
import { type Admission, admit } from "./admit.ts";
import { type Authenticator, createAuthenticator } from "./authenticate.ts";
import {
  type GateOptions,
  readPolicy,
  readTicketSecrets,
  readUsers,
  readVisitors,
  requireBasePath,
} from "./gate-options.ts";
import {
  type Identity,
  identityFields,
  identityKey,
  MAX_SESSION_LENGTH,
  type UserCredential,
} from "./identity.ts";
import { createSigner } from "./hmac.ts";
import { createLive, type Live } from "./live.ts";
import { memoryTicketStore } from "./memory.ts";
import { requireMethods, requireSecrets, requireWhole } from "./options.ts";
import { createRevocations, type Revocations } from "./revocation.ts";
import { createGateRoutes } from "./routes.ts";
import type { TicketStore } from "./store.ts";
import {
  createTickets,
  type Identified,
  type IssuedTicket,
  MARK_PURPOSE,
  toIdentity,
  type Tickets,
} from "./ticket.ts";
import { createUserSessions, type UserSessions } from "./user-session.ts";

/** Decides who gets in. `Claims` is what tickets carry beside the user. */
export interface Gate<Claims = unknown> extends AsyncDisposable {
  /** Where its routes are. */
  readonly basePath: string;
  /**
   * Answers the requests below `basePath`: `POST /ws-ticket`, `/anonymous-session` and `/sign-out`; `not_found`
   * for all others. It never rejects. Limits per address need `socketAddress`, the other end of the connection.
   *
   * @example
   * app.all("/api/auth/*", (c) =>
   *   gate.fetch(c.req.raw, { socketAddress: getConnInfo(c).remote.address }),
   * );
   */
  fetch(request: Request, connection?: ConnectionInfo): Promise<Response>;
  /**
   * Issues a ticket for a user whom you have identified. `purpose` is what it is good for: the socket, unless
   * you say otherwise. Refusals: `token_invalid` for a credential that ends within a second or was revoked,
   * `too_many_requests`, `store_unavailable`. Throws a `TypeError` or `RangeError` for a credential that is
   * no credential, or claims of more than 1 KB.
   *
   * @example
   * const issued = await gate.issue({ user: "alice", expiresAtMs: session.expiresAtMs, purpose: "download" });
   */
  issue(
    credential: UserCredential<Claims> & { readonly purpose?: string | undefined },
  ): Promise<IssuedTicket | Refusal>;
  /**
   * Spends a ticket outside a socket: for a download, or an SSE stream. `ticket_refused` when it is unknown,
   * used, expired, or was issued for another purpose; it is spent then, too.
   *
   * @example
   * const redeemed = await gate.redeem(ticket, { purpose: "download" });
   * if (!redeemed.ok) return refusalResponse(redeemed);
   */
  redeem(
    ticket: string,
    options?: { readonly purpose?: string | undefined },
  ): Promise<Identified<Claims> | Refusal>;
  /**
   * Checks a WebSocket handshake (RFC 6455 section 4.2) and spends its ticket. For a server of your own in
   * another runtime, which decides on the path; `createSockets` of `ws-ticket/bun` does it by itself. Pass the identity to `follow`, or
   * the socket won't end with its credential.
   */
  admit(request: Request, connection?: ConnectionInfo): Promise<Admission<Claims> | Refusal>;
  /**
   * Calls `onEnd` once when the credential behind a connection expires or is revoked, here or by another
   * process. Call the returned function when the connection has closed. Throws an `Error` when the store
   * doesn't receive revocations by other processes.
   *
   * @example
   * const unfollow = gate.follow(identity, ({ code, reason }) => socket.close(code, reason));
   * socket.on("close", unfollow);
   */
  follow(identity: Identity<Claims>, onEnd: (close: Close) => void): () => void;
  /**
   * Ends a user's session, everything of a user, or a visitor: open connections, unused tickets, and the right
   * to new ones. `store_unavailable` when only this process knows. Throws a `TypeError` for what is no id.
   *
   * @example
   * await gate.revoke({ user: session.userId, session: session.id });
   */
  revoke(
    target:
      | { readonly user: string; readonly session?: string | undefined }
      | { readonly visitor: string },
  ): Promise<{ readonly ok: true } | Refusal>;
  /** Closes the store. */
  close(): Promise<void>;
}

/** What the other rooms of the house use of a gate. */
export interface GateParts {
  readonly authenticator: Authenticator;
  /** Left out: users have no cookie. */
  readonly userSessions: UserSessions | undefined;
  readonly tickets: Tickets;
  readonly revocations: Revocations;
  readonly live: Live;
  readonly store: TicketStore;
  readonly policy: RequestPolicy;
  readonly clock: Clock;
  readonly log: Log;
  readonly randomBytes: (length: number) => Uint8Array;
  admit(incoming: Incoming): Promise<Admission | Refusal>;
  handle(incoming: Incoming): Response | Promise<Response>;
}

const parts = new WeakMap<object, GateParts>();

/** The parts of a gate. Throws a `TypeError` for anything that `createGate` didn't make. */
export function partsOf(gate: Gate<never> | Gate): GateParts {
  const found = typeof gate === "object" && gate !== null ? parts.get(gate) : undefined;
  if (!found) throw new TypeError("A gate is required, as createGate returns it");
  return found;
}

/**
 * Makes a gate. Throws a `TypeError` or `RangeError` that names the option for anything that can't be used.
 *
 * @example
 * const gate = createGate({
 *   users: { secret: process.env.JWT_SECRET! },
 *   visitors: { secret: process.env.SESSION_SECRET! },
 * });
 */
export function createGate<Claims = unknown>(options: GateOptions<Claims>): Gate<Claims> {
  const clock = requireMethods(options.clock ?? systemClock, "clock", [
    "nowMs",
    "monotonicMs",
    "every",
    "after",
  ]);
  for (const name of ["log", "randomBytes"] as const) {
    if (options[name] !== undefined && typeof options[name] !== "function") {
      throw new TypeError(`Option ${name} must be a function`);
    }
  }
  const log = options.log ?? consoleLog(clock);
  const randomBytes =
    options.randomBytes ?? ((length) => crypto.getRandomValues(new Uint8Array(length)));
  const store = requireMethods(options.store ?? memoryTicketStore({ clock }), "store", [
    "put",
    "take",
    "revoke",
    "isRevoked",
    "close",
  ]);
  const basePath = requireBasePath(options.basePath ?? BASE_PATH);
  const policy = { ...readPolicy(options, basePath), onSuspicion: createSuspicionLog(log) };
  const live = createLive({ clock });
  const revocations = createRevocations({ store, live, clock, log });
  const visitors = readVisitors(options, { publicPath: publicPathOf(policy), clock, randomBytes });
  const users = readUsers(options.users, { clock, log });
  if (options.userSessions && typeof users !== "function") {
    throw new TypeError("Option userSessions needs users with a secret, a jwksUrl or publicKeys");
  }
  const userSessions =
    options.userSessions &&
    createUserSessions({
      ...requireSecrets(options.userSessions, "userSessions"),
      publicPath: publicPathOf(policy),
      clock,
    });
  const ticketsPerMinute = requireWhole(options.ticketsPerMinute ?? 60, "ticketsPerMinute", {
    least: 0,
    most: 1_000_000,
  });
  const authenticator = createAuthenticator({
    users,
    visitors,
    userSessions,
    revocations,
    visitsPerMinute: ticketsPerMinute,
    clock,
    log,
  });
  const tickets = createTickets({
    store,
    ttlMs: requireWhole(options.ticketTtlMs ?? 30_000, "ticketTtlMs", {
      least: 1_000,
      most: 300_000,
    }),
    limit: createRateLimit<string>({
      allowed: ticketsPerMinute,
      windowMs: 60_000,
      clock,
    }),
    signer: createSigner(readTicketSecrets(options), MARK_PURPOSE),
    clock,
    log,
    randomBytes,
  });
  const handle = createGateRoutes({
    basePath,
    authenticator,
    tickets,
    visitors,
    userSessions,
    revocations,
    clock,
    log,
    usersHaveCookies: typeof users !== "function",
  });
  const admitIncoming = (incoming: Incoming) =>
    admit(incoming, { authenticator, tickets, revocations });

  const gate: Gate<Claims> = {
    basePath,
    async fetch(request, connection) {
      const read = readRequest(request, policy, connection);
      if (!read.ok) return refusalResponse(read);
      const { incoming } = read;
      const isOwn = incoming.url.pathname.startsWith(`${basePath}/`);
      return isOwn ? handle(incoming) : refusalResponse(refuse("not_found"), headersFor(incoming));
    },
    issue: async ({ purpose, ...credential }) =>
      tickets.issue(toIdentity(credential, clock.nowMs()), purpose),
    async redeem(ticket, { purpose } = {}) {
      const redeemed = (await revocations.areFollowed())
        ? await tickets.redeem(ticket, purpose)
        : refuse("store_unavailable");
      return redeemed.ok ? { ok: true, identity: redeemed.identity as Identity<Claims> } : redeemed;
    },
    async admit(request, connection) {
      const read = readRequest(request, policy, connection);
      if (!read.ok) return read;
      return (await admitIncoming(read.incoming)) as Admission<Claims> | Refusal;
    },
    follow(identity, onEnd) {
      requireFeed(store);
      const connection = {
        identity,
        key: identityKey(identity),
        end(close: Close) {
          live.remove(connection);
          // A throw would leave the other connections open.
          try {
            onEnd(close);
          } catch (error) {
            log("error", "socket_failed", { ...identityFields(identity), code: faultCode(error) });
          }
        },
      };
      live.add(connection);
      return () => live.remove(connection);
    },
    async revoke(target) {
      if (typeof target !== "object" || target === null) {
        throw new TypeError("A user or a visitor is required");
      }
      if ("visitor" in target) {
        if (!isVisitorId(target.visitor)) throw new TypeError("Option visitor must be an id");
        return revocations.endAll({ kind: "visitor", id: target.visitor });
      }
      const { user, session } = target;
      if (!isUserId(user)) throw new TypeError("Option user must be an id");
      if (session !== undefined && !isLine(session, MAX_SESSION_LENGTH)) {
        throw new TypeError(
          `Option session must be a string of 1 to ${MAX_SESSION_LENGTH} characters`,
        );
      }
      return session === undefined
        ? revocations.endAll({ kind: "user", id: user })
        : revocations.endSession({ id: user, session });
    },
    async close() {
      live.close();
      await store.close();
    },
    [Symbol.asyncDispose]: () => gate.close(),
  };
  parts.set(gate, {
    authenticator,
    userSessions,
    tickets,
    revocations,
    live,
    store,
    policy,
    clock,
    log,
    randomBytes,
    admit: admitIncoming,
    handle,
  });
  return gate;
}

/** Throws when sign-outs by other processes would go unnoticed. */
export function requireFeed(store: TicketStore): void {
  if (store.revocations !== "unavailable") return;
  throw new Error(
    "This gate's store doesn't receive the sign-outs of other processes, so sockets would outlive them: use openRedis of ws-ticket/bun",
  );
}

function consoleLog(clock: Clock): Log {
  return createLog({ level: "warn", clock, write: (line) => console.log(line.trimEnd()) });
}

/** What to set, by what requests look like. */
const ADVICE: Readonly<Record<Suspicion, { variable: string; note: string }>> = {
  proxy: {
    variable: "TRUST_PROXY",
    note: "Requests come through a proxy on this machine, and no address is told from another: set TRUST_PROXY=1, or trustProxy: 1",
  },
  public_url: {
    variable: "PUBLIC_URL",
    note: "A page of this server's own was refused, whose origin isn't the expected one: set PUBLIC_URL to the URL that browsers see, or publicUrl",
  },
};

/** Warns of each suspicion once. */
function createSuspicionLog(log: Log): (suspicion: Suspicion, origins?: Origins) => void {
  const known = new Set<Suspicion>();
  return (suspicion, origins) => {
    if (known.has(suspicion)) return;
    known.add(suspicion);
    log("warn", "setting_warning", {
      ...ADVICE[suspicion],
      ...(origins && { origin: origins.seen, expected: origins.expected }),
    });
  };
}
