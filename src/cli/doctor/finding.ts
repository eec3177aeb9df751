/** What each check is about, by its stable id: in the order in which they are made. */
export const CHECKS = {
  connect: "A good ticket opens a socket",
  tls: "Everything is encrypted",
  header: "Tickets are issued for the Authorization header alone",
  method: "No GET issues a ticket",
  entropy: "Tickets can't be guessed",
  expiry: "Tickets end soon",
  cache: "Nothing on the way keeps a ticket",
  hsts: "Browsers stay on https",
  cors: "Pages of others can't read responses",
  echo: "Responses repeat nothing of what was sent",
  url: "A JWT in the URL is no way in",
  spent: "A handshake that fails spends no ticket",
  replay: "A ticket works once",
  race: "A ticket works once for sixteen at the same time",
  spelling: "A ticket has one spelling",
  origin: "Pages of others can't open sockets",
  cookie: "The visitor's cookie is out of reach of scripts and of others",
  downgrade: "A bad ticket is refused, however good the cookie",
  subprotocol: "No subprotocol comes back that the server doesn't know",
  frames: "Oversized and malformed frames end the socket, and nothing else",
  http2: "HTTP/2 in front makes no difference",
  instances: "Every instance redeems every ticket",
  idle: "A quiet socket stays open",
  limits: "One address can't do everything at once",
} as const;

/** Names a check, in reports and in scripts that read them. */
export type CheckId = keyof typeof CHECKS;

/** Something that is open. */
export interface Finding {
  readonly id: CheckId;
  /** In a few words. */
  readonly title: string;
  /** The request, without its secrets. */
  readonly sent: string;
  /** The response, without its secrets. */
  readonly received: string;
  /** What somebody can do with it. */
  readonly why: string;
  /** Sections of RFCs, and rows of OWASP ASVS 5.0. */
  readonly references: readonly string[];
  /** How to mend it. */
  readonly mend: string;
}

/** What became of a check. */
export type CheckResult =
  | { readonly id: CheckId; readonly outcome: "good" }
  | { readonly id: CheckId; readonly outcome: "finding"; readonly findings: readonly Finding[] }
  | { readonly id: CheckId; readonly outcome: "skipped"; readonly reason: string };

/** A check can't be made here; the message is the reason. */
export class Skipped extends Error {
  override name = "Skipped";
}
