import { Hono } from "hono/tiny";
import { headersFor, type Incoming } from "../request/incoming.ts";
import { refuse } from "../request/refusal.ts";
import { refused, type RouteContext, type RouteEnv } from "../request/routes.ts";
import { isUserId } from "../wire/ids.ts";
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

/** The pages: what this is, a visitor's chat, a user's inbox; their files, and the client as one of them. */
export function createPages(options: PageOptions): Hono<RouteEnv> {
  const pages = new Hono<RouteEnv>();
  // Loaded with the first request for a page, so that a server that only serves sockets starts without.
  const site = () => import("./site.ts");

  pages
    .get("/", async (c) => {
      const origin = originOf(options.publicUrl ?? c.env.incoming.url);
      const { home } = await site();
      return c.html(home({ ...options, origin }), 200, headersOf(c.env.incoming));
    })
    .all(refuseMethod);

  pages
    .get("/chat/:user", async (c) => {
      const user = c.req.param("user");
      if (!isUserId(user)) return refused(c, refuse("not_found"));
      const { chat } = await site();
      return c.html(chat({ user }), 200, headersOf(c.env.incoming));
    })
    .all(refuseMethod);

  pages
    .get("/inbox", async (c) => {
      const { inbox } = await site();
      return c.html(inbox(options), 200, headersOf(c.env.incoming));
    })
    .all(refuseMethod);

  for (const path of ["/client.js", "/assets/:name"]) {
    pages
      .get(path, async (c) => {
        const { files } = await site();
        const file = (await files()).get(c.req.path);
        if (!file) return refused(c, refuse("not_found"));
        const headers = {
          ...headersOf(c.env.incoming),
          "Cache-Control": "no-cache",
          "Content-Type": file.type,
          ETag: file.etag,
        };
        if (c.req.header("if-none-match") === file.etag) return c.body(null, 304, headers);
        return c.body(file.text, 200, headers);
      })
      .all(refuseMethod);
  }
  return pages;
}

function headersOf(incoming: Incoming): Record<string, string> {
  return { ...headersFor(incoming), ...PAGE_HEADERS };
}

/** The server's origin, to be pasted into a shell; a Host that no server has isn't repeated there. */
function originOf({ origin }: URL): string {
  return /^https?:\/\/[\w.:[\]-]+$/.test(origin) ? origin : "http://127.0.0.1:3000";
}

function refuseMethod(c: RouteContext): Response {
  return refused(c, refuse("method_not_allowed", { Allow: "GET, HEAD" }));
}
