import { createGate, refusalResponse, type UserCredential } from "ws-ticket";

const gate = createGate({ users: yourSession });

/** Any proof of your own: a session's cookie, or here an API key. */
function yourSession({ headers }: Request): UserCredential | undefined {
  if (headers.get("x-api-key") !== process.env.API_KEY) return undefined;
  const issuedAtMs = Date.parse("2026-01-01");
  return { user: "alice", session: "key 1", issuedAtMs, expiresAtMs: Date.now() + 600_000 };
}

/** `POST` to a path issues a ticket for this path, and for nothing else. */
async function issue(request: Request): Promise<Response> {
  const credential = yourSession(request);
  if (!credential) return new Response("Sign in first", { status: 401 });
  const issued = await gate.issue({ ...credential, purpose: new URL(request.url).pathname });
  return issued.ok ? Response.json(issued) : refusalResponse(issued);
}

/** For `new EventSource("/events?ticket=…")`, which can't send headers. */
async function events(request: Request, server: Bun.Server<undefined>): Promise<Response> {
  const ticket = new URL(request.url).searchParams.get("ticket") ?? "";
  const redeemed = await gate.redeem(ticket, { purpose: "/events" });
  if (!redeemed.ok) return refusalResponse(redeemed);
  server.timeout(request, 0);
  let unfollow: (() => void) | undefined;
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(`data: Hello ${redeemed.identity.id}\n\n`);
      unfollow = gate.follow(redeemed.identity, () => controller.close());
    },
    cancel: () => unfollow?.(),
  });
  return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
}

/** For `<a href="/report.csv?ticket=…">`. */
async function download(request: Request): Promise<Response> {
  const ticket = new URL(request.url).searchParams.get("ticket") ?? "";
  const redeemed = await gate.redeem(ticket, { purpose: "/report.csv" });
  if (!redeemed.ok) return refusalResponse(redeemed);
  return new Response(`of,${redeemed.identity.id}\n`, { headers: { "Content-Type": "text/csv" } });
}

const server = Bun.serve({
  routes: {
    "/api/auth/*": (request, server) =>
      gate.fetch(request, { socketAddress: server.requestIP(request)?.address }),
    "/events": { POST: issue, GET: events },
    "/report.csv": { POST: issue, GET: download },
  },
});
console.log(`Listening on ${server.url}`);
