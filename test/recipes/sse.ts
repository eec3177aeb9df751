import { createGate, refusalResponse, type UserCredential } from "ws-ticket";

const gate = createGate({ users: yourSession });

/** Any proof of your own: a session, or here an API key. */
function yourSession({ headers }: Request): UserCredential | undefined {
  if (headers.get("x-api-key") !== process.env.API_KEY) return undefined;
  return { user: "alice", session: "key 1", issuedAtMs: 0, expiresAtMs: Date.now() + 3_600_000 };
}

/** `POST /tickets?for=events`, or `?for=report.txt`: a ticket for the stream, or for one file. */
async function issue(request: Request): Promise<Response> {
  const credential = yourSession(request);
  if (!credential) return refusalResponse({ ok: false, code: "token_missing" });
  const purpose = new URL(request.url).searchParams.get("for") ?? "events";
  const issued = await gate.issue({ ...credential, purpose });
  return issued.ok ? Response.json(issued) : refusalResponse(issued);
}

/** `new EventSource("/events?ticket=…")`. */
async function events(request: Request): Promise<Response> {
  const ticket = new URL(request.url).searchParams.get("ticket") ?? "";
  const redeemed = await gate.redeem(ticket, { purpose: "events" });
  if (!redeemed.ok) return refusalResponse(redeemed);
  const { identity } = redeemed;
  let unfollow: (() => void) | undefined;
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(`data: Hello ${identity.id}\n\n`);
      unfollow = gate.follow(identity, () => controller.close());
    },
    cancel: () => unfollow?.(),
  });
  return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
}

/** `<a href="/files/report.txt?ticket=…">`. */
async function download(request: Request): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  const name = pathname.slice("/files/".length);
  const redeemed = await gate.redeem(searchParams.get("ticket") ?? "", { purpose: name });
  if (!redeemed.ok) return refusalResponse(redeemed);
  return new Response(`${name} for ${redeemed.identity.id}`, {
    headers: { "Content-Disposition": "attachment" },
  });
}

const server = Bun.serve({
  routes: {
    "/api/auth/*": (request) => gate.fetch(request),
    "/tickets": { POST: issue },
    "/events": { GET: events },
    "/files/*": { GET: download },
  },
});
console.log(`Listening on ${server.url}`);
