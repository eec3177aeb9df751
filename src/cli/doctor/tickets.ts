import { pause } from "../../lib/clock.ts";
import { type Finding, Skipped } from "./finding.ts";
import { FOREIGN, found, lifeSeconds, ONE_STORE } from "./issuing.ts";
import type { Exchange, Handshake, Target } from "./target.ts";

/** Handshakes at the same time. */
const AT_ONCE = 16;
/** Tickets that are issued and used, one after the other, to meet every instance. */
const ROUNDS = 6;
/** How long a ticket lives where nothing says so, in seconds, and what is waited beyond it. */
const USUAL_LIFE_SECONDS = 60;
const MARGIN_SECONDS = 2;
const BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const ONE_STEP =
  "Read and delete the ticket in one step (GETDEL, or one statement), and let in whoever got it";

export async function refusesTokensInUrl(target: Target): Promise<Finding[]> {
  const { token } = target;
  const { parameter, ticketPath } = target.options;
  const encoded = encodeURIComponent(token);
  const findings: Finding[] = [];
  const report = (exchange: Exchange, name: string) =>
    findings.push(
      found("url", exchange, {
        title: `A JWT in the URL is accepted, as ${name}`,
        why: "URLs are logged by servers, proxies and browsers, and the token is good for hours",
        references: ["ASVS 14.2.1", "RFC 6750 2.3", "RFC 9700 4.3"],
        mend: "Refuse every URL with a credential other than a ticket, before anything else is looked at",
      }),
    );
  for (const name of ["token", "access_token", "jwt", "auth", parameter]) {
    const handshake = await target.knock(`${name}=${encoded}`);
    if (handshake.status === 101) report(handshake, name);
  }
  // Whoever gets one without any token needs none in the URL.
  const bare = await target.send(target.path(ticketPath), { method: "POST" });
  if (target.ticketIn(bare) !== undefined) return findings;
  const path = `${target.path(ticketPath)}?access_token=${encoded}`;
  const exchange = await target.send(path, { method: "POST" });
  if (target.ticketIn(exchange) !== undefined) report(exchange, "access_token");
  return findings;
}

/** A handshake that is refused, and must not cost the ticket. */
interface Failure {
  readonly name: string;
  run(target: Target, ticket: string): Promise<Exchange>;
}

const FAILURES: readonly Failure[] = [
  {
    name: "without Sec-WebSocket-Key",
    run: (target, ticket) => target.knock({ ticket }, { "Sec-WebSocket-Key": null }),
  },
  {
    name: "of another version",
    run: (target, ticket) => target.knock({ ticket }, { "Sec-WebSocket-Version": "8" }),
  },
  { name: "that is a plain GET", run: (target, ticket) => target.send(socketUrl(target, ticket)) },
  {
    name: "that is a HEAD",
    run: (target, ticket) => target.send(socketUrl(target, ticket), { method: "HEAD" }),
  },
  {
    name: "of a foreign page",
    run: (target, ticket) => target.knock({ ticket }, { Origin: FOREIGN }),
  },
];

function socketUrl(target: Target, ticket: string): string {
  const { socketPath, parameter } = target.options;
  return `${target.path(socketPath)}?${parameter}=${encodeURIComponent(ticket)}`;
}

export async function spendsNothing(target: Target): Promise<Finding[]> {
  const ticket = await target.ticket();
  for (const failure of FAILURES) {
    // One that is let in is another check's finding, and has spent it rightly.
    if ((await failure.run(target, ticket)).status === 101) return spendsNothingEach(target);
  }
  const { status } = await target.knock({ ticket });
  return status === 101 ? [] : spendsNothingEach(target);
}

/** The same with a ticket for each, to find out which it was. */
async function spendsNothingEach(target: Target): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const failure of FAILURES) {
    const ticket = await target.ticket();
    const failed = await failure.run(target, ticket);
    if (failed.status === 101) continue;
    const after = await target.knock({ ticket });
    if (after.status === 101) continue;
    if (failure.name === "of a foreign page") target.spendsRefused = true;
    const exchange = {
      sent: `${failed.sent}\nand then, with the same ticket,\n${after.sent}`,
      received: `${failed.received}\n${after.received}`,
    };
    findings.push(
      found("spent", exchange, {
        title: `A handshake ${failure.name} spends the ticket`,
        why: "A link scanner, a prefetch or a foreign page makes a ticket useless before its owner uses it",
        references: ["ASVS 4.4.3", "RFC 6455 4.2.1"],
        mend: "Check method, headers, version and Origin first, and take the ticket from the store last",
      }),
    );
  }
  return findings;
}

export async function worksOnce(target: Target): Promise<Finding[]> {
  const ticket = await target.ticket();
  const first = await target.open({ ticket });
  if (!first.socket) throw new Skipped(`a good ticket was refused: ${first.status}`);
  const again: Handshake[] = [];
  try {
    // More than once, and over connections of their own: another instance may answer.
    for (let round = 0; round < 3; round++) again.push(await target.knock({ ticket }));
  } finally {
    first.socket[Symbol.dispose]();
  }
  again.push(await target.knock({ ticket }));
  const second = again.find(({ status }) => status === 101);
  if (!second) return [];
  return [
    found("replay", second, {
      title: "A ticket works more than once",
      why: "Whoever finds a URL in a log, or in a browser's history, connects as that user",
      references: ["ASVS 6.5.1", "ASVS 4.4.3"],
      mend: ONE_STEP,
    }),
  ];
}

