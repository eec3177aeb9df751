import { type CheckId, type Finding, Skipped } from "./finding.ts";
import { type Ask, type Exchange, type Target, valueAt } from "./target.ts";
import type { WireResponse } from "./wire.ts";

/** Least random bits of a ticket (OWASP ASVS 7.2.3). */
const MIN_BITS = 128;
/** Longest life of a ticket, in seconds: five minutes. */
const MAX_LIFE_SECONDS = 300;
/** Shortest time for which a browser is told to stay on https, in seconds: a year (OWASP ASVS 3.4.1). */
const MIN_HSTS_SECONDS = 31_536_000;
/** Names under which responses say how long a ticket lives, in seconds. */
const LIFE_NAMES = ["expiresIn", "expires_in", "expiresInSeconds", "ttl", "ttlSeconds"];
/** Further instances at which a ticket is tried that the first one refuses. */
const ROUNDS_ELSEWHERE = 3;
/** How to mend tickets that some instances don't know. */
export const ONE_STORE = "One store for all instances (Redis), or one instance";
/** Where nobody's page is. */
export const FOREIGN = "https://foreign.example";

/** A finding about one exchange. */
export function found(
  id: CheckId,
  { sent, received }: Pick<Exchange, "sent" | "received">,
  what: Omit<Finding, "id" | "sent" | "received">,
): Finding {
  return { id, sent, received, ...what };
}

export async function connects(target: Target): Promise<Finding[]> {
  const exchange = await target.askTicket();
  const ticket = target.ticketIn(exchange);
  const why = "Nobody gets in, and nothing that needs a socket can be judged";
  const references = ["RFC 6455 4.2.2"];
  if (ticket === undefined) {
    const { status } = exchange;
    const mend =
      status === 401 || status === 403
        ? "The token isn't accepted: `ws-ticket check --token FILE` says why, claim by claim"
        : status >= 200 && status < 300
          ? "Say where the ticket is in the response: --ticket-pointer"
          : "Say where tickets are issued: --ticket-path";
    return [
      found("connect", exchange, { title: "The token gets no ticket", why, references, mend }),
    ];
  }
  target.minted = exchange;
  const handshake = await target.knock({ ticket });
  if (handshake.status === 101) return [];
  if (handshake.status === 401 && (await worksElsewhere(target, ticket))) {
    const title = "A ticket is refused by one instance and accepted by another";
    return [found("connect", handshake, { title, why, references, mend: ONE_STORE })];
  }
  const mends: Readonly<Record<number, string>> = {
    403: `The server takes pages of ${target.options.origin} for somebody else's: PUBLIC_URL or ALLOWED_ORIGINS is missing or wrong there, or --origin here`,
    404: "Say where sockets are opened: --socket-path",
    401: "Say which parameter has the ticket: --parameter",
  };
  const mend = mends[handshake.status] ?? "The proxy must hand on Upgrade, Connection and HTTP/1.1";
  return [
    found("connect", handshake, { title: "A good ticket opens no socket", why, references, mend }),
  ];
}

/** Whether a ticket that was refused is good at another instance: proxies go round them. */
async function worksElsewhere(target: Target, ticket: string): Promise<boolean> {
  for (let round = 0; round < ROUNDS_ELSEWHERE; round++) {
    if ((await target.knock({ ticket })).status === 101) return true;
  }
  return false;
}

export async function encrypts(target: Target): Promise<Finding[]> {
  if (target.isEncrypted) return [];
  const { hostname } = target.options.url;
  if (/^(?:localhost|127\.|\[::1\])/.test(hostname)) throw new Skipped("loopback");
  return [
    {
      id: "tls",
      title: "Tokens, tickets and messages go in the clear",
      sent: `a connection to port ${target.options.url.port || 80}`,
      received: "http",
      why: "Whoever is on the way reads and changes everything, tokens included",
      references: ["ASVS 4.4.1", "ASVS 12.2.1", "RFC 6455 10.6"],
      mend: "Put a proxy with a certificate in front, and serve https and wss alone",
    },
  ];
}

