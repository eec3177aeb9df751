import { lookup } from "node:dns/promises";
import { isIPv6 } from "node:net";
import { type Finding, Skipped } from "./finding.ts";
import { found } from "./issuing.ts";
import { OPCODE, type OpenSocket, toFrame } from "./socket.ts";
import { type Exchange, type Handshake, MAX_REQUESTS, type Target } from "./target.ts";

/** A message of this size is more than any chat needs, in bytes: what frameworks accept unless they are told otherwise. */
const TOO_BIG_BYTES = 16 * 1024 * 1024;
/** How long a server may take to end a socket, in milliseconds. */
const END_MS = 3_000;
/** How long a proxy is given to cut off a quiet socket, in milliseconds: most do so after 60 s. */
export const QUIET_MS = 75_000;
/** Cookies that an instance may issue to one address at once. */
const MAX_COOKIES = 60;

export async function knowsItsProtocols(target: Target): Promise<Finding[]> {
  const ticket = await target.ticket();
  const nonsense = `doctor-${crypto.getRandomValues(new Uint8Array(6)).toHex()}`;
  const handshake = await target.knock({ ticket }, { "Sec-WebSocket-Protocol": nonsense });
  const chosen = handshake.header("sec-websocket-protocol")[0] ?? "";
  if (handshake.status !== 101 || !chosen.includes(nonsense)) return [];
  const received = `${handshake.received}\nSec-WebSocket-Protocol: ${chosen}`;
  return [
    found(
      "subprotocol",
      { ...handshake, received },
      {
        title: "A subprotocol comes back that the server can't know",
        why: "A client that hides a ticket or token there has it in a response header, and thinks it was understood",
        references: ["RFC 6455 4.2.2", "ASVS 14.2.6"],
        mend: "Choose among the protocols that you speak, or send no Sec-WebSocket-Protocol at all",
      },
    ),
  ];
}

/** Opens a socket, lets `run` do something to it, and returns what was wrong with the outcome. */
async function onSocket(
  target: Target,
  run: (socket: OpenSocket, handshake: Handshake) => Promise<Finding | undefined>,
): Promise<Finding[]> {
  const ticket = await target.ticket();
  const handshake = await target.open({ ticket });
  const { socket } = handshake;
  if (!socket) throw new Skipped(`a good ticket was refused: ${handshake.status}`);
  try {
    const finding = await run(socket, handshake);
    return finding ? [finding] : [];
  } finally {
    socket[Symbol.dispose]();
  }
}

export async function endsBadFrames(target: Target): Promise<Finding[]> {
  const oversized = await onSocket(target, async (socket) => {
    socket.write(toFrame(OPCODE.text, "x", { claimedLength: TOO_BIG_BYTES }));
    if (await socket.ends(END_MS)) return undefined;
    return {
      id: "frames",
      title: "A message of 16 MB is accepted",
      sent: "the header of a text frame of 16,777,216 bytes, and one of them",
      received: `nothing, within ${END_MS / 1000} s`,
      why: "A few sockets fill the server's memory",
      references: ["RFC 6455 10.4", "ASVS 15.2.2"],
      mend: "Limit messages to what your protocol needs (maxPayloadLength, maxPayload): 16 KB do for a chat",
    };
  });
  const unmasked = await onSocket(target, async (socket) => {
    socket.write(toFrame(OPCODE.text, "{}", { isMasked: false }));
    if (await socket.ends(END_MS)) return undefined;
    return {
      id: "frames",
      title: "A frame that isn't masked is accepted",
      sent: "a text frame without a mask",
      received: `nothing, within ${END_MS / 1000} s`,
      why: "Masks keep what a script writes from looking like a request to a proxy on the way",
      references: ["RFC 6455 5.1", "RFC 6455 10.3"],
      mend: "Close with 1002, as libraries do",
    };
  });
  const malformed = await onSocket(target, async (socket) => {
    socket.write(toFrame(OPCODE.text, new Uint8Array([0xc0, 0xaf])));
    if (await socket.ends(END_MS)) return undefined;
    return {
      id: "frames",
      title: "Text that is no UTF-8 is accepted",
      sent: "a text frame with the bytes C0 AF",
      received: `nothing, within ${END_MS / 1000} s`,
      why: "Two readers of the same bytes read two different texts",
      references: ["RFC 6455 8.1"],
      mend: "Close with 1007, as libraries do",
    };
  });
  const binary = await onSocket(target, async (socket) => {
    socket.write(toFrame(OPCODE.binary, new Uint8Array([0, 1, 2, 3])));
    if (await socket.responds(END_MS)) return undefined;
    if (socket.closeCode !== undefined && socket.closeCode !== 1011) return undefined;
    return {
      id: "frames",
      title:
        socket.closeCode === 1011
          ? "A binary frame makes the server fail"
          : "A binary frame ends the socket without a word",
      sent: "a binary frame of four bytes",
      received: socket.closeCode === 1011 ? "Close 1011" : "no Close frame",
      why: "What anybody can send must not end in an exception: in some servers that is the process",
      references: ["RFC 6455 10.7", "ASVS 16.5.4"],
      mend: "Handle it, or close with 1003",
    };
  });
  // Whether it was that socket alone.
  await target.ticket();
  return [...oversized, ...unmasked, ...malformed, ...binary];
}