export async function worksOnceAtOnce(target: Target): Promise<Finding[]> {
  const ticket = await target.ticket();
  // Connected first, so that the handshakes arrive together.
  const ready = await Promise.all(
    Array.from({ length: AT_ONCE }, () => target.prepare({ ticket })),
  );
  const handshakes = await Promise.all(ready.map((one) => one.finish()));
  for (const one of ready) one[Symbol.dispose]();
  for (const { socket } of handshakes) socket?.[Symbol.dispose]();
  const accepted = handshakes.filter(({ status }) => status === 101);
  const [one] = accepted;
  if (!one) {
    const statuses = [...new Set(handshakes.map(({ status }) => status))].join(", ");
    throw new Skipped(`none of ${AT_ONCE} was let in: ${statuses}`);
  }
  if (accepted.length === 1) return [];
  const sent = `${AT_ONCE} times at once\n${one.sent}`;
  return [
    found(
      "race",
      { sent, received: `${accepted.length} times 101` },
      {
        title: `One ticket opens ${accepted.length} sockets`,
        why: "Somebody who listens needs no luck: being as fast as the owner is enough",
        references: ["ASVS 2.3.4", "ASVS 15.4.2"],
        mend: ONE_STEP,
      },
    ),
  ];
}

export async function hasOneSpelling(target: Target): Promise<Finding[]> {
  const { parameter } = target.options;
  let ticket = await target.ticket();
  const upper = parameter.toUpperCase();
  const spellings: readonly (readonly [
    name: string,
    write: (ticket: string) => string | undefined,
  ])[] = [
    ["with padding", (one) => `${parameter}=${one}%3D`],
    ["with a space in front", (one) => `${parameter}=%20${one}`],
    ["encoded twice", (one) => `${parameter}=%25${code(one)}${one.slice(1)}`],
    ["with spare bits set", (one) => spare(one) && `${parameter}=${spare(one)}`],
    [
      "in capitals",
      (one) => (one === one.toUpperCase() ? undefined : `${parameter}=${one.toUpperCase()}`),
    ],
    [`as ${upper}`, (one) => (upper === parameter ? undefined : `${upper}=${one}`)],
    ["twice", (one) => `${parameter}=${one}&${parameter}=${one}`],
    ["beside another one", (one) => `${parameter}=${"A".repeat(one.length)}&${parameter}=${one}`],
  ];
  const findings: Finding[] = [];
  for (const [name, write] of spellings) {
    const query = write(ticket);
    if (query === undefined) continue;
    const handshake = await target.knock(query);
    if (handshake.status !== 101) continue;
    findings.push(
      found("spelling", handshake, {
        title: `A ticket is accepted ${name}`,
        why: "What a log hides or a limit counts under one spelling passes under another",
        references: ["ASVS 1.1.1", "ASVS 15.3.7"],
        mend: "Accept a ticket letter by letter as it was issued, in one parameter, once",
      }),
    );
    ticket = await target.ticket();
  }
  return findings;
}

/** The first character, percent-encoded, without its sign. */
function code(text: string): string {
  return text.charCodeAt(0).toString(16).padStart(2, "0");
}

/** The same bytes in base64url with a bit set that stands for none; `undefined` for what isn't 32 bytes. */
function spare(ticket: string): string | undefined {
  if (!/^[\w-]{43}$/.test(ticket)) return undefined;
  const last = BASE64URL.indexOf(ticket[42] as string);
  return ticket.slice(0, 42) + BASE64URL[last ^ 1];
}

export async function isKnownEverywhere(target: Target): Promise<Finding[]> {
  for (let round = 0; round < ROUNDS; round++) {
    const ticket = await target.ticket();
    const handshake = await target.knock({ ticket });
    if (handshake.status === 101) continue;
    if (handshake.status === 429) throw new Skipped("too many handshakes for the server's limits");
    return [
      found("instances", handshake, {
        title: "A ticket is refused right after it was issued",
        why: "Behind one name there are instances that don't know each other's tickets: people get in by chance",
        references: ["ASVS 7.2.1"],
        mend: ONE_STORE,
      }),
    ];
  }
  return [];
}

/** Waits until a ticket should have ended, and then uses it. */
export async function endsOnTime(target: Target): Promise<Finding[]> {
  const exchange = await target.askTicket();
  const ticket = target.ticketIn(exchange);
  if (ticket === undefined) throw new Skipped(`no further ticket was issued: ${exchange.status}`);
  const seconds = (lifeSeconds(exchange) ?? USUAL_LIFE_SECONDS) + MARGIN_SECONDS;
  target.options.onWait?.(`waits ${seconds} s for a ticket to end`);
  await pause(seconds * 1000, target.options.clock);
  const handshake = await target.knock({ ticket });
  if (handshake.status !== 101) return [];
  const sent = `${handshake.sent}\n${seconds} s after it was issued`;
  return [
    found(
      "expiry",
      { ...handshake, sent },
      {
        title: "A ticket works after its end",
        why: "Tickets that were never used pile up, each a way in",
        references: ["ASVS 6.5.5"],
        mend: "Store it with an expiry, and compare its end when it is taken",
      },
    ),
  ];
}
