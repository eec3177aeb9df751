import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Browser,
  type BrowserContext,
  chromium,
  type LaunchOptions,
  type Page,
} from "playwright-core";

export type { Browser, BrowserContext, Page };

const LAUNCH: LaunchOptions = {
  executablePath: Bun.which("chromium") ?? "/usr/bin/chromium",
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
    ...["--disable-background-networking", "--disable-component-update"],
    "--disable-software-rasterizer",
  ],
};

/** Debian's Chromium without a window, and without the calls home that it makes by itself. */
export function launchBrowser(): Promise<Browser> {
  return chromium.launch(LAUNCH);
}

/** The same with its settings in `folder`, and whatever certificates servers have. */
export function launchWith(folder: string, args: readonly string[]): Promise<BrowserContext> {
  return chromium.launchPersistentContext(folder, {
    ...LAUNCH,
    args: [...(LAUNCH.args ?? []), ...args],
    ignoreHTTPSErrors: true,
    viewport: { width: 1000, height: 700 },
    reducedMotion: "reduce",
  });
}

/** Somebody with a browser of their own, in which there is nothing of anybody else's. */
export interface Person {
  readonly context: BrowserContext;
  /** What their pages complained about: console errors, exceptions, violations of their policy. */
  readonly complaints: readonly string[];
  /** The first page, or one more. */
  open(): Promise<Page>;
}

/** One browser for all tests of a file. */
export interface Crowd extends AsyncDisposable {
  /**
   * Somebody new. To start a page costs a second of processor time, so whoever left earlier is emptied and comes
   * again.
   */
  newcomer(): Promise<Person>;
  /** Somebody with options of their own, who doesn't come again. */
  stranger(options?: Parameters<Browser["newContext"]>[0]): Promise<Person>;
  /** Everybody leaves: after each test. */
  leave(): Promise<void>;
}

interface Member extends Person {
  readonly complaints: string[];
  pages: Page[];
  isOpen: boolean;
}

/** The browser starts with the first of them. */
export function gatherCrowd(): Crowd {
  let browser: Browser | undefined;
  let idle: Member[] = [];
  let present: { member: Member; comesAgain: boolean }[] = [];

  async function join(
    options: Parameters<Browser["newContext"]>[0],
    comesAgain: boolean,
  ): Promise<Person> {
    // A test that has timed out takes the browser with it.
    if (!browser?.isConnected()) {
      browser = await launchBrowser();
      idle = [];
    }
    const earlier = comesAgain ? idle.pop() : undefined;
    const member = earlier ?? (await newMember(browser, options));
    present.push({ member, comesAgain });
    return member;
  }

  return {
    newcomer: () => join({}, true),
    stranger: (options) => join(options, false),
    async leave() {
      const leaving = present;
      present = [];
      for (const { member, comesAgain } of leaving) {
        if (comesAgain && (await isEmptied(member))) idle.push(member);
        else await member.context.close();
      }
    },
    async [Symbol.asyncDispose]() {
      await browser?.close();
    },
  };
}

async function newMember(
  browser: Browser,
  options: Parameters<Browser["newContext"]>[0],
): Promise<Member> {
  const context = await browser.newContext({
    viewport: { width: 1000, height: 700 },
    reducedMotion: "reduce",
    ...options,
  });
  context.setDefaultTimeout(30_000);
  const complaints: string[] = [];
  collectComplaints(context, complaints);
  const member: Member = {
    context,
    complaints,
    pages: [],
    isOpen: false,
    async open() {
      const [first] = member.pages;
      if (first && !member.isOpen) {
        member.isOpen = true;
        return first;
      }
      member.isOpen = true;
      const page = await context.newPage();
      member.pages.push(page);
      return page;
    },
  };
  return member;
}

/** Closes all pages but one, which goes to its server's first page, and deletes the cookies. */
async function isEmptied(member: Member): Promise<boolean> {
  const { context, complaints } = member;
  const first = member.pages.find((page) => !page.isClosed());
  if (!first) return false;
  for (const page of context.pages()) if (page !== first) await page.close();
  const { origin, protocol } = new URL(first.url());
  if (protocol !== "http:") return false;
  try {
    // Of the same origin, or the browser would start another process.
    await first.goto(origin);
    await first.setViewportSize({ width: 1000, height: 700 });
    await context.setOffline(false);
    await context.clearCookies();
  } catch {
    return false;
  }
  member.pages = [first];
  member.isOpen = false;
  complaints.length = 0;
  return true;
}

/** Everything that pages of a context complain about. */
export function collectComplaints(
  context: BrowserContext,
  complaints: string[] = [],
): readonly string[] {
  context.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(String(error.error())));
  return complaints;
}

/** A browser whose settings block all cookies. */
export async function launchWithoutCookies(): Promise<
  AsyncDisposable & Pick<Person, "open" | "complaints">
> {
  const folder = await mkdtemp(join(tmpdir(), "ws-ticket-"));
  const settings = { profile: { default_content_setting_values: { cookies: 2 } } };
  await Bun.write(join(folder, "Default/Preferences"), JSON.stringify(settings));
  const context = await chromium.launchPersistentContext(folder, LAUNCH);
  return {
    complaints: collectComplaints(context),
    open: () => context.newPage(),
    async [Symbol.asyncDispose]() {
      await context.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
