import { expect, test } from "bun:test";
import type { Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
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
    expect(new URL(page.url()).pathname).toBe("/inbox");
    await page.goForward();
    await shows(page, "Hello from Ann");
    await page.reload();
    await shows(page, "Hello from Ann");
    await page.getByRole("button", { name: "All chats" }).click();
    await rowOf(page, "Ben").waitFor();
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
    const page = await openInbox(alice);
    const link = page.getByRole("link", { name: `${site.origin}/chat/${alice}` });
    await page.getByText("Share this link so people can write to you:").waitFor();
    await link.waitFor();
    await writers(alice, ["Ann"]);
    await rowOf(page, "Ann").waitFor();
    expect(await link.isVisible()).toBe(false);
    await pick(page, "Share", "Menu");
    await link.waitFor();
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
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
    const [ann] = await writers(alice, ["Ann", "Ben"]);
    const person = await crowd.stranger({ permissions: ["notifications"] });
    await person.context.addInitScript(() => {
      const shown: string[] = [];
      class Seen {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title: string, { body }: NotificationOptions = {}) {
          shown.push(`${title}: ${body}`);
        }
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
    expect(await page.evaluate(() => (globalThis as unknown as { shown: string[] }).shown)).toEqual(
      ["Ann: After"],
    );
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
