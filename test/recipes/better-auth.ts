import { Database } from "bun:sqlite";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { createGate, type Gate } from "ws-ticket";
import { serve } from "ws-ticket/bun";

const auth = betterAuth({
  database: new Database("auth.sqlite"),
  emailAndPassword: { enabled: true },
  // However a session ends (sign-out, "revoke sessions", a deleted user), its sockets end.
  databaseHooks: { session: { delete: { after: endSockets } } },
});

async function endSockets(session: { id: string; userId: string }): Promise<void> {
  await gate.revoke({ user: session.userId, session: session.id });
}

const gate: Gate = createGate({
  basePath: "/api/gate",
  async users({ headers }) {
    const signedIn = await auth.api.getSession({ headers });
    if (!signedIn) return undefined;
    const { id, userId, createdAt, expiresAt } = signedIn.session;
    return { user: userId, session: id, issuedAtMs: +createdAt, expiresAtMs: +expiresAt };
  },
});

await (await getMigrations(auth.options)).runMigrations();
const server = serve(
  gate,
  { message: (socket, { id }, text) => socket.send(JSON.stringify({ from: id, text })) },
  { path: "/live", port: Number(process.env.PORT ?? 3000), fetch: auth.handler },
);
console.log(`Listening on ${server.url}`);
