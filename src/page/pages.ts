import { Hono } from "hono/tiny";
import { headersFor, type Incoming, type Sharing } from "../request/incoming.ts";
import { refuse } from "../request/refusal.ts";
import { refused, type RouteContext, type RouteEnv } from "../request/routes.ts";
import { isUserId } from "../wire/ids.ts";
import type { SiteFile } from "./files.ts";
import type { PageOptions } from "./views.tsx";

const PAGE_HEADERS = {
  // Trusted Types: not even our own scripts can turn text into markup.
  "Content-Security-Policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; "),
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
};

/** A year, in seconds: what has its hash in its name never changes. */
const IMMUTABLE = "public, max-age=31536000, immutable";
/** Asks whether there is a newer one, every time; may be shown again by Back. */
const REVALIDATED = "no-cache";
/** Modules may be imported by the pages of allowed origins. */
const MODULE_SHARING: Sharing = { methods: "GET", credentials: false };

/** The pages: what this is, a visitor's chat, a user's inbox; their files, and the client as one of them. */
export interface Pages {
  readonly routes: Hono<RouteEnv>;
  /** The page in place of the refusal `not_found`; `undefined` for whoever isn't a browser that shows it. */
  notFound(incoming: Incoming): Promise<Response> | undefined;
}

export function createPages(options: PageOptions): Pages {
  const routes = new Hono<RouteEnv>();
  // Loaded with the first request for a page, so that a server that only serves sockets starts without.
  let loaded: ReturnType<typeof load> | undefined;
  const site = () => {
    loaded ??= load();
    // The next request tries again.
    loaded.catch(() => {
      loaded = undefined;
    });
    return loaded;
  };

  routes
    .get("/", async (c) => {
      const { home, pathOf } = await site();
      return page(c.env.incoming, home({ ...options, pathOf }), { caching: REVALIDATED });
    })
    .all(refuseMethod);

  routes
    .get("/chat/:user", async (c) => {
      const user = c.req.param("user");
      if (!isUserId(user)) return refused(c, refuse("not_found"));
      const { chat, pathOf } = await site();
      return page(c.env.incoming, chat({ user, pathOf }), { caching: REVALIDATED });
    })
    .all(refuseMethod);

  // What has been read in the inbox isn't shown again by Back once the user has signed out: it isn't kept.
  for (const path of ["/inbox", "/inbox/:visitor"]) {
    routes
      .get(path, async (c) => {
        const { inbox, pathOf } = await site();
        return page(c.env.incoming, inbox({ ...options, pathOf }));
      })
      .all(refuseMethod);
  }

  for (const path of ["/client.js", "/assets/:name"]) {
    routes
      .get(path, async (c) => {
        const { served, encodingOf } = await site();
        const file = served.get(c.req.path);
        if (!file) return refused(c, refuse("not_found"));
        return send(c, file, encodingOf(c.req.header("accept-encoding")));
      })
      .all(refuseMethod);
  }

  return {
    routes,
    notFound(incoming) {
      const { method, headers } = incoming.request;
      const isReading = method === "GET" || method === "HEAD";
      if (!isReading || !headers.get("accept")?.includes("text/html")) return undefined;
      if (incoming.url.pathname.startsWith("/api/")) return undefined;
      return site().then(({ notFound, pathOf }) =>
        page(incoming, notFound({ pathOf }), { status: 404 }),
      );
    },
  };
}

async function load() {
  const { files, ...views } = await import("./site.ts");
  return { ...views, ...(await files()) };
}

/** A page. Without `caching` it is not kept at all. */
async function page(
  incoming: Incoming,
  html: string | Promise<string>,
  { status = 200, caching }: { status?: number; caching?: string } = {},
): Promise<Response> {
  const headers = {
    ...headersFor(incoming),
    ...PAGE_HEADERS,
    ...(caching && { "Cache-Control": caching }),
    "Content-Type": "text/html; charset=UTF-8",
  };
  return new Response(incoming.request.method === "HEAD" ? null : String(await html), {
    status,
    headers,
  });
}

function send(c: RouteContext, file: SiteFile, encoding: keyof SiteFile["bodies"]): Response {
  const shared = headersFor(c.env.incoming, file.isImmutable ? undefined : MODULE_SHARING);
  const etag = `"${file.hash}-${encoding}"`;
  const headers = {
    ...shared,
    ...PAGE_HEADERS,
    "Cache-Control": file.isImmutable ? IMMUTABLE : REVALIDATED,
    "Content-Type": file.type,
    ETag: etag,
    Vary: shared.Vary ? `${shared.Vary}, Accept-Encoding` : "Accept-Encoding",
    ...(encoding !== "identity" && { "Content-Encoding": encoding }),
  };
  if (c.req.header("if-none-match") === etag) return c.body(null, 304, headers);
  return c.body(file.bodies[encoding], 200, headers);
}

function refuseMethod(c: RouteContext): Response {
  return refused(c, refuse("method_not_allowed", { Allow: "GET, HEAD" }));
}
