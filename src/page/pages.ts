import { Hono } from "hono/tiny";
import type { Profile } from "../gate/identity.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import { createRecentMap } from "../lib/recent.ts";
import { headersFor, type Incoming, type Sharing } from "../request/incoming.ts";
import { publicPathOf } from "../request/origin.ts";
import { refuse, refuseFor } from "../request/refusal.ts";
import { refused, type RouteContext, type RouteEnv } from "../request/routes.ts";
import { isUserId } from "../wire/ids.ts";
import { EMBED_PREFIX } from "../wire/paths.ts";
import type { SiteFile } from "./files.ts";
import type { PageOptions } from "./views.tsx";

/** The policy of a page. `ancestor`: the one origin whose pages may have it in a frame. */
function policyOf(ancestor = "'none'"): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    `frame-ancestors ${ancestor}`,
    // Not even our own scripts can turn text into markup.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; ");
}

const PAGE_HEADERS = {
  "Content-Security-Policy": policyOf(),
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
};

/** A year, in seconds: what has its hash in its name never changes. */
const IMMUTABLE = "public, max-age=31536000, immutable";
/** Asks whether there is a newer one, every time; may be shown again by Back. */
const REVALIDATED = "no-cache";
/** For what other sites load: a new version is there after ten minutes. */
const BRIEF = "public, max-age=600";
/** Modules may be imported by the pages of allowed origins. */
const MODULE_SHARING: Sharing = { methods: "GET", credentials: false };

/** The pages: what this is, a visitor's chat, a user's inbox; their files, and the client as one of them. */
export interface Pages {
  readonly routes: Hono<RouteEnv>;
  /** The page in place of the refusal `not_found`; `undefined` for whoever isn't a browser that shows it. */
  notFound(incoming: Incoming): Promise<Response> | undefined;
}

/** Pages that are kept as they were put together, about: that takes longer than everything else about a request. */
const PAGES_KEPT = 500;
/** Until they are put together anew, in milliseconds. */
const KEPT_MS = 3_600_000;

/** Looks at what a user shows, per address and minute, loopback excepted; beyond it, the id stands in the name's place. */
const LOOKS_PER_MINUTE = 600;
/** Chat pages per address and minute, loopback excepted: one of a user who wasn't shown lately is put together anew. */
const CHAT_PAGES_PER_MINUTE = 3_000;