/** Waits on a socket that says nothing. */
export async function staysOpen(target: Target, quietMs: number): Promise<Finding[]> {
  return onSocket(target, async (socket, handshake) => {
    const startedAtMs = target.options.clock.monotonicMs();
    const ended = await socket.ends(quietMs);
    if (!ended && (await socket.responds(END_MS))) return undefined;
    const seconds = Math.round((target.options.clock.monotonicMs() - startedAtMs) / 1000);
    const { closeCode } = socket;
    return found("idle", handshake, {
      title: `A quiet socket ends after ${seconds} s`,
      why: "People lose their connection whenever nobody writes, and all come back with new tickets",
      references: ["RFC 6455 5.5.2"],
      mend:
        closeCode === undefined
          ? "A proxy cuts it off: raise its timeout for sockets (proxy_read_timeout, timeout tunnel), or send pings more often"
          : `The server closes it with ${closeCode}: let it send pings, and count the pongs`,
    });
  });
}

export async function speaksHttp2(target: Target): Promise<Finding[]> {
  if (!target.isEncrypted) throw new Skipped("http");
  const { origin, ticketPath, url, ca } = target.options;
  const { connect } = await import("node:http2");
  const session = connect(url.origin, { ...(ca && { ca }) });
  const path = target.path(ticketPath);
  async function post(headers: Record<string, string>): Promise<Exchange> {
    target.count();
    return new Promise((resolve, reject) => {
      const stream = session.request({ ":method": "POST", ":path": path, origin, ...headers });
      let status = 0;
      let body = "";
      stream.setEncoding("utf8");
      stream.on("response", (response) => {
        status = Number(response[":status"]);
      });
      stream.on("data", (chunk) => {
        body += chunk;
      });
      stream.on("end", () =>
        resolve({
          status,
          body,
          head: "",
          headLength: 0,
          header: () => [],
          sent: target.show(`POST ${path} over HTTP/2\n${Object.keys(headers).join(", ")}`),
          received: `HTTP/2 ${status}`,
        }),
      );
      stream.on("error", reject);
      stream.end();
    });
  }
  try {
    const alpn = await new Promise<string | undefined>((resolve, reject) => {
      session.on("connect", () => resolve(session.alpnProtocol));
      session.on("error", reject);
    }).catch(() => undefined);
    if (alpn !== "h2") throw new Skipped("the front doesn't speak HTTP/2");
    const bare = await post({});
    const exchange = await post({ authorization: `Bearer ${target.token}` });
    const ticket = target.ticketIn(exchange);
    if (target.ticketIn(bare) !== undefined) {
      return [
        found("http2", bare, {
          title: "Over HTTP/2 a ticket is issued without a token",
          why: "The front handles the two protocols by different rules",
          references: ["ASVS 4.2.1", "ASVS 4.4.4"],
          mend: "Give both protocols the same routes and the same rules",
        }),
      ];
    }
    const handshake = ticket === undefined ? undefined : await target.knock({ ticket });
    if (handshake?.status === 101) return [];
    return [
      found("http2", handshake ?? exchange, {
        title: handshake
          ? "A ticket from HTTP/2 opens no socket"
          : "Over HTTP/2 no ticket is issued",
        why: "Browsers ask for the ticket over HTTP/2 wherever they can, and open the socket over HTTP/1.1",
        references: ["RFC 9113", "RFC 8441"],
        mend: "Hand on Authorization and the body over HTTP/2, too, and let both end at the same instances",
      }),
    ];
  } finally {
    session.destroy();
  }
}

