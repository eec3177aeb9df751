import { type Refusal, refuse } from "./refusal.ts";

/** Longest target that is parsed, in characters: host, path and query together. */
const MAX_URL_LENGTH = 8_192;
/** Most parameters in a query. */
const MAX_PARAMETERS = 64;
/** Longest parameter name that can mean a credential, in characters, percent-encoded or not. */
const MAX_CREDENTIAL_NAME_LENGTH = 256;
/** Most parameters whose names aren't plain ASCII: finding out what they mean takes many times longer. */
const MAX_ODD_NAMES = 8;
/** Percent-encoding is undone at most this many times: a proxy's next hop may decode, too. */
const MAX_DECODINGS = 3;

/**
 * Parameter names that carry credentials elsewhere, without case and punctuation. None of them is a way in
 * here, and a request with one has already leaked it to every log on its way.
 */
const CREDENTIAL_NAMES: ReadonlySet<string> = new Set(
  (
    "token accesstoken idtoken refreshtoken authtoken bearertoken usertoken jwt jwttoken bearer auth " +
    "authorization apikey password secret wsticket anonsessionid anonsession hostanonsessionid anonid " +
    "session sessionid sessiontoken sid cookie"
  ).split(" "),
);

/** Stands for the host of a request without one, as HTTP/1.0 allows it: nobody's name (RFC 6761), so that it has no origin. */
const NO_HOST = "host.invalid";

/** The request's URL; `malformed_request` for a target and `Host` that make none, or one that is too long. */
export function parseUrl(request: Request): { readonly ok: true; readonly url: URL } | Refusal {
  const { url, headers } = request;
  // Bun joins two Host lines with a comma.
  if (url.length > MAX_URL_LENGTH || headers.get("host")?.includes(",")) {
    return refuse("malformed_request");
  }
  const hasNoHost = url.startsWith("/") && !headers.has("host");
  try {
    // Not URL.parse, which is several times slower in Bun.
    return { ok: true, url: new URL(hasNoHost ? `http://${NO_HOST}${url}` : url) };
  } catch {
    return refuse("malformed_request");
  }
}

/** Whether a request was sent without a host. */
export function isWithoutHost({ hostname }: URL): boolean {
  return hostname === NO_HOST;
}

/**
 * The `ticket` parameter, if there is one. `credential_in_url` for a credential under another name, in any
 * spelling, or a JWT as the ticket; `malformed_request` for two tickets, or too many parameters.
 */
export function readTicket(
  url: URL,
): { readonly ok: true; readonly ticket: string | undefined } | Refusal {
  if (url.search === "") return { ok: true, ticket: undefined };
  // Counted before they are parsed, which takes longer.
  if (url.search.split("&", MAX_PARAMETERS + 1).length > MAX_PARAMETERS) {
    return refuse("malformed_request");
  }
  const tickets: string[] = [];
  let oddNames = 0;
  for (const [name, value] of url.searchParams) {
    if (!isPlain(name) && ++oddNames > MAX_ODD_NAMES) return refuse("malformed_request");
    if (name === "ticket") tickets.push(value);
    else if (isCredentialName(name) || isJwt(value)) return refuse("credential_in_url");
  }
  if (tickets.some((ticket) => isJwt(ticket) || /^[\w-]+\.[\w-]+\./.test(ticket))) {
    return refuse("credential_in_url");
  }
  if (tickets.length > 1) return refuse("malformed_request");
  return { ok: true, ticket: tickets[0] };
}

/** Whether a name has nothing to decode: ASCII without percent-encoding. */
function isPlain(name: string): boolean {
  return !/[^\0-\x7f]|%/.test(name);
}

/** Whether a parameter's name means a credential, including other spellings of `ticket`. */
function isCredentialName(name: string): boolean {
  if (name.length > MAX_CREDENTIAL_NAME_LENGTH) return false;
  const plain = (isPlain(name) ? name : decode(name)).toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  return plain === "ticket" || CREDENTIAL_NAMES.has(plain);
}

/** A name without its percent-encoding, and with plain letters for their look-alikes. */
function decode(name: string): string {
  let decoded = name;
  for (let round = 0; round < MAX_DECODINGS && decoded.includes("%"); round++) {
    decoded = new URLSearchParams(`name=${decoded.replaceAll("&", "")}`).get("name") ?? "";
  }
  return decoded.normalize("NFKC");
}

/** Whether a value has the form of a JWT: base64url of an object, twice, and a signature. */
function isJwt(value: string): boolean {
  return /^\s*(?:bearer\s+)?e[wy][\w-]+\.[\w-]+\.[\w-]*/i.test(value);
}
