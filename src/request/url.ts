import { type Refusal, refuse } from "./refusal.ts";

/**
 * Parameter names under which credentials are sent elsewhere, without case and punctuation. None of them is
 * a way in here, and a request that carries one has already leaked it to every log on its way.
 */
const CREDENTIAL_NAMES = new Set([
  ...["token", "accesstoken", "idtoken", "refreshtoken", "authtoken", "bearertoken", "usertoken"],
  ...["jwt", "jwttoken", "bearer", "auth", "authorization", "apikey", "password", "secret"],
  ...["wsticket", "anonsessionid", "anonsession", "hostanonsessionid", "anonid"],
  ...["session", "sessionid", "sessiontoken", "sid", "cookie"],
]);

/** The last request that was asked about, and its URL: several ask in turn, before another one comes. */
let last: { readonly request: Request; readonly url: URL } | undefined;

/** The request's URL; `malformed_request` where target and Host make none (Bun hands those on as they came). */
export function parseUrl(request: Request): { readonly ok: true; readonly url: URL } | Refusal {
  if (last?.request !== request) {
    try {
      // Not URL.parse, which takes Bun several times as long.
      last = { request, url: new URL(request.url) };
    } catch {
      return refuse("malformed_request");
    }
    if (request.headers.get("host")?.includes(",")) {
      last = undefined;
      return refuse("malformed_request");
    }
  }
  return { ok: true, url: last.url };
}

/** The URL of a request that has one: `parseUrl` has let it pass. */
export function urlOf(request: Request): URL {
  const target = parseUrl(request);
  return target.ok ? target.url : new URL(request.url);
}

/**
 * The `ticket` parameter, if there is one. `credential_in_url` for a credential under any other name, in
 * whatever spelling, or a JWT as the ticket; `malformed_request` for two tickets.
 */
export function readTicket(
  url: URL,
): { readonly ok: true; readonly ticket: string | undefined } | Refusal {
  if (url.search === "") return { ok: true, ticket: undefined };
  const tickets: string[] = [];
  for (const [name, value] of url.searchParams) {
    if (name === "ticket") tickets.push(value);
    else if (isCredentialName(name) || isJwt(value)) return refuse("credential_in_url");
  }
  if (tickets.some((ticket) => isJwt(ticket) || /^[\w-]+\.[\w-]+\.[\w-]*$/.test(ticket))) {
    return refuse("credential_in_url");
  }
  if (tickets.length > 1) return refuse("malformed_request");
  return { ok: true, ticket: tickets[0] };
}

/** Whether a parameter's name means a credential: `ticket` itself in another spelling, too. */
function isCredentialName(name: string): boolean {
  let decoded = name;
  // Encoded more than once: not for us to read, but some proxy's next hop would.
  for (let round = 0; round < 3 && decoded.includes("%"); round++) {
    decoded = new URLSearchParams(`name=${decoded.replaceAll("&", "")}`).get("name") ?? "";
  }
  const plain = decoded
    .normalize("NFKC")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]/g, "");
  return plain === "ticket" || CREDENTIAL_NAMES.has(plain);
}

/** Whether a value is written like a JWT: base64url of an object, twice, and a signature. */
function isJwt(value: string): boolean {
  return /^\s*(?:bearer\s+)?e[wy][\w-]+\.[\w-]+\.[\w-]*/i.test(value);
}
