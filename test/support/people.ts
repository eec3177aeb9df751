import { signToken } from "../../src/gate/token.ts";
import { openSocket, type TestSocket } from "./socket.ts";

export const TOKEN_SECRET = new TextEncoder().encode("test token secret, 32 bytes or more");
export const SESSION_SECRET = new TextEncoder().encode("test session secret, 32 bytes or more");

/** An HTTP answer, its body read as JSON where it is any. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint: a body is whatever the server sends
  readonly body: any;
}

/** Who sends a request, and how. */
export interface Asking {
  readonly method?: string;
  /** Signed in as this user. */
  readonly user?: string;
  /** A visitor by `name=value`, on a page of the server's own. */
  readonly cookie?: string;
  /** These stand in for the others; one that is `null` is left out. */
  readonly headers?: Record<string, string | null>;
}

/** Users and visitors of one server, wherever it runs. */
export interface People {
  /** A valid token, an hour long by default. */
  token(
    user?: string,
    options?: { ttlMs?: number; claims?: Record<string, unknown> },
  ): Promise<string>;
  mint(token: string): Promise<Response>;
  /** A fresh ticket for `user`. */
  ticket(user?: string): Promise<string>;
  /** `name=value` of a new visitor's cookie. */
  visitorCookie(): Promise<string>;
  /** Open sockets; the promise rejects when they are refused. */
  openUser(user?: string): Promise<TestSocket>;
  openVisitor(cookie?: string): Promise<TestSocket>;
  ask(path: string, asking?: Asking): Promise<Answer>;
}

/** `ca`: the server's certificate, where it vouches for itself. */
export function peopleOf(
  origin: string,
  { nowMs = Date.now, ca }: { nowMs?: () => number; ca?: string } = {},
): People {
  const socketUrl = `${origin.replace("http", "ws")}/ws/chat`;
  const trust = ca === undefined ? {} : { tls: { ca } };
  const opened = async (socket: TestSocket) => {
    await socket.opened;
    return socket;
  };
  const self: People = {
    token: (user = "alice", { ttlMs = 3_600_000, claims } = {}) =>
      signToken({
        secret: TOKEN_SECRET,
        user,
        expiresAtMs: nowMs() + ttlMs,
        ...(claims && { claims }),
      }),
    mint: (token) =>
      fetch(`${origin}/api/auth/ws-ticket`, {
        ...{ method: "POST", ...trust },
        headers: { Authorization: `Bearer ${token}` },
      }),
    async ticket(user) {
      const answer = await self.mint(await self.token(user));
      return ((await answer.json()) as { ticket: string }).ticket;
    },
    async visitorCookie() {
      const url = `${origin}/api/auth/anonymous-session`;
      const answer = await fetch(url, { method: "POST", ...trust });
      return answer.headers.get("set-cookie")?.split(";")[0] ?? "";
    },
    openUser: async (user) =>
      opened(openSocket(`${socketUrl}?ticket=${await self.ticket(user)}`, {}, { ca })),
    openVisitor: async (cookie) => {
      const headers = { Origin: origin, Cookie: cookie ?? (await self.visitorCookie()) };
      return opened(openSocket(socketUrl, headers, { ca }));
    },
    async ask(path, { method = "GET", user, cookie, headers } = {}) {
      const all = {
        ...(user !== undefined && { Authorization: `Bearer ${await self.token(user)}` }),
        ...(cookie !== undefined && { Cookie: cookie, Origin: origin }),
        ...headers,
      };
      const sent = Object.entries(all).flatMap(([name, value]) =>
        value === null ? [] : [[name, value] as [string, string]],
      );
      const answer = await fetch(`${origin}${path}`, { method, headers: sent, ...trust });
      const text = await answer.text();
      const isJson = /json/.test(answer.headers.get("content-type") ?? "");
      return {
        status: answer.status,
        headers: answer.headers,
        text,
        body: isJson && text ? JSON.parse(text) : undefined,
      };
    },
  };
  return self;
}

/** The id inside a visitor's cookie. */
export function visitorIdOf(cookie: string): string {
  return cookie.split(".")[1] ?? "";
}
