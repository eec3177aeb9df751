import { openSocket, type TestSocket } from "../support/socket.ts";
import { tokenOf } from "./tokens.ts";

/** Somebody at an address of the network's, as the proxy in front says. */
export interface Client {
  readonly origin: string;
  /** Any answer, read to its end. */
  ask(
    path: string,
    init?: { method?: string; headers?: Record<string, string>; body?: string },
  ): Promise<{ status: number; headers: Headers; text: string }>;
  /** An open socket; rejects when the handshake is refused. */
  open(query: string, headers?: Record<string, string>): Promise<TestSocket>;
  /** A ticket; rejects when there is none. */
  mint(token: string): Promise<string>;
  /** A new visitor's cookie. */
  cookie(): Promise<string>;
  openUser(token: string): Promise<TestSocket>;
  openVisitor(cookie: string): Promise<TestSocket>;
}

export function clientAt(origin: string, address: string): Client {
  const from = { "X-Forwarded-For": address };
  const self: Client = {
    origin,
    async ask(path, { headers, ...init } = {}) {
      const answer = await fetch(`${origin}${path}`, { ...init, headers: { ...from, ...headers } });
      return { status: answer.status, headers: answer.headers, text: await answer.text() };
    },
    async open(query, headers) {
      const url = `${origin.replace("http", "ws")}/ws/chat${query}`;
      const socket = openSocket(url, { ...from, ...headers });
      await socket.opened;
      return socket;
    },
    async mint(token) {
      const headers = { Authorization: `Bearer ${token}` };
      const { status, text } = await self.ask("/api/auth/ws-ticket", { method: "POST", headers });
      if (status !== 200) throw new Error(`No ticket: ${status}`);
      return JSON.parse(text).ticket;
    },
    async cookie() {
      const { status, headers } = await self.ask("/api/auth/anonymous-session", { method: "POST" });
      if (status !== 204) throw new Error(`No cookie: ${status}`);
      return headers.get("set-cookie")?.split(";")[0] ?? "";
    },
    openUser: async (token) => self.open(`?ticket=${await self.mint(token)}`),
    openVisitor: (cookie) => self.open("", { Cookie: cookie, Origin: origin }),
  };
  return self;
}

/** A visitor and a user with a chat that has an answer, both with an open socket. */
export async function openPair(
  user: { client: Client; name: string },
  visiting: { client: Client; cookie?: string },
) {
  const token = await tokenOf(user.name);
  const cookie = visiting.cookie ?? (await visiting.client.cookie());
  const [mine, theirs] = await Promise.all([
    user.client.openUser(token),
    visiting.client.openVisitor(cookie),
  ]);
  theirs.send({ type: "ANON_TO_USER", to: user.name, content: "begin" });
  const { from: visitor } = await mine.next(({ content }) => content === "begin");
  mine.send({ type: "USER_TO_ANON", to: visitor, content: "answer" });
  await theirs.next(({ content }) => content === "answer");
  return { token, cookie, visitor: visitor as string, userSocket: mine, visitorSocket: theirs };
}
