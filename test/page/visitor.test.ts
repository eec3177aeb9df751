import { expect, test } from "bun:test";
import { collectComplaints, launchWithoutCookies, type Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { openBrowser } from "../support/embedding.ts";
import { freePort } from "../support/redis.ts";
import { connected, newName, pick, say, shows, signIn, startSite, visit } from "../support/site.ts";

describeInChromium("a visitor in Chromium", (crowd, site) => {
  test("gets a cookie, and a socket, when they write and not when they open the page", async () => {
    const { context, open } = await crowd.stranger();
    const page = await open();
    let sockets = 0;
    page.on("websocket", () => sockets++);
    await page.goto(`${site.origin}/chat/${newName()}`);
    await page.getByText("We'll remember this chat on this device for 30 days.").waitFor();
    expect(await context.cookies()).toEqual([]);
    expect(sockets).toBe(0);
    await say(page, "Hello");
    await page.getByText("Sent", { exact: true }).waitFor();
    expect(await context.cookies()).toHaveLength(1);
    expect(sockets).toBe(1);
    // Who has written before is there at once.
    await page.reload();
    await connected(page);
    await shows(page, "Hello");
  });

  test("whose browser blocks cookies reads why the chat doesn't work, and keeps what they wrote", async () => {
    await using blocked = await launchWithoutCookies();
    const page = await blocked.open();
    await page.goto(`${site.origin}/chat/${newName()}`);
    await say(page, "Hello?");
    await page.getByRole("alert").getByText("Your browser blocks cookies").waitFor();
    expect(await page.getByRole("textbox", { name: "Message" }).inputValue()).toBe("Hello?");
    expect(await page.getByText("Reconnecting").isVisible()).toBe(false);
  });

  test("whose first request fails reads that the server can't be reached, until it can", async () => {
    const { context, open } = await crowd.stranger();
    await context.clock.install();
    const page = await open();
    await page.route("**/api/auth/anonymous-session", (route) => route.abort());
    await page.goto(`${site.origin}/chat/${newName()}`);
    const alert = page.getByRole("alert").getByText("The server can't be reached.");
    await alert.waitFor();
    await page.unroute("**/api/auth/anonymous-session");
    while (await alert.isVisible()) await page.clock.runFor(500);
    await page.getByRole("textbox", { name: "Message" }).waitFor();
  });

  test("over plain http elsewhere than on this machine, where browsers have no locks, writes as well", async () => {
    const port = freePort();
    const origin = `http://chat.test:${port}`;
    await using _plain = startSite({ demo: false, port, origins: [origin] });
    await using browser = await openBrowser("all");
    const complaints = collectComplaints(browser.context);
    const page = await browser.context.newPage();
    await page.goto(`${origin}/chat/alice`);
    await say(page, "Hello");
    await page.getByText("Sent", { exact: true }).waitFor();
    await shows(page, "Hello");
    expect(await page.evaluate(() => isSecureContext)).toBe(false);
    await page.reload();
    await shows(page, "Hello");
    expect(complaints.filter((one) => !one.includes("Cross-Origin-Opener-Policy"))).toEqual([]);
  });

  test("reads a message when they look at the tab, and not while it is hidden", async () => {
    const alice = newName();
    const page = await visit(await crowd.stranger(), site.origin, alice);
    await say(page, "Hello");
    await page.getByText("Sent", { exact: true }).waitFor();
    const { body } = await site.ask("/api/chats", { user: alice });
    const look = (state: string) =>
      page.evaluate((state) => {
        Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, state);
    await look("hidden");
    await using user = await site.openUser(alice);
    user.send({ type: "USER_TO_ANON", to: body.chats[0].peer, content: "Hi" });
    await shows(page, "Hello", "Hi");
    await page.waitForFunction(() => document.title.startsWith("(1)"));
    await look("visible");
    await user.next(({ type }) => type === "READ");
    await page.waitForFunction(() => !document.title.startsWith("("));
  });

  test("closes the menu by looking elsewhere", async () => {
    const page = await visit(await crowd.newcomer(), site.origin, newName());
    await say(page, "Hello");
    const options = page.getByRole("button", { name: "Options" });
    await options.click();
    expect(await options.getAttribute("aria-expanded")).toBe("true");
    await page.getByRole("textbox", { name: "Message" }).click();
    expect(await options.getAttribute("aria-expanded")).toBe("false");
    expect(await page.getByRole("button", { name: "Delete chat" }).isVisible()).toBe(false);
  });

  test("is one visitor in two tabs that send the first message in the same moment", async () => {
    const alice = newName();
    const person = await crowd.stranger();
    const tabs = [
      await visit(person, site.origin, alice),
      await visit(person, site.origin, alice),
    ] as const;
    // The first request for a cookie is held back until the other tab wants one, too.
    const both = Promise.withResolvers<void>();
    await person.context.route("**/api/auth/anonymous-session", async (route) => {
      if (route.request().method() === "POST") await both.promise;
      await route.continue();
    });
    await say(tabs[0], "from the first tab");
    await say(tabs[1], "from the second tab");
    const waiting = () =>
      tabs[0].evaluate(async () => (await navigator.locks.query()).pending?.length);
    while (!(await waiting())) await Bun.sleep(5);
    both.resolve();
    for (const page of tabs) {
      await page.getByText("from the first tab").first().waitFor();
      await page.getByText("from the second tab").first().waitFor();
    }
    const { body } = await site.ask("/api/chats", { user: alice });
    expect(body.chats).toHaveLength(1);
    await tabs[1].reload();
    await tabs[1].locator(".content", { hasText: "from the first tab" }).waitFor();
  });

  test("deletes their own chat, and may begin another one", async () => {
    const alice = newName();
    const page = await visit(await crowd.newcomer(), site.origin, alice);
    await say(page, "Hello");
    await page.getByText("Sent", { exact: true }).waitFor();
    await pick(page, "Delete chat");
    await page.getByRole("dialog").getByRole("button", { name: "Delete chat" }).click();
    await shows(page);
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.getByText("No messages yet.").waitFor();
    await say(page, "Hello again");
    await page.getByText("Sent", { exact: true }).waitFor();
    await shows(page, "Hello again");
  });

  test("hears an own message once, and nothing again when it is acknowledged, read, or somebody is renamed", async () => {
    const alice = newName();
    const visitor = await visit(await crowd.newcomer(), site.origin, alice);
    await say(visitor, "One");
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.getByRole("button", { name: /One/ }).click();
    await user.getByRole("log").getByText("One").waitFor();
    for (const page of [visitor, user]) await listen(page);
    await say(visitor, "Two");
    await user.getByRole("log").getByText("Two").waitFor();
    await visitor.getByText("Read", { exact: true }).waitFor();
    await visitor.getByRole("textbox", { name: /call you/ }).fill("Mira");
    await visitor.getByRole("button", { name: "Save" }).click();
    await say(visitor, "Three");
    await user.getByRole("heading", { name: "Mira" }).waitFor();
    await say(user, "Four");
    await visitor.getByRole("log").getByText("Four").waitFor();
    const count = (all: readonly string[], text: string) =>
      all.filter((one) => one.includes(text)).length;
    for (const page of [visitor, user]) {
      const heard = await page.evaluate(() => (globalThis as unknown as { heard: string[] }).heard);
      expect(["One", "Two", "Three", "Four"].map((text) => count(heard, text))).toEqual([
        0, 1, 1, 1,
      ]);
    }
  });

  test("sees that the other one is typing, until a message comes or for six seconds, and hears it once", async () => {
    const alice = newName();
    const [guest, host] = [await crowd.stranger(), await crowd.stranger()];
    for (const { context } of [guest, host]) await context.clock.install();
    const visitor = await visit(guest, site.origin, alice);
    await say(visitor, "One");
    const user = await signIn(host, site.origin, { name: alice });
    await user.getByRole("button", { name: /One/ }).click();
    await shows(user, "One");
    await listen(visitor);
    const line = visitor.locator(".typing");
    const field = user.getByRole("textbox", { name: "Message" });

    await field.pressSequentially("Tw");
    await line.getByText(`${alice} is typing…`).waitFor();
    await visitor.clock.runFor(2_000);
    expect(await line.isVisible()).toBe(true);
    await visitor.clock.runFor(4_000);
    await line.waitFor({ state: "hidden" });

    await user.clock.runFor(3_000);
    await field.pressSequentially("o");
    await line.waitFor();
    await field.press("Enter");
    await shows(visitor, "One", "Two");
    expect(await line.isVisible()).toBe(false);
    const heard = await visitor.evaluate(
      () => (globalThis as unknown as { heard: string[] }).heard,
    );
    expect(heard.filter((text) => text.includes("typing"))).toEqual([`${alice} is typing…`]);

    await visitor.getByRole("textbox", { name: "Message" }).pressSequentially("Th");
    await user.locator(".typing").getByText("is typing…").waitFor();
    await say(visitor, "Three");
    await shows(user, "One", "Two", "Three");
    expect(await user.locator(".typing").isVisible()).toBe(false);
  });
});

/** Keeps what a screen reader reads out by itself: the texts of elements that are added to live regions. */
async function listen(page: Page): Promise<void> {
  await page.evaluate(() => {
    const heard: string[] = [];
    Object.assign(globalThis, { heard });
    new MutationObserver((changes) => {
      for (const { target, addedNodes } of changes) {
        const region = (target as Element).closest?.(
          "[aria-live], [role=log], [role=status], [role=alert]",
        );
        if (!region || region.getAttribute("aria-live") === "off") continue;
        for (const node of addedNodes) heard.push(node.textContent ?? "");
      }
    }).observe(document.body, { childList: true, subtree: true });
  });
}
