import { afterAll, afterEach, beforeAll } from "bun:test";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPages } from "../../src/page/pages.ts";
import { type BrowserContext, launchWith } from "./browser.ts";
import { certificateFor } from "./certificate.ts";
import { startServer, type TestServer } from "./server.ts";
import { startTlsFront } from "./tls.ts";

/** A chat server and pages of other sites that have it in a frame, each under a host name of its own, over TLS. */
export interface Embedding extends AsyncDisposable {
  readonly server: TestServer;
  /** Where browsers find the server. */
  readonly chat: string;
  /** A page of the same site, one of another site, and one of a site that isn't allowed. */
  readonly sameSite: string;
  readonly crossSite: string;
  readonly foreign: string;
}

const CHAT = "chat.site.test";
const HOSTS = { sameSite: "www.site.test", crossSite: "shop.other.test", foreign: "evil.test" };

/** `attributes`: of the script on the pages, beside its address and the user. `policy`: the pages' own, except at `/open`. */
export async function startEmbedding(
  options: {
    user?: string;
    attributes?: string;
    policy?: (chat: string) => string;
    /** Whether the pages may also call the server as themselves. */
    areAllowed?: boolean;
    /** Before all paths of the server's, without a slash at its end. */
    path?: string;
  } = {},
): Promise<Embedding> {
  const { user = "alice", attributes = "", policy, areAllowed = false, path = "" } = options;
  const tls = await certificateFor(...[CHAT, ...Object.values(HOSTS)].map((name) => `DNS:${name}`));
  const front = await startTlsFront(tls);
  const chatOrigin = `https://${CHAT}:${front.port}`;
  const chat = chatOrigin + path;
  const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>A shop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>A shop</h1><a href="#">A link</a>
<script async src="${chat}/embed.js" data-user="${user}" ${attributes}></script>`;
  const pages = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls,
    fetch: ({ url }) =>
      new Response(page, {
        headers: {
          "Content-Type": "text/html",
          ...(policy && !url.endsWith("/open") && { "Content-Security-Policy": policy(chat) }),
        },
      }),
  });
  const origin = (host: string) => `https://${host}:${pages.port}`;
  const embedOrigins = [origin(HOSTS.sameSite), origin(HOSTS.crossSite)];
  const server = startServer({
    embedded: true,
    publicUrl: chat,
    ...(areAllowed && { origins: [chatOrigin, ...embedOrigins] }),
    pages: createPages({ demo: false, embedOrigins, publicUrl: new URL(chat) }),
  });
  front.target = server.port;
  return {
    server,
    chat,
    sameSite: origin(HOSTS.sameSite),
    crossSite: origin(HOSTS.crossSite),
    foreign: origin(HOSTS.foreign),
    async [Symbol.asyncDispose]() {
      await pages.stop(true);
      await server[Symbol.asyncDispose]();
      await front[Symbol.asyncDispose]();
    },
  };
}

/** Which cookies a browser keeps in frames on other sites, as its settings say it. */
const COOKIE_SETTINGS = {
  all: { cookie_controls_mode: 0 },
  /** One for each site around (CHIPS), as most browsers do without being asked. */
  partitioned: { cookie_controls_mode: 1 },
  none: { default_content_setting_values: { cookies: 2 } },
};

/** A browser for which the host names above are this machine's. */
export async function openBrowser(
  cookies: keyof typeof COOKIE_SETTINGS,
): Promise<{ context: BrowserContext } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "ws-ticket-browser-"));
  await mkdir(join(folder, "Default"));
  const settings = { profile: COOKIE_SETTINGS[cookies] };
  await Bun.write(join(folder, "Default/Preferences"), JSON.stringify(settings));
  const context = await launchWith(folder, ["--host-resolver-rules=MAP *.test 127.0.0.1"]);
  context.setDefaultTimeout(30_000);
  return {
    context,
    async [Symbol.asyncDispose]() {
      await context.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** One for all tests of a `describe`: each of them leaves neither a cookie nor a page in it. */
export function shareBrowser(cookies: keyof typeof COOKIE_SETTINGS): {
  readonly context: BrowserContext;
} {
  let browser: Awaited<ReturnType<typeof openBrowser>>;
  beforeAll(async () => {
    browser = await openBrowser(cookies);
  });
  afterEach(async () => {
    await browser.context.clearCookies();
    for (const page of browser.context.pages().slice(1)) await page.close();
  });
  afterAll(() => browser[Symbol.asyncDispose]());
  return {
    get context() {
      return browser.context;
    },
  };
}
