import { Failure } from "../../client/mod.ts";
import { BASE } from "./base.ts";

/** Where the inbox's own routes are: its cookie is sent there and nowhere else. */
export const INBOX_URL: string = `${BASE}/inbox`;
const SESSION_PATH = `${INBOX_URL}/api/session`;

/** Who is signed in. */
export interface Session {
  readonly user: string;
  readonly name?: string;
}

/** Whoever the browser's cookie says; `undefined` for nobody. Rejects with a `Failure`. */
export async function readSession(): Promise<Session | undefined> {
  const session: { user: string | null; name?: string } = await (
    await send("GET", SESSION_PATH)
  ).json();
  return session.user === null ? undefined : (session as Session);
}

/** Exchanges a user's token for the cookie. Rejects with a `Failure`. */
export async function startSession(token: string): Promise<Session | undefined> {
  await send("POST", SESSION_PATH, { headers: { Authorization: `Bearer ${token}` } });
  return readSession();
}

/** The demo's token for a name. Rejects with a `Failure`. */
export async function demoToken(name: string): Promise<string> {
  const response = await send("POST", `${BASE}/api/demo/token`, {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name }),
  });
  return ((await response.json()) as { token: string }).token;
}

async function send(method: string, path: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(path, { method, ...init }).catch((error: unknown) => {
    throw Failure.from(error);
  });
  if (!response.ok) throw await Failure.of(response, Date.now());
  return response;
}
