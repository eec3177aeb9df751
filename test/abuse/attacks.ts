import { connect, type Socket } from "node:net";
import { frame, OPCODE, openRawSocket } from "../support/frame.ts";
import { HANDSHAKE, openRaw, sendRaw } from "../support/raw.ts";
import { type Client, clientAt, openPair } from "./client.ts";
import { ADMIN_TOKEN, OPEN_FILES } from "./servers.ts";
import { tokenOf, withBadSignature, withOtherSignature } from "./tokens.ts";

/** What one abuser did. */
export interface Tally {
  /** Attempts, in whatever the attack counts. */
  readonly attempts: number;
  /** Those that got through. */
  readonly through: number;
}

/** Who attacks: one address, one identity, on all servers at once. */
export interface Abuser {
  readonly clients: readonly [Client, ...Client[]];
  /** In no other attack, and the beginning of no other name. */
  readonly name: string;
  readonly address: string;
  readonly seconds: number;
  /** Runs until the time is up, so many at once; counts the results that are `true` as through. */
  flood(atOnce: number, attempt: (n: number, client: Client) => Promise<boolean>): Promise<Tally>;
}

export interface Attack {
  readonly what: string;
  /** Most that may get through on so many servers in so many seconds. */
  most(servers: number, seconds: number): number;
  /** Most messages, blocks and sign-outs that may be left behind, and most entries in the feed. Default: none. */
  traces?(servers: number, seconds: number): number;
  /** Before the time begins. */
  prepare?(abuser: Abuser): Promise<(abuser: Abuser) => Promise<Tally>>;
  run?(abuser: Abuser): Promise<Tally>;
}

const SOCKETS_PER_ADDRESS = Math.ceil(Math.floor(OPEN_FILES * 0.8) * 0.25);
/** Messages of a visitor's with 4,000 characters, as many as at once and then by the minute, on all servers together. */
const longMessages = (_: number, seconds: number) => (100_000 + (10_000 * seconds) / 60) / 4_050;
/** The same of all visitors at an address, on each server. */
const tenVisitors = (servers: number, seconds: number) =>
  ((100_000 + (100_000 * seconds) / 60) / 4_050) * servers;
const perIdentity = (perSecond: number) => (servers: number, seconds: number) =>
  perSecond * (1 + seconds) * servers;
/** What is looked at after too many failures: 10 a second, beside the first 120. */
const failures = (servers: number, seconds: number) => (120 + 10 + 12 * seconds) * servers;
const none = () => 0;

