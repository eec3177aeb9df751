/** What can be wrong with a server of somebody else's. */
export type Flaw =
  | "accepts a token in the URL"
  | "accepts any origin"
  | "accepts origins that start right"
  | "accepts padding"
  | "accepts the parameter in capitals"
  | "accepts whoever comes"
  | "accepts unmasked cookies"
  | "accepts a cookie without an origin"
  | "allows every origin to read"
  | "echoes the origin"
  | "echoes subprotocols"
  | "echoes the path"
  | "echoes the token"
  | "falls back to the cookie"
  | "forgets no ticket"
  | "forgets tickets late"
  | "forgets tickets for a plain GET"
  | "forgets tickets for a foreign origin"
  | "has another instance"
  | "takes turns with another instance"
  | "has no HttpOnly"
  | "has no SameSite"
  | "has no Secure"
  | "has no __Host-"
  | "has no HSTS"
  | "issues to a cookie"
  | "issues to a body"
  | "issues to anybody"
  | "issues to a GET"
  | "issues to alg none"
  | "issues to a changed signature"
  | "issues UUIDs"
  | "issues numbers"
  | "issues JWTs"
  | "issues for an hour"
  | "keeps tickets beyond their end"
  | "lets caches keep tickets"
  | "limits by a header"
  | "limits everybody together"
  | "cuts off quiet sockets"
  | "cuts off binary frames"
  | "takes 16 MB";

/** The only token that it knows. */
export const CARELESS_TOKEN = [
  Buffer.from('{"alg":"HS256","typ":"JWT"}').toString("base64url"),
  Buffer.from('{"sub":"alice","exp":4102444800}').toString("base64url"),
  "c2lnbmF0dXJlLW9mLW5vYm9keS1idXQtbG9uZw",
].join(".");

/** Visitors per minute. */
const SESSIONS = 10;
/** A quiet socket's life, in milliseconds. */
const QUIET_MS = 60;

/** A server of somebody else's: its own paths and names, and no line of ours. */
export interface Careless extends AsyncDisposable {
  readonly url: URL;
  /** Every ticket and cookie that it ever made. */
  readonly secrets: readonly string[];
}

