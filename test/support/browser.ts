import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

export type { Browser, BrowserContext, Page };

/** Debian's Chromium without a window, and without the calls home that it makes by itself. */
export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: Bun.which("chromium") ?? "/usr/bin/chromium",
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
      ...["--disable-background-networking", "--disable-component-update"],
      // Nothing is drawn in three dimensions, and nobody waits for a process in reserve.
      ...["--disable-software-rasterizer", "--disable-features=SpareRendererForSitePerProcess"],
    ],
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
  readonly browser: Browser;
  /**
   * Somebody new. To start a page costs a second of processor time, so whoever left earlier is emptied and comes
   * again.
   */
  newcomer(): Promise<Person>;
  /** Somebody with options of their own, who doesn't come again. */
  stranger(options?: Parameters<Browser["newContext"]>[0]): Promise<Person>;
  /** Everybody leaves: after each test. Fails when somebody can't be emptied. */
  leave(): Promise<void>;
}

interface Member extends Person {
  readonly complaints: string[];
  pages: Page[];
  isOpen: boolean;
}

export async function gatherCrowd(): Promise<Crowd> {
  const browser = await launchBrowser();
  const idle: Member[] = [];
  let present: { member: Member; comesAgain: boolean }[] = [];

  async function join(
    options: Parameters<Browser["newContext"]>[0],
    comesAgain: boolean,
  ): Promise<Person> {
    const earlier = comesAgain ? idle.pop() : undefined;
    const member = earlier ?? (await newMember(browser, options));
    present.push({ member, comesAgain });
    return member;
  }

  return {
    browser,
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
    [Symbol.asyncDispose]: () => browser.close(),
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
  context.setDefaultTimeout(10_000);
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

/** Closes all pages but the first, which stays at its server without anything on it, and deletes the cookies. */
async function isEmptied(member: Member): Promise<boolean> {
  const { context, complaints } = member;
  const [first] = member.pages;
  if (!first) return false;
  for (const page of context.pages()) if (page !== first) await page.close();
  const { origin, protocol } = new URL(first.url());
  if (protocol !== "http:") return false;
  try {
    // Of the same origin, or the browser would start another process.
    await first.goto(`${origin}/assets/icon.svg`);
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