export const ATTACKS: Readonly<Record<string, Attack>> = {
  targets: {
    what: "URLs that are expensive to read",
    most: none,
    run: ({ flood }) => {
      const targets = [
        `a${"%CC%81".repeat(1_200)}`,
        "%25&".repeat(1_900),
        "%2525252574oken=&".repeat(450),
        `${"%25&".repeat(60)}${"%C3%A9".repeat(1_200)}`,
        Array.from({ length: 8 }, () => `%25${"%EF%B7%BA".repeat(25)}`).join("&"),
      ];
      return flood(32, async (n, client) => {
        const { status } = await client.ask(`/healthz?${targets[n % targets.length]}`);
        return status >= 500;
      });
    },
  },
  "raw-targets": {
    what: "3,700 combining marks as they are, 14.8 KB",
    most: none,
    run({ flood, address }) {
      const marks = Buffer.from("\u{1D165}".repeat(3_700));
      const request = (host: string) =>
        Buffer.concat([
          Buffer.from("GET /healthz?a"),
          marks,
          Buffer.from(` HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-For: ${address}\r\n\r\n`),
        ]);
      return flood(32, async (_, { origin }) => {
        const { port, host } = new URL(origin);
        return (await sendRaw(Number(port), request(host))).status === 200;
      });
    },
  },
  tickets: {
    what: "bad tickets and tokens, beside good ones from the same address",
    // A token that is looked at gets 401; what is refused without, 429.
    most: failures,
    async run({ flood, clients, address, name, seconds }) {
      const token = await tokenOf(name);
      const forged = withBadSignature(token);
      const endMs = performance.now() + seconds * 1000;
      // Somebody else at this address, with tickets of the server where the socket is opened.
      const enter = async (client: Client) => {
        const socket = await client.openUser(token);
        await socket[Symbol.asyncDispose]();
        return true;
      };
      let good = 0;
      let bad = 0;
      const neighbour = (async () => {
        for (let n = 0; performance.now() < endMs; n++) {
          const client = clients[n % clients.length] as Client;
          const isIn = await enter(client).catch(() => false);
          if (isIn) good++;
          else bad++;
          await Bun.sleep(200);
        }
      })();
      const tally = await flood(32, async (n, client) => {
        if (n % 2) {
          const headers = { Authorization: `Bearer ${forged}` };
          const path = "/api/auth/ws-ticket";
          return (await client.ask(path, { method: "POST", headers })).status !== 429;
        }
        const ticket = randomId(32);
        const headers = { ...HANDSHAKE, "X-Forwarded-For": address };
        const path = `/ws/chat?ticket=${ticket}`;
        return (await client.ask(path, { headers })).status !== 429;
      });
      await neighbour;
      if (bad > good) throw new Error(`${bad} good tickets from the same address were refused`);
      return tally;
    },
  },
  messages: {
    what: "one cookie, by reconnecting, with long messages",
    most: longMessages,
    traces: (servers, seconds) => 3 + longMessages(servers, seconds),
    prepare: (abuser) => prepareFlood(abuser, "x".repeat(4_000)),
  },
  quotes: {
    what: "messages of quotation marks only",
    most: longMessages,
    traces: (servers, seconds) => 3 + longMessages(servers, seconds),
    prepare: (abuser) => prepareFlood(abuser, '"'.repeat(4_000)),
  },
  strangers: {
    what: "one new cookie after the other, to users who never answer",
    // In ten minutes, on each server.
    most: (servers, seconds) => (300 + seconds / 2) * servers,
    traces: (servers, seconds) => (300 + seconds / 2) * servers,
    run({ flood, name }) {
      return countStored(flood, 10, async (_, client) => {
        const socket = await client.openVisitor(await client.cookie());
        return { socket, to: (m: number) => `${name} ${m % 10}`, content: "x".repeat(100) };
      });
    },
  },
  accomplices: {
    what: "many cookies, all with an answer, long messages",
    most: tenVisitors,
    traces: tenVisitors,
    async prepare({ clients: [first], address, name }) {
      const partner = clientAt(first.origin, `${address}0`);
      const cookies: string[] = [];
      // From elsewhere, so that nothing is used up.
      for (let n = 0; n < 12; n++) {
        const { cookie, ...sockets } = await openPair(
          { client: partner, name },
          { client: clientAt(first.origin, `${address}${n % 5}`) },
        );
        await sockets.userSocket[Symbol.asyncDispose]();
        await sockets.visitorSocket[Symbol.asyncDispose]();
        cookies.push(cookie);
        // One user answers all of them, 20 a second.
        await Bun.sleep(60);
      }
      return ({ flood }) =>
        countStored(flood, 24, async (n, client) => {
          const socket = await client.openVisitor(cookies[n % cookies.length] as string);
          return { socket, to: () => name, content: "漢".repeat(4_000) };
        });
    },
  },
  "sign-outs": {
    what: "one user's sign-outs, of one session after the other",
    // Of each of two users: one ends sessions, the other everything, as often as it can be on its way at the same moment.
    most: (_, seconds) => 2 * (10 + (10 * seconds) / 60),
    traces: (_, seconds) => 2 * (10 + (10 * seconds) / 60),
    async run({ flood, name }) {
      const ended = await tokenOf(name);
      return flood(16, async (n, client) => {
        const isRepeated = n % 3 === 1;
        const isEverywhere = n % 3 === 2;
        const token = isRepeated
          ? ended
          : await tokenOf(isEverywhere ? `${name} everywhere` : name);
        const { status } = await client.ask("/api/auth/sign-out", {
          method: "POST",
          headers: { Authorization: `Bearer ${token}` },
          ...(isEverywhere && { body: '{"everywhere":true}' }),
        });
        // What has ended already costs nothing.
        return status === 204 && !isRepeated;
      });
    },
  },
  signatures: {
    what: "a signed-out token, with its other signature",
    most: none,
    traces: () => 3,
    async run({ flood, clients, name }) {
      const token = await tokenOf(name, { session: false });
      const other = withOtherSignature(token);
      if (!other) throw new Error("There is no other signature");
      const mint = async (client: Client, signed: string) => {
        const headers = { Authorization: `Bearer ${signed}` };
        return (await client.ask("/api/auth/ws-ticket", { method: "POST", headers })).status;
      };
      if ((await mint(clients[0], other)) !== 200) throw new Error("The other signature is none");
      const headers = { Authorization: `Bearer ${token}` };
      const signedOut = await clients[0].ask("/api/auth/sign-out", { method: "POST", headers });
      if (signedOut.status !== 204) throw new Error(`No sign-out: ${signedOut.status}`);
      return flood(4, async (n, client) => (await mint(client, n % 2 ? other : token)) === 200);
    },
  },
  sockets: {
    what: "all sockets, from one address with 41 cookies",
    most: (servers) => SOCKETS_PER_ADDRESS * servers,
    async prepare({ clients: [first] }) {
      const cookies = await Promise.all(Array.from({ length: 41 }, () => first.cookie()));
      return async ({ flood }) => {
        const sockets: { socket: WebSocket }[] = [];
        const tally = await flood(32, async (n, client) => {
          const socket = await client.openVisitor(cookies[n % cookies.length] as string);
          sockets.push(socket);
          // One too many of an identity's is open for a moment.
          await Bun.sleep(5);
          return socket.socket.readyState === WebSocket.OPEN;
        });
        for (const { socket } of sockets) socket.close();
        return tally;
      };
    },
  },
  reconnects: {
    what: "one cookie, a socket opened and closed again and again",
    most: (servers, seconds) => (60 + seconds) * servers,
    async prepare({ clients: [first] }) {
      const cookie = await first.cookie();
      return ({ flood }) =>
        flood(32, async (_, client) => {
          const socket = await client.openVisitor(cookie);
          socket.socket.close();
          return true;
        });
    },
  },
  pages: {
    what: "pages of 200 long messages, and of 200 chats",
    // A page counts as up to nine requests.
    most: (_, seconds) => (600 + 10 * seconds) / 5,
    traces: () => Number.POSITIVE_INFINITY,
    async prepare({ clients: [first], name }) {
      const pair = await openPair({ client: first, name }, { client: first });
      const frameTo = { type: "USER_TO_ANON", to: pair.visitor, content: "漢".repeat(4_000) };
      // As long as a page gets.
      for (let n = 0; n < 18; n++) {
        pair.userSocket.send({ ...frameTo, ref: `${n}` });
        await pair.userSocket.next(({ ref }) => ref === `${n}`);
      }
      const hello = { type: "ANON_TO_USER", to: name, content: "x".repeat(4_000), ref: "x" };
      // From many addresses, so that there are so many chats.
      await Promise.all(
        Array.from({ length: 10 }, async (_, at) => {
          for (let n = 0; n < 20; n++) {
            const visiting = clientAt(first.origin, `198.51.100.${at}`);
            await using socket = await visiting.openVisitor(await visiting.cookie());
            socket.send(hello);
            await socket.next(({ ref }) => ref === "x");
          }
        }),
      );
      const headers = { Authorization: `Bearer ${pair.token}` };
      return ({ flood }) =>
        flood(16, async (n, client) => {
          const path = n % 2 ? `/api/chats/${pair.visitor}/messages` : "/api/chats";
          return (await client.ask(`${path}?limit=200`, { headers })).status === 200;
        });
    },
  },
  blocks: {
    what: "blocks of random ids",
    most: none,
    async run({ flood, name }) {
      const headers = { Authorization: `Bearer ${await tokenOf(name)}` };
      return flood(16, async (_, client) => {
        const path = `/api/chats/${randomId(16)}/block`;
        return (await client.ask(path, { method: "PUT", headers })).status === 204;
      });
    },
  },
  reads: {
    what: "read marks, over twenty sockets and HTTP at once",
    most: (_, seconds) => 600 + 10 * seconds,
    traces: () => 3,
    async prepare({ clients, name }) {
      const pair = await openPair({ client: clients[0], name }, { client: clients[0] });
      const sockets = await Promise.all(
        Array.from({ length: 19 }, (_, n) =>
          (clients[n % clients.length] as Client).openVisitor(pair.cookie),
        ),
      );
      const cookie = { Cookie: pair.cookie };
      return async ({ flood }) =>
        flood(20, async (n, client) => {
          if (n % 2) {
            const headers = { ...cookie, Origin: client.origin };
            const path = `/api/chats/${encodeURIComponent(name)}/read`;
            return (await client.ask(path, { method: "POST", headers })).status === 200;
          }
          const socket = sockets[n % sockets.length];
          if (socket?.socket.readyState !== WebSocket.OPEN) return false;
          const [ref, after] = [`${n}`, `after ${n}`];
          socket.send({ type: "MARK_AS_READ", chatId: pair.visitor, ref });
          socket.send({ type: "?", ref: after });
          // What works has no response of its own.
          const first = await socket.next((one) => one.ref === ref || one.ref === after);
          return first.ref === after;
        });
    },
  },
  admin: {
    what: "wrong admin tokens",
    most: failures,
    run: ({ flood }) =>
      flood(16, async (n, client) => {
        const Authorization = `Bearer ${ADMIN_TOKEN.slice(0, -1)}${n % 10}`;
        const path = "/api/admin/identities/alice/sockets";
        const init = { method: "DELETE", headers: { Authorization } };
        return (await client.ask(path, init)).status !== 429;
      }),
  },
  pings: {
    what: "pings and pongs on one socket after the other",
    most: perIdentity(20),
    async prepare({ clients: [first], name, address }) {
      const token = await tokenOf(name);
      // As many as there are tickets in a minute.
      const tickets: string[] = [];
      for (let n = 0; n < 50; n++) tickets.push(await first.mint(token));
      return async ({ seconds }) => {
        const endMs = performance.now() + seconds * 1000;
        let [sent, pongs] = [0, 0];
        while (performance.now() < endMs) {
          const ticket = tickets.pop();
          if (ticket === undefined) break;
          const headers = { "X-Forwarded-For": address };
          using socket = await openRawSocket(first.origin, `/ws/chat?ticket=${ticket}`, headers);
          for (let n = 0; n < 4_000; n++) {
            socket.write(frame(n % 2 ? OPCODE.ping : OPCODE.pong, "x"));
          }
          const code = await Promise.race([socket.closeCode, Bun.sleep(5_000)]);
          if (code !== 4501) throw new Error(`A flood of pings ended with ${code}`);
          sent += 4_000;
          pongs += socket.frames.filter(({ opcode }) => opcode === OPCODE.pong).length;
        }
        return { attempts: sent, through: pongs };
      };
    },
  },
  frames: {
    what: "long frames that come to nothing, from all sockets of an address",
    most: none,
    async prepare({ clients: [first] }) {
      const cookies = await Promise.all(Array.from({ length: 41 }, () => first.cookie()));
      const typing = { type: "TYPING", to: "nobody", padding: "x".repeat(15_000) };
      return async ({ flood }) => {
        let frames = 0;
        await flood(40, async (n, client) => {
          const socket = await client.openVisitor(cookies[n % cookies.length] as string);
          for (let burst = 0; burst < 5 && socket.socket.readyState === WebSocket.OPEN; burst++) {
            for (let m = 0; m < 18; m++) socket.send(typing);
            frames += 18;
            await Promise.race([socket.closed, Bun.sleep(1_000)]);
          }
          await socket[Symbol.asyncDispose]();
          return false;
        });
        return { attempts: frames, through: 0 };
      };
    },
  },
  pipelines: {
    what: "a thousand requests at once on each of four connections",
    most: (servers, seconds) => (700 + 1_000 * seconds) * servers,
    async run({ flood, address }) {
      const request = `GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ${address}\r\n\r\n`;
      let responses = 0;
      const { attempts } = await flood(4, async (_, { origin }) => {
        using connection = await openRaw(Number(new URL(origin).port));
        connection.write(request.repeat(1_000));
        const count = (text: string) => text.split(" 200 OK").length - 1;
        await connection.until((text) => count(text) === 1_000);
        responses += count(connection.text);
        return false;
      });
      return { attempts: 1_000 * attempts, through: responses };
    },
  },
  mints: {
    what: "tickets that are never used",
    most: (servers, seconds) => (60 + seconds) * servers,
    async run({ flood, name }) {
      const headers = { Authorization: `Bearer ${await tokenOf(name)}` };
      return flood(16, async (_, client) => {
        const { status } = await client.ask("/api/auth/ws-ticket", { method: "POST", headers });
        return status === 200;
      });
    },
  },
  idle: {
    what: "1,500 TCP connections with no request, a part of one, no further one, or no body; opened again when they have ended",
    most: () => Number.POSITIVE_INFINITY,
    async run({ clients, address, seconds }) {
      const rest = `HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: ${address}\r\n`;
      const whole = `GET /healthz ${rest}\r\n`;
      const withBody = `POST /api/auth/ws-ticket ${rest}Content-Length: 100\r\n\r\n{`;
      const continued = withBody.replace(
        "Content-Length: 100",
        "Content-Length: 100\r\nExpect: 100-continue",
      );
      const texts = ["", whole.slice(0, 30), whole, withBody, continued];
      const endMs = performance.now() + seconds * 1000;
      let attempts = 0;
      let through = 0;
      const sockets = new Set<Socket>();
      const open = (n: number): void => {
        const { hostname, port } = new URL((clients[n % clients.length] as Client).origin);
        const socket = connect({ host: hostname, port: Number(port) }, () => through++);
        attempts++;
        sockets.add(socket);
        socket.write(texts[n % texts.length] as string);
        // One more byte now and then.
        const timer = setInterval(() => n % 2 === 1 && socket.write("x"), 500);
        socket.on("error", () => {});
        socket.on("close", () => {
          clearInterval(timer);
          sockets.delete(socket);
          soon(n);
        });
        socket.resume();
      };
      const soon = (n: number) => {
        setTimeout(
          () => performance.now() < endMs && open(n),
          (seconds * 1000 * Math.random()) / 2,
        );
      };
      for (let n = 0; n < 1_500; n++) soon(n);
      await Bun.sleep(seconds * 1000);
      for (const socket of sockets) socket.destroy();
      return { attempts, through };
    },
  },
};

