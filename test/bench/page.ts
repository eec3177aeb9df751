/**
 * `bun test/bench/page.ts`: what the pages cost a browser. Times depend on the machine; that they don't grow with
 * the number of messages, and the bytes, don't.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { type Browser, launchBrowser, type Page } from "../support/browser.ts";
import { fakeClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import type { TestServer } from "../support/server.ts";
import { signIn, startSite } from "../support/site.ts";
import type { TestSocket } from "../support/socket.ts";

/** Messages in the chat that is open. */
const LENGTHS = [50, 1_000, 6_000] as const;
/** Messages that come in while it is measured. */
const INCOMING = 20;
const CHATS = 200;
const LONG = "A long message, and another sentence in it. ".repeat(80);

const rows: { figure: string; measured: string; target: string }[] = [];
const browser = await launchBrowser();
const folder = await mkdtemp(join(tmpdir(), "ws-ticket-"));
try {
  for (const length of LENGTHS) await timePerMessage(browser, length);
  await bytesPerMessage(browser);
  for (const path of ["/chat/alice", "/inbox"]) await firstVisit(browser, path);
  console.table(rows);
} finally {
  await browser.close();
  await rm(folder, { recursive: true });
}

/** A site with chats of alice's, by the ids of its visitors. */
async function siteWith(chats: ReadonlyMap<string, number>, content: string): Promise<TestServer> {
  const path = join(folder, `${crypto.randomUUID()}.sqlite`);
  const clock = fakeClock();
  const history = sqliteChatHistory({ path, clock });
  history.start(() => {});
  for (const [visitor, length] of chats) {
    const chat = { user: "alice", visitor };
    await history.append({ chat, from: "visitor", content: "Hello", atMs: clock.nowMs() });
    for (let n = 1; n < length; n++) {
      const from = n % 2 === 0 ? "visitor" : "user";
      const text = `${n}: ${content}`.slice(0, 4_000);
      await history.append({ chat, from, content: text, atMs: clock.nowMs() });
    }
  }
  await history.close();
  return startSite({ path });
}

/** The cookie of a visitor whom every site of these tests accepts. */
async function newCookie(): Promise<string> {
  await using site = startSite();
  return await site.visitorCookie();
}

async function openInbox(of: Browser, site: TestServer): Promise<Page> {
  const context = await of.newContext({ viewport: { width: 1_000, height: 700 } });
  const person = { context, complaints: [], open: () => context.newPage() };
  return signIn(person, site.origin, { name: "alice" });
}

/** Sends messages one after the other, each when the one before it is where `selector` finds it. */
async function receive(page: Page, socket: TestSocket, selector: string): Promise<void> {
  for (let n = 0; n < INCOMING; n++) {
    const content = `incoming ${crypto.randomUUID()}`;
    socket.send({ type: "ANON_TO_USER", to: "alice", content });
    await page.waitForFunction(
      ([where, text]) => [...document.querySelectorAll(where)].at(-1)?.textContent === text,
      [selector, content] as const,
    );
  }
}

async function timePerMessage(of: Browser, length: number): Promise<void> {
  const cookie = await newCookie();
  await using site = await siteWith(new Map([[visitorIdOf(cookie), length]]), "as people write");
  const page = await openInbox(of, site);
  await page.locator(".chat").click();
  await page.locator(".message").first().waitFor();
  // Scrolling up until all of it is loaded, as somebody would who reads it all.
  const log = page.getByRole("log");
  const hasOlder = () => log.getByRole("button", { name: "Earlier messages" }).isVisible();
  while (await hasOlder()) {
    await log.evaluate((element) => (element.scrollTop = 0));
    site.clock.advance(1_000);
  }
  const jump = page.getByRole("button", { name: "Newest messages" });
  if (await jump.isVisible()) await jump.click();
  await using socket = await site.openVisitor(cookie);
  const session = await page.context().newCDPSession(page);
  // The time that the thread has had a processor, whoever else wants one.
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const busyMs = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return (metrics.find(({ name }) => name === "TaskDuration")?.value ?? 0) * 1_000;
  };
  await receive(page, socket, ".content");
  site.clock.advance(1_000);
  const before = await busyMs();
  await receive(page, socket, ".content");
  const each = (await busyMs()) - before;
  rows.push({
    figure: `main thread per message, ${length} in the chat`,
    measured: `${(each / INCOMING).toFixed(1)} ms`,
    target: "the same at any length",
  });
  await page.context().close();
}

async function bytesPerMessage(of: Browser): Promise<void> {
  const cookie = await newCookie();
  const ids = Array.from({ length: CHATS - 1 }, () =>
    visitorIdOf(
      `v.${Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64url")}`,
    ),
  );
  const chats = new Map([...ids, visitorIdOf(cookie)].map((id) => [id, 2]));
  await using site = await siteWith(chats, LONG);
  const page = await openInbox(of, site);
  await page.locator(".chat").first().waitFor();
  await using socket = await site.openVisitor(cookie);
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.dataReceived", ({ dataLength }) => (bytes += dataLength));
  session.on("Network.webSocketFrameReceived", ({ response }) => {
    bytes += response.payloadData.length;
  });
  for (let n = 0; n < INCOMING; n++) {
    const content = `incoming ${n}`;
    socket.send({ type: "ANON_TO_USER", to: "alice", content });
    await page.locator(".preview").first().getByText(content, { exact: true }).waitFor();
  }
  rows.push({
    figure: `bytes per message, ${CHATS} chats in the list`,
    measured: `${Math.round(bytes / INCOMING)} B`,
    target: "its frame alone",
  });
  await page.context().close();
}

async function firstVisit(of: Browser, path: string): Promise<void> {
  await using site = startSite();
  const context = await of.newContext({ viewport: { width: 390, height: 700 } });
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  let requests = 0;
  let bytes = 0;
  session.on("Network.requestWillBeSent", () => requests++);
  session.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  await page.addInitScript(() => {
    Object.assign(globalThis, { shift: 0 });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries() as unknown as { value: number }[]) {
        (globalThis as unknown as { shift: number }).shift += entry.value;
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(site.origin + path, { waitUntil: "networkidle" });
  const shift = await page.evaluate(() => (globalThis as unknown as { shift: number }).shift);
  rows.push(
    { figure: `first visit of ${path}: requests`, measured: String(requests), target: "" },
    {
      figure: `first visit of ${path}: bytes over the wire`,
      measured: `${(bytes / 1_000).toFixed(1)} KB`,
      target: "",
    },
    {
      figure: `first visit of ${path}: layout shift`,
      measured: shift.toFixed(3),
      target: "0.02 at most",
    },
  );
  await context.close();
}