export async function needsHeader(target: Target): Promise<Finding[]> {
  const { token } = target;
  const [head = "", payload = "", signature = ""] = token.split(".");
  const body = JSON.stringify({ token, access_token: token, jwt: token });
  const json = { "Content-Type": "application/json" };
  const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url");
  const asks: readonly (readonly [title: string, references: readonly string[], ask: Ask])[] = [
    [
      "without any credential",
      ["ASVS 4.4.4", "RFC 6750 2.1"],
      { headers: { Authorization: null } },
    ],
    [
      "for a user name and a password that anybody can make up",
      ["ASVS 4.4.4"],
      { headers: { Authorization: `Basic ${btoa("doctor:doctor")}` } },
    ],
    [
      "for a token in the body alone, which a form of any page can send",
      ["ASVS 3.5.1", "RFC 6750 2.2"],
      { headers: { Authorization: null, ...json }, body },
    ],
    [
      "for a token in a cookie alone, which browsers attach to any page's request",
      ["ASVS 3.5.1", "ASVS 6.3.4"],
      { headers: { Authorization: null, Cookie: `token=${token}; access_token=${token}` } },
    ],
  ];
  const forged: typeof asks =
    signature === ""
      ? []
      : [
          [
            "for a token whose signature was changed",
            ["ASVS 9.1.1"],
            { headers: { Authorization: `Bearer ${head}.${payload}.${changed(signature)}` } },
          ],
          [
            "for a token without a signature (alg none)",
            ["ASVS 9.1.2", "RFC 8725 3.2"],
            { headers: { Authorization: `Bearer ${none}.${payload}.` } },
          ],
        ];
  for (const [, , { headers }] of forged) {
    target.hide(String(headers?.Authorization).slice(7), "forged token");
  }
  const findings: Finding[] = [];
  for (const [title, references, ask] of [...asks, ...forged]) {
    const exchange = await target.askTicket(ask);
    if (target.ticketIn(exchange) === undefined) continue;
    findings.push(
      found("header", exchange, {
        title: `A ticket is issued ${title}`,
        why: "Whoever can't show a valid token gets a ticket, and is a user",
        references,
        mend: "Verify the bearer token of the Authorization header, and nothing else, before a ticket is made",
      }),
    );
  }
  return findings;
}

/** The same text with another character in its middle. */
function changed(text: string): string {
  const at = Math.floor(text.length / 2);
  return text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
}

export async function refusesGet(target: Target): Promise<Finding[]> {
  const exchange = await target.askTicket({ method: "GET" });
  if (target.ticketIn(exchange) === undefined) return [];
  return [
    found("method", exchange, {
      title: "A GET issues a ticket",
      why: "GETs are fetched ahead, repeated and cached, so that a ticket may be in more hands than one",
      references: ["ASVS 3.5.3", "RFC 9110 9.2.1"],
      mend: "Answer everything but POST with 405",
    }),
  ];
}

export async function isRandom(target: Target): Promise<Finding[]> {
  const tickets = [await target.ticket(), await target.ticket(), await target.ticket()];
  const exchange = target.minted as Exchange;
  const [first = ""] = tickets;
  const report = (title: string, why: string, references: string[]) => [
    found("entropy", exchange, {
      title,
      why,
      references,
      mend: "32 bytes of a cryptographic generator, as base64url, and nothing of the user's in them",
    }),
  ];
  if (new Set(tickets).size < tickets.length) {
    const why = "Who has one has the next one, too";
    return report("The same ticket is issued twice", why, ["ASVS 7.2.3"]);
  }
  if (/^ey[\w-]+\.[\w-]+\.[\w-]*$/.test(first)) {
    const why = "Everything that logs URLs knows who it is, and often enough for how long";
    return report("The ticket is a JWT, in a URL", why, ["ASVS 14.2.1"]);
  }
  const bits = randomBits(tickets);
  if (bits >= MIN_BITS) return [];
  return report(
    `A ticket has ${Math.floor(bits)} random bits at most`,
    "The fewer there are, the sooner somebody guesses one that is in use",
    ["ASVS 7.2.3", "ASVS 11.5.1"],
  );
}

/** Random bits that tickets can have at most, by what they have in common and by their alphabet. */
export function randomBits(tickets: readonly string[]): number {
  const [first = ""] = tickets;
  // Version and variant of a random UUID are fixed (RFC 9562 section 5.4).
  if (
    tickets.every((one) =>
      /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/i.test(one),
    )
  ) {
    return 122;
  }
  const isShared = (at: number) => tickets.every((one) => one[at] === first[at]);
  const lasts = tickets.map((one) => [...one].reverse().join(""));
  const isSharedEnd = (at: number) => lasts.every((one) => one[at] === lasts[0]?.[at]);
  let start = 0;
  while (start < first.length && isShared(start)) start++;
  let end = 0;
  while (end < first.length - start && isSharedEnd(end)) end++;
  const random = tickets.map((one) => one.slice(start, one.length - end));
  const text = random.join("");
  const alphabet = /^\d*$/.test(text) ? 10 : /^[\da-f]*$/i.test(text) ? 16 : 64;
  // A few characters of random tickets are equal by chance.
  const byChance = alphabet === 64 ? 2 : 4;
  const length = Math.min(...random.map((one) => one.length)) + byChance;
  return Math.min(length, first.length) * Math.log2(alphabet);
}

/** What a response says of a ticket's life, in seconds. */
export function lifeSeconds({ body }: WireResponse): number | undefined {
  return LIFE_NAMES.map((name) => valueAt(body, `/${name}`)).find(
    (value) => typeof value === "number",
  ) as number | undefined;
}

export async function endsSoon(target: Target): Promise<Finding[]> {
  const exchange = target.minted as Exchange;
  const seconds = lifeSeconds(exchange);
  if (seconds === undefined) throw new Skipped("the response doesn't say; --slow waits for it");
  if (seconds <= MAX_LIFE_SECONDS) return [];
  return [
    found("expiry", exchange, {
      title: `A ticket lives ${seconds} s`,
      why: "The longer it lives, the longer whoever finds it in a log can use it",
      references: ["ASVS 6.5.5"],
      mend: "30 s are enough: the client asks for a ticket right before it connects",
    }),
  ];
}