function randomId(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("base64url");
}

/** Long messages in an answered chat, from twenty sockets, each opened again when it was ended. */
async function prepareFlood({ clients: [first], name, address }: Abuser, content: string) {
  // The partner has another address, and only listens.
  const partner = clientAt(first.origin, `${address}0`);
  const { cookie } = await openPair({ client: partner, name }, { client: first });
  return ({ flood }: Abuser) =>
    countStored(flood, 20, async (_, client) => {
      return { socket: await client.openVisitor(cookie), to: () => name, content };
    });
}

/** Twenty messages of each socket, so many sockets at once; counts those that were stored. */
async function countStored(
  flood: Abuser["flood"],
  atOnce: number,
  open: (
    n: number,
    client: Client,
  ) => Promise<{
    socket: Awaited<ReturnType<Client["open"]>>;
    to(m: number): string;
    content: string;
  }>,
): Promise<Tally> {
  let stored = 0;
  let sent = 0;
  await flood(atOnce, async (n, client) => {
    const { socket, to, content } = await open(n, client);
    let left = 20;
    const ended = socket.closed.then(() => true);
    socket.onFrame(({ type }) => {
      if (type === "ACK") stored++;
      if (type === "ACK" || type === "ERROR") left--;
    });
    for (let m = 0; m < 20; m++) {
      sent++;
      socket.send({ type: "ANON_TO_USER", to: to(m), content, ref: `${n} ${m}` });
    }
    for (let turn = 0; turn < 50 && left > 0; turn++) {
      if (await Promise.race([ended, Bun.sleep(10)])) break;
    }
    await socket[Symbol.asyncDispose]();
    return false;
  });
  return { attempts: sent, through: stored };
}