/** `profileOf`: what a user shows to visitors. Default: nothing but the id. */
export function createPages(
  options: PageOptions & {
    profileOf?: (user: string) => Promise<Profile>;
    clock?: Clock;
  },
): Pages {
  const { profileOf = async () => ({}), clock = systemClock } = options;
  const looks = createRateLimit<string>({ allowed: LOOKS_PER_MINUTE, windowMs: 60_000, clock });
  const views = createRateLimit<string>({
    allowed: CHAT_PAGES_PER_MINUTE,
    windowMs: 60_000,
    clock,
  });
  const routes = new Hono<RouteEnv>();
  // Loaded with the first request for a page, so that a server that only serves sockets starts without.
  let loaded: ReturnType<typeof load> | undefined;
  const site = () => {
    loaded ??= load(publicPathOf(options));
    // The next request tries again.
    loaded.catch(() => {
      loaded = undefined;
    });
    return loaded;
  };

  const kept = createRecentMap<string, string>({ keepMs: KEPT_MS, atLeast: PAGES_KEPT, clock });

  /** What `make` puts together; `parts` is all that it depends on beside the settings. */
  async function pageOf(
    parts: readonly unknown[],
    make: () => { toString(): string } | Promise<{ toString(): string }>,
  ): Promise<string> {
    const key = JSON.stringify(parts);
    const known = kept.get(key);
    if (known !== undefined) return known;
    const html = String(await make());
    kept.set(key, html);
    return html;
  }

  /** A name that can't be read now is no reason to refuse the page. */
  async function profileFor({ limitKey }: Incoming, user: string): Promise<Profile> {
    const waitMs = limitKey === undefined ? 0 : looks.take(limitKey);
    return waitMs > 0 ? {} : profileOf(user).catch(() => ({}));
  }

  function waitForView({ limitKey }: Incoming): number {
    return limitKey === undefined ? 0 : views.take(limitKey);
  }

  routes
    .get("/", async (c) => {
      const { home, ...places } = await site();
      const html = await pageOf(["home"], () => home({ ...options, ...places }));
      return page(c.env.incoming, html, { caching: REVALIDATED });
    })
    .all(refuseMethod);

  routes
    .get("/chat/:user", async (c) => {
      const user = c.req.param("user");
      if (!isUserId(user)) return refused(c, refuse("not_found"));
      const waitMs = waitForView(c.env.incoming);
      if (waitMs > 0) return refused(c, refuseFor(waitMs));
      const { chat, ...places } = await site();
      const profile = await profileFor(c.env.incoming, user);
      const html = await pageOf(["chat", user, profile], () => chat({ user, profile, ...places }));
      return page(c.env.incoming, html, { caching: REVALIDATED });
    })
    .all(refuseMethod);

  const embedOrigins = new Set(options.embedOrigins);
  if (embedOrigins.size > 0) {
    routes
      .get(`${EMBED_PREFIX}/:user`, async (c) => {
        const user = c.req.param("user");
        const { host, language } = readEmbedding(c.env.incoming.url);
        if (!isUserId(user) || !embedOrigins.has(host)) return refused(c, refuse("not_found"));
        const waitMs = waitForView(c.env.incoming);
        if (waitMs > 0) return refused(c, refuseFor(waitMs));
        const { chat, ...places } = await site();
        const profile = await profileFor(c.env.incoming, user);
        const embed = { host, language };
        const html = await pageOf(["embed", user, profile, embed], () =>
          chat({ user, profile, embed, ...places }),
        );
        return page(c.env.incoming, html, { caching: REVALIDATED, ancestor: host });
      })
      .all(refuseMethod);

    routes
      .get("/embed.js", async (c) => {
        const { served, encodingOf } = await site();
        const file = served.get("/embed.js") as SiteFile;
        const response = send(c, file, encodingOf(c.req.header("accept-encoding")));
        response.headers.set("Cache-Control", BRIEF);
        // Any page may load it; it works where the frame may be.
        response.headers.set("Cross-Origin-Resource-Policy", "cross-origin");
        return response;
      })
      .all(refuseMethod);
  }

  // What has been read in the inbox isn't shown again by Back once the user has signed out: it isn't kept.
  for (const path of ["/inbox", "/inbox/:visitor"]) {
    routes
      .get(path, async (c) => {
        const { inbox, ...places } = await site();
        const html = await pageOf(["inbox"], () => inbox({ ...options, ...places }));
        return page(c.env.incoming, html);
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
      return site().then(async ({ notFound, ...places }) => {
        const html = await pageOf(["not found"], () => notFound(places));
        return page(incoming, html, { status: 404 });
      });
    },
  };
}

/** The views and the files, all of them below `publicPath`. */
async function load(publicPath: string) {
  const { files, ...views } = await import("./site.ts");
  const made = await files();
  const pathOf = (name: string) => publicPath + made.pathOf(name);
  return { ...views, ...made, pathOf, publicPath };
}

/** A page. Without `caching` it is not kept at all. */
function page(
  incoming: Incoming,
  html: string,
  {
    status = 200,
    caching,
    ancestor,
  }: { status?: number; caching?: string; ancestor?: string } = {},
): Response {
  const headers = {
    ...headersFor(incoming),
    ...PAGE_HEADERS,
    ...(ancestor && { "Content-Security-Policy": policyOf(ancestor) }),
    ...(caching && { "Cache-Control": caching }),
    "Content-Type": "text/html; charset=UTF-8",
  };
  return new Response(incoming.request.method === "HEAD" ? null : html, {
    status,
    headers,
  });
}

/** Where the page that has the chat in a frame is from, and the language that it asks for. */
function readEmbedding({ searchParams }: URL): { host: string; language: string | undefined } {
  const host = searchParams.get("host") ?? "";
  const language = searchParams.get("lang") ?? "";
  const isTag = /^[A-Za-z]{2,3}(?:-[A-Za-z\d]{2,8}){0,3}$/.test(language);
  return { host, language: isTag ? language : undefined };
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
