import { type Finding, Skipped } from "./finding.ts";
import { FOREIGN, found } from "./issuing.ts";
import { type Exchange, pairOf, type Target, valueOf } from "./target.ts";

/** Longest life of a cookie that browsers keep, in seconds (RFC 6265bis 5.5). */
const MAX_COOKIE_SECONDS = 400 * 86_400;

/** Origins that look like the right one, or like what a careless comparison lets pass. */
function lookAlikes(own: string): string[] {
  const { protocol, hostname, host, port } = new URL(own);
  const other = protocol === "https:" ? "http:" : "https:";
  return [
    FOREIGN,
    "null",
    `${own}.foreign.example`,
    `${protocol}//foreign-${host}`,
    `${protocol}//${hostname}.foreign.example`,
    `${protocol}//${host}@foreign.example`,
    `${other}//${host}`,
    `${protocol}//${hostname}:${port === "1" ? "2" : "1"}`,
  ];
}

export async function refusesForeignPages(target: Target): Promise<Finding[]> {
  const { origin } = target.options;
  const findings: Finding[] = [];
  const accepted: string[] = [];
  let first: Exchange | undefined;
  let ticket = await target.ticket();
  for (const foreign of lookAlikes(origin)) {
    const handshake = await target.knock({ ticket }, { Origin: foreign });
    if (handshake.status === 101) {
      first ??= handshake;
      accepted.push(foreign);
    }
    if (handshake.status === 101 || target.spendsRefused) ticket = await target.ticket();
  }
  const mend =
    "Compare Origin with a list, string for string and without parsing, before the ticket is looked at: 403";
  if (first) {
    findings.push(
      found("origin", first, {
        title: `A page of ${accepted[0]}${accepted.length > 1 ? ` and ${accepted.length - 1} more like it` : ""} may open a socket`,
        why: "A page of somebody else's uses whatever the browser of its visitor brings along",
        references: ["ASVS 4.4.2", "RFC 6455 10.2"],
        mend,
      }),
    );
  }
  const cookie = await target.visitor().catch(unlessSkipped);
  if (cookie === undefined) return findings;
  for (const [name, Origin] of [
    ["of a foreign page", FOREIGN],
    ["without Origin", null],
  ] as const) {
    const handshake = await target.knock("", { Cookie: cookie, Origin });
    if (handshake.status !== 101) continue;
    findings.push(
      found("origin", handshake, {
        title: `A handshake ${name} gets in with the cookie`,
        why: "Cross-site WebSocket hijacking: any page connects as whoever visits it, and reads what comes",
        references: ["ASVS 4.4.2", "ASVS 3.5.1", "RFC 6455 10.2"],
        mend,
      }),
    );
  }
  return findings;
}

/** `undefined` for a check that can't be made; anything else goes on. */
function unlessSkipped(error: unknown): undefined {
  if (!(error instanceof Skipped)) throw error;
}

export async function isOutOfReach(target: Target): Promise<Finding[]> {
  const session = await target.session();
  const findings: Finding[] = [];
  for (const cookie of session.header("set-cookie")) {
    for (const [title, why, references, mend] of flaws(cookie, target.isEncrypted)) {
      const received = `${session.received}\nSet-Cookie: ${target.show(cookie)}`;
      findings.push(found("cookie", { ...session, received }, { title, why, references, mend }));
    }
  }
  const genuine = await target.visitor().catch(unlessSkipped);
  if (genuine === undefined) return findings;
  const forged = session
    .header("set-cookie")
    .map((cookie) => `${pairOf(cookie).slice(0, -valueOf(cookie).length)}${forge(valueOf(cookie))}`)
    .join("; ");
  const handshake = await target.knock("", { Cookie: forged });
  if (handshake.status !== 101) return findings;
  findings.push(
    found("cookie", handshake, {
      title: "A cookie that the server never set is accepted",
      why: "Anybody is any visitor: an id that is seen or guessed is enough",
      references: ["ASVS 7.2.1", "ASVS 7.2.3"],
      mend: "Sign the id (an HMAC over purpose, id and time), and verify it in constant time",
    }),
  );
  return findings;
}

type Flaw = readonly [title: string, why: string, references: readonly string[], mend: string];

function flaws(cookie: string, isEncrypted: boolean): Flaw[] {
  const name = cookie.split("=")[0] as string;
  const attributes = new Map(
    cookie
      .split(";")
      .slice(1)
      .map((part) => {
        const [key = "", value = ""] = part.split("=");
        return [key.trim().toLowerCase(), value.trim()] as const;
      }),
  );
  const sameSite = attributes.get("samesite")?.toLowerCase();
  const found: Flaw[] = [];
  if (!attributes.has("httponly")) {
    const why = "A script in the page reads it, and sends it away";
    found.push([`${name} isn't HttpOnly`, why, ["ASVS 3.3.4"], "HttpOnly"]);
  }
  if (sameSite !== "lax" && sameSite !== "strict") {
    const why = "Pages of other sites send it along, as they like";
    found.push([`${name} has no SameSite=Lax or Strict`, why, ["ASVS 3.3.2"], "SameSite=Lax"]);
  }
  if (Number(attributes.get("max-age") ?? 0) > MAX_COOKIE_SECONDS) {
    const why = "Browsers cut it, and whoever copies it has it for ever";
    found.push([`${name} lives more than 400 days`, why, ["RFC 6265bis 5.5"], "Max-Age=2592000"]);
  }
  if (!isEncrypted) return found;
  if (!attributes.has("secure")) {
    const why = "It is sent over plain http, too, where anybody on the way reads it";
    found.push([`${name} isn't Secure`, why, ["ASVS 3.3.1"], "Secure"]);
  }
  if (!name.startsWith("__Host-")) {
    const why = "A sibling host, or somebody on the way, sets a cookie of the same name";
    const mend = `__Host-${name}, with Secure, Path=/ and no Domain`;
    found.push([`${name} has no __Host- prefix`, why, ["ASVS 3.3.1", "ASVS 3.3.3"], mend]);
  }
  return found;
}

/** The same value with another character in its middle, of the same kind. */
function forge(value: string): string {
  const at = Math.floor(value.length / 2);
  const before = value[at] ?? "";
  const after = /\d/.test(before) ? (before === "7" ? "3" : "7") : before === "a" ? "b" : "a";
  return value.slice(0, at) + after + value.slice(at + 1);
}

export async function refusesBadTickets(target: Target): Promise<Finding[]> {
  const cookie = await target.visitor();
  const { parameter } = target.options;
  for (const query of [`${parameter}=${"A".repeat(43)}`, `${parameter}=`]) {
    const handshake = await target.knock(query, { Cookie: cookie });
    if (handshake.status !== 101) continue;
    return [
      found("downgrade", handshake, {
        title: "A bad ticket is let in by the cookie",
        why: "Whose ticket has expired goes on as a stranger, without a word, and writes under a wrong name",
        references: ["ASVS 2.2.3", "ASVS 16.5.3"],
        mend: "Where there is a ticket it alone decides: a bad one is refused",
      }),
    ];
  }
  return [];
}
