import { expect, test } from "bun:test";
import { createPages } from "../../src/page/pages.ts";
import type { Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { startServer } from "../support/server.ts";
import { connected, newName, pick, say, shows, signIn, startSite } from "../support/site.ts";
import type { TestSocket } from "../support/socket.ts";

describeInChromium("the inbox in Chromium", (crowd, site) => {
  /** Visitors of these names, each of whom has written once, the last of them last. */
  async function writers(user: string, names: readonly string[]): Promise<TestSocket[]> {
    const sockets: TestSocket[] = [];
    for (const nickname of names) {
      const socket = await site.openVisitor();
      sockets.push(socket);
      await write(socket, user, `Hello from ${nickname}`, nickname);
    }
    return sockets;
  }

  async function write(socket: TestSocket, to: string, content: string, nickname: string) {
    socket.send({ type: "ANON_TO_USER", to, content, nickname, ref: content });
    await socket.next(({ type, ref }) => type === "ACK" && ref === content);
    // The server's own clock stands still, and with it its limits.
    site.clock.advance(1_000);
  }

  const openInbox = async (name: string) => signIn(await crowd.newcomer(), site.origin, { name });
  const rowOf = (page: Page, name: string) =>
    page.getByRole("navigation").getByRole("button", { name: new RegExp(`${name}\\b`) });
  const rows = (page: Page) => page.locator(".chat .name").allTextContents();

  test("gives each chat an address, from which Back leads to the list and a reload to the same chat", async () => {
    const alice = newName();
    await writers(alice, ["Ann", "Ben"]);
    const page = await openInbox(alice);
    await page.setViewportSize({ width: 390, height: 700 });
    await rowOf(page, "Ann").click();
    await shows(page, "Hello from Ann");
    expect(new URL(page.url()).pathname).toMatch(/^\/inbox\/[\w-]{22}$/);
    await page.goBack();
    await rowOf(page, "Ben").waitFor();
    const isFocused = (name: string) =>
      rowOf(page, name).evaluate((row) => row === document.activeElement);
    expect(await isFocused("Ann")).toBe(true);
    expect(new URL(page.url()).pathname).toBe("/inbox");
    await page.goForward();
    await shows(page, "Hello from Ann");
    await page.reload();
    await shows(page, "Hello from Ann");
    await page.getByRole("button", { name: "All chats" }).click();
    await rowOf(page, "Ben").waitFor();
    expect(await isFocused("Ann")).toBe(true);
    expect(new URL(page.url()).pathname).toBe("/inbox");
  });

  test("isn't blank at an address with a % that encodes nothing", async () => {
    const person = await crowd.newcomer();
    const page = await person.open();
    await page.goto(`${site.origin}/inbox#100%`);
    const name = page.getByRole("textbox", { name: "Name" });
    await name.waitFor();
    expect(await name.inputValue()).toBe("100%");
    expect(person.complaints).toEqual([]);
  });

  test("an empty one holds the link to share, which stays reachable after the first chat", async () => {
    const alice = newName();
    const person = await crowd.stranger({ permissions: ["clipboard-read", "clipboard-write"] });
    const page = await signIn(person, site.origin, { name: alice });
    const link = page.getByRole("link", { name: `${site.origin}/chat/${alice}` });
    await page.getByText("Share this link so people can write to you:").waitFor();
    await link.waitFor();
    await writers(alice, ["Ann"]);
    await rowOf(page, "Ann").waitFor();
    expect(await link.isVisible()).toBe(false);
    await pick(page, "Share", "Menu");
    await link.waitFor();
    await page.clock.install();
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    expect(copied).toBe(`${site.origin}/chat/${alice}`);
    await page.clock.runFor(2_000);
    await page.getByRole("button", { name: "Copy", exact: true }).waitFor();
    await page.keyboard.press("Escape");
    expect(await page.getByRole("dialog").isVisible()).toBe(false);
  });

  test("a click isn't lost when a message moves the list in that moment", async () => {
    const alice = newName();
    const [ann] = await writers(alice, ["Ann", "Ben", "Cem"]);
    const page = await openInbox(alice);
    await rowOf(page, "Ann").waitFor();
    expect(await rows(page)).toEqual(["Cem", "Ben", "Ann"]);
    await rowOf(page, "Ben").hover();
    await page.mouse.down();
    await write(ann as TestSocket, alice, "First again", "Ann");
    await page.waitForFunction(() => document.title.startsWith("(4)"));
    await page.mouse.up();
    await shows(page, "Hello from Ben");
    expect(await rows(page)).toEqual(["Ann", "Cem", "Ben"]);
  });

  test("a list that was scrolled doesn't jump when somebody writes, and its rows stay the same elements", async () => {
    const alice = newName();
    const names = Array.from({ length: 20 }, (_, n) => `N${n}.`);
    const sockets = await writers(alice, names);
    const page = await openInbox(alice);
    await page.setViewportSize({ width: 1_000, height: 500 });
    await rowOf(page, "N10").scrollIntoViewIfNeeded();
    const row = await rowOf(page, "N10").elementHandle();
    const before = await row?.boundingBox();
    for (const n of [1, 15]) {
      await write(sockets[n] as TestSocket, alice, `Again from ${n}`, `N${n}.`);
      await page.waitForFunction(
        (content) => document.querySelector(".chat .preview")?.textContent === content,
        `Again from ${n}`,
      );
    }
    expect(await row?.boundingBox()).toEqual(before ?? null);
    await rowOf(page, "N7").focus();
    await write(sockets[7] as TestSocket, alice, "Again from 7", "N7.");
    await page.locator(".chat .preview").first().getByText("Again from 7").waitFor();
    const isFocused = (button: Element) => button === document.activeElement;
    expect(await rowOf(page, "N7").evaluate(isFocused)).toBe(true);
  });

  test("leaves nothing behind in the page when chats are changed, nor when the user signs out", async () => {
    const alice = newName();
    await writers(alice, ["Ann", "Ben"]);
    const page = await openInbox(alice);
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    /** Elements and listeners, those that are on no page any more as well. */
    async function count(): Promise<number> {
      await session.send("HeapProfiler.collectGarbage");
      const { metrics } = await session.send("Performance.getMetrics");
      const of = (wanted: string) => metrics.find(({ name }) => name === wanted)?.value ?? 0;
      return of("Nodes") + of("JSEventListeners");
    }
    async function change(): Promise<void> {
      for (const name of ["Ann", "Ben"]) {
        await rowOf(page, name).click();
        await shows(page, `Hello from ${name}`);
      }
    }
    async function signInAgain(): Promise<void> {
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByRole("textbox", { name: "Name" }).fill(alice);
      await page.getByRole("button", { name: "Sign in" }).click();
      await rowOf(page, "Ann").click();
      await shows(page, "Hello from Ann");
    }
    for (const again of [change, signInAgain]) {
      for (let n = 0; n < 2; n++) await again();
      const before = await count();
      for (let n = 0; n < 5; n++) await again();
      // What is left of one chat is more than this.
      expect((await count()) - before).toBeLessThan(40);
    }
  });

  test("finds chats by name and text, and those that are unread", async () => {
    const alice = newName();
    await writers(alice, ["Ann", "Ben", "Cem"]);
    const page = await openInbox(alice);
    await rowOf(page, "Ben").click();
    await shows(page, "Hello from Ben");
    await page.getByRole("searchbox").fill("cem");
    expect(await rows(page)).toEqual(["Cem"]);
    await page.getByRole("searchbox").fill("nobody");
    await page.getByText("No chat matches.").waitFor();
    await page.getByRole("searchbox").fill("");
    await page.waitForFunction(() => document.title.startsWith("(2)"));
    await rowOf(page, "Cem").click();
    await shows(page, "Hello from Cem");
    await page.getByRole("button", { name: "Unread", exact: true }).click();
    // The one that is being read stays.
    expect(await rows(page)).toEqual(["Cem", "Ann"]);
  });

  test("notifies of messages that the user doesn't see, once that is switched on", async () => {
    const alice = newName();
    const [ann, ben] = await writers(alice, ["Ann", "Ben"]);
    const person = await crowd.stranger({ permissions: ["notifications"] });
    await person.context.addInitScript(() => {
      const shown: string[] = [];
      class Seen {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title: string, { body }: NotificationOptions = {}) {
          shown.push(`${title}: ${body}`);
          Object.assign(globalThis, { latest: this });
        }
        close() {}
      }
      Object.assign(globalThis, { shown, Notification: Seen });
    });
    const page = await signIn(person, site.origin, { name: alice });
    await rowOf(page, "Ben").click();
    await shows(page, "Hello from Ben");
    await write(ann as TestSocket, alice, "Before", "Ann");
    await page.getByText("Before").waitFor();
    await pick(page, "Sound and notifications", "Menu");
    await write(ann as TestSocket, alice, "After", "Ann");
    await page.getByText("After").waitFor();
    await write(ben as TestSocket, alice, "In view", "Ben");
    await shows(page, "Hello from Ben", "In view");
    const shown = () =>
      page.evaluate(() => (globalThis as unknown as { shown: string[] }).shown.splice(0));
    expect(await shown()).toEqual(["Ann: After"]);
    await page.reload();
    await shows(page, "Hello from Ben", "In view");
    await connected(page);
    await page.evaluate(() =>
      Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true }),
    );
    await write(ben as TestSocket, alice, "In a hidden tab", "Ben");
    await write(ann as TestSocket, alice, "Since the reload", "Ann");
    await rowOf(page, "Ann").getByText("Since the reload").waitFor();
    expect(await shown()).toEqual(["Ben: In a hidden tab", "Ann: Since the reload"]);
    await page.evaluate(() =>
      (globalThis as unknown as { latest: { onclick(): void } }).latest.onclick(),
    );
    await shows(page, "Hello from Ann", "Before", "After", "Since the reload");
    expect(person.complaints).toEqual([]);
  });

  test("signs in with a token that is exchanged for a cookie, says when it is bad, and stays signed in", async () => {
    await using plain = startSite({ demo: false });
    const person = await crowd.stranger();
    const page = await person.open();
    await page.goto(`${plain.origin}/inbox`);
    const field = page.getByRole("textbox", { name: "JWT" });
    await field.fill("not.a.token");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").getByText("This token is invalid or has expired.").waitFor();
    await page.route("**/api/**", (route) => route.fulfill({ status: 429 }), { times: 1 });
    await page.getByRole("button", { name: "Sign in" }).click();
    const tooMany = "Too many attempts. Try again in a minute.";
    await page.getByRole("alert").getByText(tooMany).waitFor();
    await field.fill(await plain.token("alice"));
    await page.getByRole("button", { name: "Sign in" }).click();
    await connected(page);
    await page.reload();
    await connected(page);
    await page.getByRole("button", { name: "Sign out" }).click();
    await field.waitFor();
    // The server ends the socket, too, which is no second reason to show a form.
    expect(await page.getByRole("alert").allTextContents()).toEqual([""]);
    await page.reload();
    await field.waitFor();
  });

  test("says what didn't work, deletes nothing that somebody cancels, and signs out without a server, too", async () => {
    const alice = newName();
    await writers(alice, ["Ann"]);
    const page = await openInbox(alice);
    await rowOf(page, "Ann").click();
    await shows(page, "Hello from Ann");
    const tried: string[] = [];
    await page.route("**/inbox/api/**", (route) => {
      tried.push(route.request().method());
      return route.abort();
    });
    const status = page.locator(".thread-place").getByRole("status");
    const dialog = page.getByRole("dialog", { name: "Delete the chat with Ann?" });
    await pick(page, "Delete chat");
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await pick(page, "Block");
    await status.getByText("That didn't work. Try again.").waitFor();
    expect(tried).not.toContain("DELETE");
    await pick(page, "Delete chat");
    await dialog.getByRole("button", { name: "Delete chat" }).click();
    await status.getByText("The chat couldn't be deleted. Try again.").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("alert").getByText("You are signed out here only").waitFor();
    await page.unroute("**/inbox/api/**");
    await page.getByRole("textbox", { name: "Name" }).fill(alice);
    await page.getByRole("button", { name: "Sign in" }).click();
    await rowOf(page, "Ann").waitFor();
  });

  test("says that its chats can't be loaded, until they are", async () => {
    const alice = newName();
    await writers(alice, ["Ann"]);
    const person = await crowd.stranger();
    await person.context.clock.install();
    const page = await person.open();
    await page.route("**/inbox/api/chats?*", (route) => route.abort());
    await page.goto(`${site.origin}/inbox#${alice}`);
    await page.getByRole("button", { name: "Sign in" }).click();
    const problem = page.getByRole("alert").getByText("The chats can't be loaded right now.");
    await problem.waitFor();
    await page.unroute("**/inbox/api/chats?*");
    while (await problem.isVisible()) await page.clock.runFor(500);
    await rowOf(page, "Ann").waitFor();
  });

  test("shows nothing of its chats after signing out, with Back or later", async () => {
    const alice = newName();
    await writers(alice, ["Ann", "Ben"]);
    const person = await crowd.stranger();
    await person.context.clock.install();
    const page = await signIn(person, site.origin, { name: alice });
    await rowOf(page, "Ann").click();
    await shows(page, "Hello from Ann");
    await page.waitForFunction(() => document.title === "(1) Inbox");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("textbox", { name: "Name" }).waitFor();
    await page.goBack();
    await page.clock.runFor(1_000);
    expect(await page.title()).toBe("Inbox");
    const left = await page.evaluate(() => [
      document.body.dataset.view,
      document.getElementById("state")?.dataset.status,
      document.getElementById("state-text")?.textContent,
    ]);
    expect(left).toEqual([undefined, undefined, ""]);
    expect(await page.getByRole("button").allTextContents()).toEqual(["Sign in"]);
  });

  test("leads to the host's own app to sign in, where there is one", async () => {
    const loginUrl = new URL("https://app.example/login?to=inbox");
    await using own = startServer({ pages: createPages({ demo: false, loginUrl }) });
    const page = await (await crowd.stranger()).open();
    await page.goto(`${own.origin}/inbox`);
    const link = page.getByRole("link", { name: "Sign in" });
    await link.waitFor();
    expect(await link.getAttribute("href")).toBe(loginUrl.href);
    expect(await link.evaluate((one) => one === document.activeElement)).toBe(true);
    expect(await page.getByRole("textbox").count()).toBe(0);
  });

  test("an answer from another tab is in the list, too", async () => {
    const alice = newName();
    await writers(alice, ["Ann"]);
    const person = await crowd.newcomer();
    const first = await signIn(person, site.origin, { name: alice });
    const second = await person.open();
    await second.goto(`${site.origin}/inbox`);
    await rowOf(second, "Ann").click();
    await say(second, "Hi Ann");
    await first.getByText("You: Hi Ann").waitFor();
    await first.waitForFunction(() => document.title === "Inbox");
  });
});