export async function isNotCached(target: Target): Promise<Finding[]> {
  const exchange = target.minted as Exchange;
  const value = exchange.header("cache-control").join(",");
  if (/\bno-store\b/i.test(value)) return [];
  return [
    found("cache", withHeader(exchange, "Cache-Control", value), {
      title: "The response with the ticket may be kept",
      why: "A cache on the way, or the browser's own, hands the same ticket out again",
      references: ["ASVS 14.2.2", "ASVS 14.3.2", "RFC 9111 5.2.2.5"],
      mend: "Cache-Control: no-store on every response of the API",
    }),
  ];
}

export async function staysEncrypted(target: Target): Promise<Finding[]> {
  if (!target.isEncrypted) throw new Skipped("http");
  const exchange = target.minted ?? (await target.send(target.path("/")));
  const value = exchange.header("strict-transport-security")[0] ?? "";
  const seconds = Number(/(?:^|;) *max-age="?(\d+)/i.exec(value)?.[1] ?? 0);
  if (seconds >= MIN_HSTS_SECONDS) return [];
  return [
    found("hsts", withHeader(exchange, "Strict-Transport-Security", value), {
      title:
        value === ""
          ? "Browsers aren't told to stay on https"
          : "Browsers are told for less than a year to stay on https",
      why: "The first request to the plain name can be intercepted, with its cookies",
      references: ["ASVS 3.4.1", "RFC 6797"],
      mend: "Strict-Transport-Security: max-age=31536000",
    }),
  ];
}

function withHeader(exchange: Exchange, name: string, value: string): Exchange {
  return {
    ...exchange,
    received: `${exchange.received}\n${value ? `${name}: ${value}` : `(no ${name})`}`,
  };
}

export async function isClosedToOthers(target: Target): Promise<Finding[]> {
  const { ticketPath, sessionPath } = target.options;
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
  };
  const findings: Finding[] = [];
  for (const path of [ticketPath, sessionPath].map((one) => target.path(one))) {
    for (const origin of [FOREIGN, "null"]) {
      const asks: Ask[] = [
        { method: "OPTIONS", headers: { Origin: origin, ...preflight } },
        { method: "POST", headers: { Origin: origin } },
      ];
      for (const ask of asks) {
        const exchange = await target.send(path, ask);
        const allowed = exchange.header("access-control-allow-origin")[0] ?? "";
        if (allowed !== "*" && allowed !== origin) continue;
        const credentials = exchange.header("access-control-allow-credentials")[0] === "true";
        findings.push(
          found("cors", withHeader(exchange, "Access-Control-Allow-Origin", allowed), {
            title: `Pages of ${allowed === "*" ? "everybody" : "any origin that is echoed"} may read responses${credentials ? ", with the user's cookies" : ""}`,
            why: "A page that somebody else has made gets tickets and cookies of whoever visits it",
            references: ["ASVS 3.4.2"],
            mend: "Send Access-Control-Allow-Origin for listed origins alone, with Vary: Origin",
          }),
        );
        break;
      }
    }
  }
  return findings;
}

export async function repeatsNothing(target: Target): Promise<Finding[]> {
  const canary = `c4n4ry${crypto.getRandomValues(new Uint8Array(6)).toHex()}`;
  const { ticketPath, socketPath, parameter } = target.options;
  const ticketAt = target.path(ticketPath);
  const socketAt = target.path(socketPath);
  const post = (headers: Record<string, string>, body = ""): Ask => ({
    method: "POST",
    headers,
    body,
  });
  const asks: readonly (readonly [part: string, path: string, ask: Ask])[] = [
    ["the path", target.path(`/${canary}`), {}],
    ["the query", `${ticketAt}?q=${canary}`, post({})],
    ["a bearer token", ticketAt, post({ Authorization: `Bearer ${canary}` })],
    ["a header that can't be read", ticketAt, post({ Authorization: `Bearer "${canary}"<` })],
    ["the body", ticketAt, post({ "Content-Type": "application/json" }, `{"a":${canary}}`)],
    ["the method", ticketAt, { method: canary.toUpperCase() }],
    ["the ticket", `${socketAt}?${parameter}=${canary}`, {}],
    ["the token in a URL", `${socketAt}?token=${canary}`, {}],
  ];
  const findings: Finding[] = [];
  for (const [part, path, ask] of asks) {
    const exchange = await target.send(path, ask);
    if (!exchange.body.toLowerCase().includes(canary)) continue;
    const at = exchange.body.toLowerCase().indexOf(canary);
    const excerpt = target.show(exchange.body.slice(Math.max(0, at - 40), at + 60));
    findings.push(
      found(
        "echo",
        { sent: exchange.sent, received: `${exchange.received}\n…${excerpt}…` },
        {
          title: `A response repeats ${part}`,
          why: "What was sent is often a secret, and ends in logs and screenshots; in a page it may be a script",
          references: ["ASVS 16.5.1", "ASVS 1.2.1"],
          mend: "Answer errors with fixed texts and codes",
        },
      ),
    );
  }
  return findings;
}
