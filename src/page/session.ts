import type { ChatService } from "../chat/chat.ts";
import type { GateParts } from "../gate/gate.ts";
import type { Identified } from "../gate/ticket.ts";
import { type ProvedByToken, readBearer } from "../gate/token.ts";
import { createRateLimit } from "../lib/limit.ts";
import { faultCode } from "../lib/log.ts";
import { emptyResponse, headersFor, jsonResponse, type Sharing } from "../request/incoming.ts";
import { publicPathOf } from "../request/origin.ts";
import { type Refusal, refuse, refuseFor, refuseToken } from "../request/refusal.ts";
import { declined, type RouteContext, type Routes } from "../request/routes.ts";
import { INBOX_PREFIX, INBOX_SESSION_PATH } from "../wire/paths.ts";

/** Exchanges of a JWT for the cookie, per user and minute. */
const EXCHANGES_PER_MINUTE = 60;
/** Looks at whose session it is, per address and minute, loopback excepted. */
const LOOKS_PER_MINUTE = 600;
/** Most fields of a form: reading thousands takes milliseconds. */
const MAX_FIELDS = 16;
/** The host's app may hand a JWT over from its own pages. */
const SHARING: Sharing = { methods: "GET,POST", credentials: true };

/** Adds the route where a user's JWT is exchanged, once, for the cookie of the inbox; none where there is no such cookie. */
export function addInboxSession(
  routes: Routes,
  parts: Pick<GateParts, "authenticator" | "userSessions" | "revocations" | "clock" | "log">,
  profiles: ChatService["profiles"],
): void {
  const { authenticator, userSessions: sessions, revocations, clock, log } = parts;
  if (!sessions) return;
  const perMinute = { windowMs: 60_000, clock };
  const exchanges = createRateLimit<string>({ allowed: EXCHANGES_PER_MINUTE, ...perMinute });
  const looks = createRateLimit<string>({ allowed: LOOKS_PER_MINUTE, ...perMinute });

  async function unlessRevoked(user: Identified | Refusal): Promise<Identified | Refusal> {
    if (!user.ok) return user;
    const revoked = await revocations.isRevoked(user.identity);
    if (revoked === "unknown") return refuse("store_unavailable");
    return revoked ? refuseToken("revoked") : user;
  }

  routes.add(
    INBOX_SESSION_PATH,
    {
      async POST(c) {
        const { incoming } = c.env;
        const token = await readExchange(c);
        if (!token.ok) return no(c, token);
        const proved = await authenticator.bearer(incoming, token.token);
        const waitMs = proved.ok ? exchanges.take(proved.identity.id) : 0;
        const user = waitMs > 0 ? refuseFor(waitMs) : await unlessRevoked(proved);
        if (!user.ok) return no(c, user);
        const cookie = await sessions.issue(user.identity, { secure: incoming.isSecure });
        if (cookie === undefined) return no(c, refuseToken("expired"));
        if (proved.ok) await keepProfile(proved);
        log("info", "session_issued", { user: user.identity.id });
        const headers = { ...headersFor(incoming, SHARING), "Set-Cookie": cookie };
        if (!token.isForm) return emptyResponse(headers);
        const Location = publicPathOf(incoming.policy) + INBOX_PREFIX;
        return new Response(null, { status: 303, headers: { ...headers, Location } });
      },

      /** Whose session it is. Nobody's is no failure: a page asks before it offers to sign in. */
      async GET(c) {
        const { incoming } = c.env;
        const { limitKey } = incoming;
        const waitMs = limitKey === undefined ? 0 : looks.take(limitKey);
        if (waitMs > 0) return no(c, refuseFor(waitMs));
        const user = await unlessRevoked(await authenticator.user(incoming));
        const isNobody = !user.ok && (user.code === "session_refused" || user.fault === "revoked");
        if (!user.ok && !isNobody) return no(c, user);
        return jsonResponse(await whoIs(user), headersFor(incoming, SHARING));
      },
    },
    SHARING,
  );

  async function whoIs(user: Identified | Refusal): Promise<object> {
    if (!user.ok) return { user: null };
    const { id, expiresAtMs } = user.identity;
    const expiresInSeconds = Math.floor((expiresAtMs - clock.nowMs()) / 1000);
    const profile = await profiles.profile(id).catch(failed);
    return { user: id, ...profile, expiresInSeconds };
  }

  async function keepProfile({ identity, profile }: ProvedByToken): Promise<void> {
    await profiles.setProfile(identity.id, profile).catch(failed);
  }

  /** Nobody is kept out because a name can't be stored or read. */
  function failed(error: unknown): undefined {
    log("error", "chat_failed", { code: faultCode(error) });
  }

  function no(c: RouteContext, refusal: Refusal): Response {
    return declined(c, refusal, log, SHARING);
  }
}

/**
 * The JWT to be exchanged: in the `Authorization` header, or as `token` in a form that a page of an allowed origin
 * has sent the browser with. From another site it has to be a form, or browsers don't keep the cookie.
 */
async function readExchange(
  c: RouteContext,
): Promise<{ readonly ok: true; readonly token: string; readonly isForm: boolean } | Refusal> {
  const { request, origin } = c.env.incoming;
  // Otherwise any page could open an inbox of its own in this browser.
  if (origin === "foreign") return refuse("origin_refused");
  const header = request.headers.get("authorization");
  if (header !== null) {
    const read = readBearer(header);
    return read.ok ? { ...read, isForm: false } : read;
  }
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/x-www-form-urlencoded(?:;|$)/i.test(type)) return refuse("token_missing");
  if (origin !== "allowed") return refuse("origin_refused");
  const form = await c.req.raw.text();
  if (form.split("&", MAX_FIELDS + 1).length > MAX_FIELDS) return refuse("malformed_request");
  const [token, ...others] = new URLSearchParams(form).getAll("token");
  if (others.length > 0) return refuse("malformed_request");
  return token ? { ok: true, token, isForm: true } : refuse("token_missing");
}