export async function limitsAddresses(target: Target): Promise<Finding[]> {
  const { sessionPath, origin, url, instances = 1, resolve = systemAddresses } = target.options;
  // It must be there at all.
  await target.session();
  const path = target.path(sessionPath);
  const ask = (headers: Record<string, string> = {}, address?: string) =>
    target.send(path, {
      method: "POST",
      headers: { Origin: origin, ...headers },
      ...(address !== undefined && { address }),
    });
  // From here, addresses of different families are reached from different addresses.
  const all = await resolve(url.hostname.replace(/^\[|\]$/g, ""));
  const own = all.find((address) => !isIPv6(address)) ?? all[0];
  const other = all.find((address) => isIPv6(address) && address !== own);
  let limited: Exchange | undefined;
  const needed = MAX_COOKIES * instances + 1;
  // What is left is for the checks of the limit itself.
  const burst = Math.min(needed, MAX_REQUESTS - target.requests - 2);
  for (let sent = 0; sent < burst && !limited; sent++) {
    const exchange = await ask({}, own);
    if (exchange.status === 429) limited = exchange;
  }
  if (!limited) {
    if (burst < needed) throw new Skipped("too few requests were left");
    if (/^(?:localhost|127\.|\[::1\])/.test(url.hostname)) {
      throw new Skipped("no limit was met, which on loopback may be meant");
    }
    return [
      found("limits", await ask({}, own), {
        title: `${needed} cookies in one go, and none was refused`,
        why: "One address makes as many visitors as it likes. Behind a proxy on the same machine it is often the proxy that is exempt, and with it everybody",
        references: ["ASVS 2.4.1", "ASVS 6.3.1"],
        mend: "Limit by address, and tell the server how many proxies stand in front (TRUST_PROXY). Where several instances count for themselves, say so: --instances",
      }),
    ];
  }
  const forged = `198.51.100.${1 + Math.floor(Math.random() * 250)}`;
  const spoofed = await ask({ "X-Forwarded-For": forged }, own);
  if (spoofed.status !== 429) {
    return [
      found("limits", spoofed, {
        title: "Whoever makes up X-Forwarded-For has no limits",
        why: "Each request counts for another address, and logs name people who were never there",
        references: ["ASVS 4.1.3", "ASVS 15.3.4"],
        mend: "Count from the right: trust as many entries as there are proxies of yours (TRUST_PROXY), and no more",
      }),
    ];
  }
  if (other === undefined) return [];
  const elsewhere = await ask({}, other).catch(() => undefined);
  if (elsewhere?.status !== 429) return [];
  return [
    found(
      "limits",
      { ...elsewhere, sent: `${elsewhere.sent}\nfrom another address` },
      {
        title: "Two addresses count as one",
        why: "The proxy's address counts for everybody: one noisy client shuts all others out",
        references: ["ASVS 6.3.1", "ASVS 15.3.4"],
        mend: "Let the proxy send X-Forwarded-For, and tell the server how many stand in front (TRUST_PROXY)",
      },
    ),
  ];
}

async function systemAddresses(hostname: string): Promise<string[]> {
  const found = await lookup(hostname, { all: true }).catch(() => []);
  return found.map(({ address }) => address);
}