/** Starts one that is as it should be, but for its flaws. */
export function startCareless(
  flaws: readonly Flaw[] = [],
  { hostname = "127.0.0.1", tls }: { hostname?: string; tls?: { key: string; cert: string } } = {},
): Careless {
  const has = (flaw: Flaw) => flaws.includes(flaw);
  const tickets = new Map<string, number>();
  const secrets: string[] = [];
  const visits = new Map<string, number>();
  let mints = 0;
  const met = new Set<string>();
  const timers = new Set<Timer>();

  function newTicket(): string {
    mints++;
    if (has("issues UUIDs")) return crypto.randomUUID();
    if (has("issues numbers")) return String(1_000_000_000 + mints);
    const random = crypto.getRandomValues(new Uint8Array(32)).toBase64({
      ...{ alphabet: "base64url", omitPadding: true },
    });
    return has("issues JWTs") ? `eyJhbGciOiJIUzI1NiJ9.${random}.${random}` : random;
  }

  function headers(request: Request, more: Record<string, string> = {}): Record<string, string> {
    const origin = request.headers.get("origin");
    return {
      ...(tls && !has("has no HSTS") && { "Strict-Transport-Security": "max-age=31536000" }),
      ...(!has("lets caches keep tickets") && { "Cache-Control": "no-store" }),
      ...(has("allows every origin to read") && { "Access-Control-Allow-Origin": "*" }),
      ...(has("echoes the origin") &&
        origin && {
          "Access-Control-Allow-Origin": origin,
          "Access-Control-Allow-Credentials": "true",
        }),
      ...more,
    };
  }

  /** Whether a request may have a ticket. */
  async function isKnown(request: Request): Promise<boolean> {
    if (has("issues to anybody")) return true;
    const authorization = request.headers.get("authorization") ?? "";
    const cookie = request.headers.get("cookie") ?? "";
    if (authorization === `Bearer ${CARELESS_TOKEN}`) return true;
    if (has("issues to a cookie") && cookie.includes(CARELESS_TOKEN)) return true;
    if (has("issues to a body") && (await request.text()).includes(CARELESS_TOKEN)) return true;
    const [head = "", payload, signature] = authorization.replace("Bearer ", "").split(".");
    if (has("issues to alg none") && signature === "") return atob(head).includes("none");
    const isSame = CARELESS_TOKEN.startsWith(`${head}.${payload}.`) && signature;
    return Boolean(has("issues to a changed signature") && payload && isSame);
  }

  async function mint(request: Request): Promise<Response> {
    const isRead = request.method === "GET" && has("issues to a GET");
    if (request.method !== "POST" && !isRead) {
      return new Response(null, { status: 405, headers: headers(request) });
    }
    if (!(await isKnown(request))) {
      const sent = request.headers.get("authorization") ?? "";
      const body = has("echoes the token") ? `Bad token: ${sent}` : "no";
      return new Response(body, { status: 401, headers: headers(request) });
    }
    const ticket = newTicket();
    secrets.push(ticket);
    const lifeSeconds = has("keeps tickets beyond their end") ? 1 : 30;
    const isLong = has("issues for an hour");
    tickets.set(ticket, Date.now() + lifeSeconds * 1000);
    const body = { data: { "the/ticket": ticket }, expires_in: isLong ? 3_600 : lifeSeconds };
    return Response.json(body, { headers: headers(request) });
  }

  function mac(id: string): string {
    return new Bun.CryptoHasher("sha256", "a secret of its own").update(id).digest("hex");
  }

  function visit(request: Request): Response {
    const address = has("limits by a header")
      ? (request.headers.get("x-forwarded-for") ?? "direct")
      : "everybody";
    const count = (visits.get(address) ?? 0) + 1;
    visits.set(address, count);
    const isLimited = has("limits by a header") || has("limits everybody together");
    if (isLimited && count > SESSIONS) return new Response(null, { status: 429 });
    const id = crypto.getRandomValues(new Uint8Array(16)).toHex();
    const value = `${id}.${mac(id)}`;
    secrets.push(value);
    const prefix = tls && !has("has no __Host-") ? "__Host-" : "";
    const cookie = [
      `${prefix}vid=${value}; Path=/`,
      ...(has("has no HttpOnly") ? [] : ["HttpOnly"]),
      ...(has("has no SameSite") ? [] : ["SameSite=Strict"]),
      ...(tls && !has("has no Secure") ? ["Secure"] : []),
    ].join("; ");
    return new Response(null, { status: 204, headers: headers(request, { "Set-Cookie": cookie }) });
  }

  function isGoodCookie(request: Request): boolean {
    const [, id = "", signature] =
      /vid=([\da-f]+)\.([\da-f]+)/.exec(request.headers.get("cookie") ?? "") ?? [];
    return id !== "" && (signature === mac(id) || has("accepts unmasked cookies"));
  }

  function isGoodOrigin(request: Request): boolean {
    const origin = request.headers.get("origin");
    const own = `${tls ? "https" : "http"}://${request.headers.get("host")}`;
    if (origin === null || has("accepts any origin")) return true;
    return has("accepts origins that start right") ? origin.startsWith(own) : origin === own;
  }

  async function take(ticket: string): Promise<boolean> {
    const name = has("accepts padding") ? ticket.replaceAll(/[ =]/g, "") : ticket;
    const endsAtMs = tickets.get(name);
    if (endsAtMs === undefined) return false;
    if (has("forgets tickets late")) await Bun.sleep(5);
    if (!has("forgets no ticket")) tickets.delete(name);
    return has("keeps tickets beyond their end") || endsAtMs > Date.now();
  }

  async function isAdmitted(request: Request, query: URLSearchParams): Promise<boolean> {
    if (has("accepts whoever comes")) return true;
    if (has("accepts a token in the URL") && query.get("token") === CARELESS_TOKEN) return true;
    const values = query.getAll("t");
    if (has("accepts the parameter in capitals")) values.push(...query.getAll("T"));
    const [ticket, ...others] = values;
    // Some of its tickets are stored where this instance doesn't look.
    if (has("has another instance") && mints > 14 && mints % 2 === 0) return false;
    // The first handshake with each of them meets one that doesn't know it.
    if (has("takes turns with another instance") && ticket && !met.has(ticket)) {
      met.add(ticket);
      return false;
    }
    const isCookieAllowed =
      (request.headers.has("origin") || has("accepts a cookie without an origin")) &&
      isGoodCookie(request);
    if (ticket === undefined) return isCookieAllowed;
    if (others.length === 0 && (await take(ticket))) return true;
    return has("falls back to the cookie") && isCookieAllowed;
  }

  async function connect(request: Request, url: URL): Promise<Response | undefined> {
    const { headers: sent } = request;
    const no = (status: number) => new Response(null, { status, headers: headers(request) });
    const isHandshake =
      sent.get("upgrade") === "websocket" &&
      sent.get("sec-websocket-version") === "13" &&
      sent.has("sec-websocket-key");
    const ticket = url.searchParams.get("t") ?? "";
    if (!isHandshake) {
      if (has("forgets tickets for a plain GET")) await take(ticket);
      return no(400);
    }
    if (!isGoodOrigin(request)) {
      if (has("forgets tickets for a foreign origin")) await take(ticket);
      return no(403);
    }
    if (!(await isAdmitted(request, url.searchParams))) return no(401);
    const protocol = has("echoes subprotocols") ? {} : { "Sec-WebSocket-Protocol": "" };
    return server.upgrade(request, { headers: protocol }) ? undefined : no(400);
  }

  const server: Bun.Server<undefined> = Bun.serve({
    hostname,
    port: 0,
    development: false,
    ...(tls && { tls }),
    async fetch(request) {
      const url = new URL(request.url);
      if (url.pathname === "/base/mint") return mint(request);
      if (url.pathname === "/base/visit" && request.method === "POST") return visit(request);
      if (url.pathname === "/base/live") return connect(request, url);
      const body = has("echoes the path") ? `Cannot ${request.method} ${url.pathname}` : "no";
      return new Response(body, { status: 404, headers: headers(request) });
    },
    websocket: {
      maxPayloadLength: has("takes 16 MB") ? 32 * 1024 * 1024 : 16_384,
      idleTimeout: 0,
      open(socket) {
        if (!has("cuts off quiet sockets")) return;
        const timer = setTimeout(() => socket.terminate(), QUIET_MS);
        timers.add(timer);
      },
      message(socket, message) {
        if (typeof message === "string") return;
        if (has("cuts off binary frames")) socket.terminate();
        else socket.close(1003);
      },
    },
  });

  return {
    url: new URL("/base/", server.url),
    secrets,
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearTimeout(timer);
      await server.stop(true);
    },
  };
}
