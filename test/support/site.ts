import { createPages } from "../../src/page/pages.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { signToken } from "../../src/gate/token.ts";
import type { Page, Person } from "./browser.ts";
import { fakeClock } from "./clock.ts";
import { startServer, type TestServer, type TestServerOptions, TOKEN_SECRET } from "./server.ts";

/** A server with its pages, in the demo mode unless said otherwise. With a `path`, chats outlive it. */
export function startSite(
  options: {
    demo?: boolean;
    port?: number;
    path?: string;
    /** How long a demo token lives. Default: an hour. */
    tokenTtlMs?: number;
    publicUrl?: URL;
  } & Omit<TestServerOptions, "publicUrl"> = {},
): TestServer {
  const { demo = true, path = ":memory:", tokenTtlMs = 3_600_000 } = options;
  const clock = fakeClock();
  const history = options.history ?? sqliteChatHistory({ path, clock });
  return startServer({
    ...options,
    clock,
    history,
    pages: createPages({
      ...{ demo, profileOf: history.profile, clock },
      ...(options.publicUrl && { publicUrl: options.publicUrl }),
    }),
    ...(demo && {
      signDemoToken: (user: string) =>
        signToken({
          secret: TOKEN_SECRET,
          user,
          expiresAtMs: clock.nowMs() + tokenTtlMs,
          claims: { jti: crypto.randomUUID() },
        }),
    }),
  });
}

let names = 0;

/** A user's name that no other test of the file has. */
export function newName(): string {
  return `alice-${++names}`;
}

/** Opens the chat with `user`, and waits until one can write. */
export async function visit(person: Person, origin: string, user: string): Promise<Page> {
  const page = await person.open();
  await page.goto(`${origin}/chat/${encodeURIComponent(user)}`);
  await page.getByRole("textbox", { name: "Message" }).waitFor();
  return page;
}

/** Signs in to the inbox: with a name in the demo mode, otherwise with a token. */
export async function signIn(
  person: Person,
  origin: string,
  as: { name: string } | { token: string },
): Promise<Page> {
  const page = await person.open();
  await page.goto(`${origin}/inbox`);
  const [label, value] = "token" in as ? ["JWT", as.token] : ["Name", as.name];
  await page.getByRole("textbox", { name: label }).fill(value);
  await page.getByRole("button", { name: "Sign in" }).click();
  await connected(page);
  return page;
}

/** Waits until there is a socket. */
export async function connected(page: Page): Promise<void> {
  await page.locator('#state[data-status="open"]').waitFor({ state: "attached" });
}

/** Picks something from a menu: the chat's, or the inbox's, which is called Menu. */
export async function pick(page: Page, item: string, menu = "Options"): Promise<void> {
  await page.getByRole("button", { name: menu }).click();
  await page.getByRole("button", { name: item, exact: true }).click();
}

/** Writes a message and sends it with Enter. */
export async function say(page: Page, text: string): Promise<void> {
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill(text);
  await box.press("Enter");
}

/** Waits until the conversation shows exactly this, in this order. */
export async function shows(page: Page, ...texts: string[]): Promise<void> {
  await page.waitForFunction(
    (wanted) => {
      const contents = [...document.querySelectorAll('[role="log"] .content')];
      return JSON.stringify(contents.map(({ textContent }) => textContent)) === wanted;
    },
    JSON.stringify(texts),
    { polling: 30 },
  );
}
