import { connect, type Socket } from "node:net";
import { OPCODE, openRawSocket, frame } from "../support/frame.ts";
import { type Client, clientAt, openPair, tokenOf } from "./client.ts";
import { ADMIN_TOKEN, OPEN_FILES } from "./servers.ts";

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
  /** In no other attack. */
  readonly name: string;
  readonly address: string;
  readonly seconds: number;
  /** Runs until the time is up, so many at once; counts the results that are `true` as through. */
  flood(atOnce: number, attempt: (n: number, client: Client) => Promise<boolean>): Promise<Tally>;
}

export interface Attack {
  /** Row of the table of what was proven. */
  readonly row: string;
  readonly what: string;
  /** Most that may get through on so many servers in so many seconds. */
  most(servers: number, seconds: number): number;
  run(abuser: Abuser): Promise<Tally>;
}

const SOCKETS_PER_ADDRESS = Math.ceil(Math.floor(OPEN_FILES * 0.8) * 0.25);
/** Messages of a visitor's with 4,000 characters, as many as at once and then by the minute. */
const longMessages = (_: number, seconds: number) => (100_000 + (10_000 * seconds) / 60) / 4_050;
const requests = (_: number, seconds: number) => 600 + 10 * seconds;

export const ATTACKS: Readonly<Record<string, Attack>> = {
  targets: {
    row: "1",
    what: "URLs that are expensive to read",
    most: () => 0,
    run: ({ flood }) => {
      const targets = [
        `?a${"%CC%81".repeat(1_200)}`,
        `?${"%25&".repeat(1_900)}`,
        `?a${"\u0301".repeat(3_700)}`,
        `?${"%2525252574oken=&".repeat(450)}`,
      ];
      return flood(32, async (n, client) => {
        const { status } = await client.ask(`/healthz${targets[n % targets.length]}`);
        return status >= 500;
      });
    },
  },
  tickets: {
    row: "2",
    what: "bad tickets, and good ones from the same address",
    most: () => 0,
    async run({ flood, clients: [first], name, seconds }) {
      const token = await tokenOf(name);
      const endMs = performance.now() + seconds * 1000;
      // Somebody else at this address: within a second each.
      let good = 0;
      const neighbour = (async () => {
        while (performance.now() < endMs - 1_500) {
          const ticket = await first.mint(token).catch(() => undefined);
          const socket = ticket && (await first.open(`?ticket=${ticket}`).catch(() => undefined));
          if (socket) {
            good++;
            await socket[Symbol.asyncDispose]();
          }
          await Bun.sleep(50);
        }
      })();
      const tally = await flood(32, async (_, client) => {
        const Authorization = "Bearer e30.e30.AAAA";
        const headers = { Authorization };
        const { status } = await client.ask("/api/auth/ws-ticket", { method: "POST", headers });
        return status === 200;
      });
      await neighbour;
      if (good === 0) throw new Error("A good ticket from the same address never got in");
      return tally;
    },
  },
  messages: {
    row: "3",
    what: "one cookie, by reconnecting, with long messages",
    most: longMessages,
    run: (abuser) => floodMessages(abuser, "x".repeat(4_000)),
  },
  quotes: {
    row: "5",
    what: "messages of quotation marks only",
    most: longMessages,
    run: (abuser) => floodMessages(abuser, '"'.repeat(4_000)),
  },
  "sign-outs": {
    row: "4",
    what: "one user's sign-outs, of tokens good and bad",
    // Until they hear of each other, each allows what it may.
    most: (servers, seconds) => 10 * servers + (10 * seconds) / 60,
    async run({ flood, name }) {
      const tokens = await Promise.all(Array.from({ length: 400 }, () => tokenOf(name)));
      return flood(16, async (n, client) => {
        const headers = { Authorization: `Bearer ${tokens[n % tokens.length]}` };
        const body = n % 10 === 0 ? '{"everywhere":true}' : "";
        const { status } = await client.ask("/api/auth/sign-out", {
          ...{ method: "POST", headers },
          ...(body && { body }),
        });
        return status === 204;
      });
    },
  },
  sockets: {
    row: "7",
    what: "all sockets, from one address with 41 cookies",
    most: (servers) => SOCKETS_PER_ADDRESS * servers,
    async run({ flood, clients }) {
      const cookies = await Promise.all(Array.from({ length: 41 }, () => clients[0].cookie()));
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
    },
  },
  pages: {
    row: "8",
    what: "pages of 200 long messages",
    most: requests,
    async run({ flood, clients, name }) {
      const pair = await openPair({ client: clients[0], name }, { client: clients[0] });
      const frameTo = { type: "USER_TO_ANON", to: pair.visitor, content: "漢".repeat(4_000) };
      for (let n = 0; n < 60; n++) {
        pair.userSocket.send({ ...frameTo, ref: `${n}` });
        await pair.userSocket.next(({ ref }) => ref === `${n}`);
        await Bun.sleep(50);
      }
      const headers = { Authorization: `Bearer ${pair.token}` };
      return flood(16, async (n, client) => {
        const path =
          n % 2 ? `/api/chats/${pair.visitor}/messages?limit=200` : "/api/chats?limit=200";
        return (await client.ask(path, { headers })).status === 200;
      });
    },
  },
  blocks: {
    row: "8",
    what: "blocks of random ids",
    most: () => 0,
    async run({ flood, name }) {
      const headers = { Authorization: `Bearer ${await tokenOf(name)}` };
      return flood(16, async (_, client) => {
        const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64url");
        const path = `/api/chats/${id}/block`;
        return (await client.ask(path, { method: "PUT", headers })).status === 204;
      });
    },
  },
  admin: {
    row: "12",
    what: "wrong admin tokens",
    // What is compared, and not refused for being too much.
    most: (servers, seconds) => (120 + 10 + 12 * seconds) * servers,
    run: ({ flood }) =>
      flood(16, async (n, client) => {
        const Authorization = `Bearer ${ADMIN_TOKEN.slice(0, -1)}${n % 10}`;
        const path = "/api/admin/identities/alice/sockets";
        const init = { method: "DELETE", headers: { Authorization } };
        return (await client.ask(path, init)).status !== 429;
      }),
  },
  pings: {
    row: "12",
    what: "pings on one socket after the other",
    most: (servers, seconds) => (20 + 20 * seconds) * servers,
    async run({ flood, clients, name, address }) {
      const token = await tokenOf(name);
      // As many as there are tickets in a minute.
      const tickets: string[] = [];
      for (let n = 0; n < 50; n++) tickets.push(await clients[0].mint(token));
      return flood(2, async (_, client) => {
        const ticket = tickets.pop();
        if (ticket === undefined) {
          await Bun.sleep(100);
          return false;
        }
        const headers = { "X-Forwarded-For": address };
        using socket = await openRawSocket(client.origin, `/ws/chat?ticket=${ticket}`, headers);
        for (let n = 0; n < 400; n++) socket.write(frame(OPCODE.ping, "x"));
        await socket.closeCode;
        return socket.frames.filter(({ opcode }) => opcode === OPCODE.pong).length > 60;
      });
    },
  },
  mints: {
    row: "13",
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
    row: "12",
    what: "1,500 TCP connections that say nothing",
    most: () => Number.POSITIVE_INFINITY,
    async run({ clients, seconds }) {
      let open = 0;
      const sockets: Socket[] = [];
      for (let n = 0; n < 1_500; n++) {
        const { hostname, port } = new URL((clients[n % clients.length] as Client).origin);
        const socket = connect({ host: hostname, port: Number(port) }, () => open++);
        socket.on("error", () => {});
        sockets.push(socket);
      }
      await Bun.sleep(seconds * 1000);
      for (const socket of sockets) socket.destroy();
      return { attempts: 1_500, through: open };
    },
  },
};

/** Long messages in an answered chat, from twenty sockets, each opened again when it was ended. */
async function floodMessages(
  { flood, clients, name, address }: Abuser,
  content: string,
): Promise<Tally> {
  // The partner has another address, and only listens.
  const partner = clientAt(clients[0].origin, `${address}0`);
  const { cookie } = await openPair({ client: partner, name }, { client: clients[0] });
  let stored = 0;
  const tally = await flood(20, async (n, client) => {
    const socket = await client.openVisitor(cookie);
    let left = 20;
    const ended = socket.closed.then(() => true);
    socket.onFrame(({ type }) => {
      if (type === "ACK") stored++;
      if (type === "ACK" || type === "ERROR") left--;
    });
    for (let m = 0; m < 20; m++) {
      socket.send({ type: "ANON_TO_USER", to: name, content, ref: `${n} ${m}` });
    }
    for (let turn = 0; turn < 50 && left > 0; turn++) {
      if (await Promise.race([ended, Bun.sleep(10)])) break;
    }
    await socket[Symbol.asyncDispose]();
    return false;
  });
  return { attempts: 20 * tally.attempts, through: stored };
}
