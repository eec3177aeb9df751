import { afterAll, afterEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Person } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { connected, newName, pick, say, shows, signIn, startSite, visit } from "../support/site.ts";
import { getAnswer } from "../support/writing.ts";

/** What browsers themselves write about a server that isn't there. */
const OUTAGE = /net::ERR_|WebSocket connection to/;

describeInChromium("in Chromium", (crowd, site) => {
  let people: Person[] = [];
  /** Without the demo mode. */
  const plainSite = startSite({ demo: false });
  afterAll(() => plainSite[Symbol.asyncDispose]());
  afterEach(() => {
    people = [];
  });

  async function newcomer(): Promise<Person> {
    const person = await crowd.newcomer();
    people.push(person);
    return person;
  }

  /** For tests that leave something behind in a browser. */
  async function stranger(): Promise<Person> {
    const person = await crowd.stranger();
    people.push(person);
    return person;
  }

  /** No console has an error, apart from those that an outage makes browsers write. */
  function expectQuiet({ outage = false } = {}): void {
    const complaints = people.flatMap((person) => person.complaints);
    expect(complaints.filter((text) => !(outage && OUTAGE.test(text)))).toEqual([]);
  }

  test("a visitor and a user write to each other, with read marks, and a reload keeps it all", async () => {
    const alice = newName();
    const visitor = await visit(await newcomer(), site.origin, alice);
    await say(visitor, "Hello");
    await visitor.getByText("Sent", { exact: true }).waitFor();

    const user = await signIn(await newcomer(), site.origin, { name: alice });
    await user.waitForFunction(() => document.title === "(1) Inbox");
    await user.getByRole("button", { name: /Hello.*1 unread/ }).click();
    await shows(user, "Hello");
    await user.waitForFunction(() => document.title === "Inbox");
    await visitor.getByText("Read", { exact: true }).waitFor();
    await say(user, "Hi Mira");
    await shows(visitor, "Hello", "Hi Mira");
    await user.getByText("Read", { exact: true }).waitFor();

    await visitor.reload();
    await connected(visitor);
    await shows(visitor, "Hello", "Hi Mira");
    await say(visitor, "Still me");
    await shows(user, "Hello", "Hi Mira", "Still me");
    expectQuiet();
  });

  test("a visitor finds the conversation in a new window", async () => {
    const alice = newName();
    const person = await newcomer();
    const first = await visit(person, site.origin, alice);
    await say(first, "See you tomorrow");
    await first.getByText("Sent", { exact: true }).waitFor();
    await first.close();
    await shows(await visit(person, site.origin, alice), "See you tomorrow");
    expectQuiet();
  });

  test("a restart of the server loses no message and doubles none", async () => {
    const folder = await mkdtemp(join(tmpdir(), "ws-ticket-"));
    const path = join(folder, "chat.sqlite");
    try {
      const before = startSite({ path });
      const [guest, host] = [await stranger(), await stranger()];
      for (const { context } of [guest, host]) await context.clock.install();
      const visitor = await visit(guest, before.origin, "alice");
      await say(visitor, "one");
      const user = await signIn(host, before.origin, { name: "alice" });
      await user.getByRole("button", { name: /one/ }).click();
      await shows(user, "one");
      await before[Symbol.asyncDispose]();

      for (const page of [visitor, user]) {
        await page.getByRole("status").getByText("Reconnecting").waitFor();
      }
      await say(visitor, "two");
      await say(user, "three");
      await visitor.getByText("Sending").waitFor();

      await using _after = startSite({ path, port: before.port });
      for (const page of [visitor, user]) {
        const statusOf = () => page.locator("#state").getAttribute("data-status");
        while ((await statusOf()) !== "open") await page.clock.runFor(500);
      }
      await say(visitor, "four");
      await user.getByRole("log").getByText("four").waitFor();
      await visitor.getByRole("log").getByText("three").waitFor();
      for (const page of [visitor, user]) {
        const texts = await page.locator('[role="log"] .content').allTextContents();
        expect(texts.toSorted()).toEqual(["four", "one", "three", "two"]);
      }
      expectQuiet({ outage: true });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("messages written offline are sent when the network is back, and missed ones are loaded", async () => {
    const alice = newName();
    const person = await newcomer();
    const visitor = await visit(person, site.origin, alice);
    const user = await signIn(await newcomer(), site.origin, { name: alice });
    await say(visitor, "one");
    await user.getByRole("button", { name: /one/ }).click();
    await shows(user, "one");

    await person.context.setOffline(true);
    await visitor.getByRole("status").getByText("Reconnecting").waitFor();
    await say(visitor, "two");
    await say(user, "three");
    await visitor.getByText("Sending").waitFor();
    await shows(user, "one", "three");

    await person.context.setOffline(false);
    await connected(visitor);
    await shows(visitor, "one", "three", "two");
    await shows(user, "one", "three", "two");
    expectQuiet({ outage: true });
  });

  test("whoever doesn't want to wait for the next attempt can try now", async () => {
    const person = await crowd.newcomer();
    const page = await visit(person, site.origin, newName());
    await say(page, "one");
    await connected(page);
    await person.context.route("**/api/auth/**", (route) =>
      route.fulfill({ status: 503, headers: { "Retry-After": "3000" } }),
    );
    await person.context.setOffline(true);
    await page.getByText(/^Reconnecting in \d+/).waitFor();
    await person.context.setOffline(false);
    await person.context.unroute("**/api/auth/**");
    await page.getByRole("button", { name: "Try now" }).click();
    await connected(page);
    // It is read out that it works again, and nothing takes room any more.
    expect(await page.getByRole("status").first().textContent()).toBe("Connected");
    expect(await page.locator("#state").getAttribute("class")).toContain("unseen");
  });

  test("two tabs of each side show the same", async () => {
    const alice = newName();
    const [guest, host] = [await newcomer(), await newcomer()];
    const tabs = [
      await visit(guest, site.origin, alice),
      await visit(guest, site.origin, alice),
    ] as const;
    await say(tabs[0], "from the first tab");
    await tabs[0].getByText("Sent", { exact: true }).waitFor();
    await say(tabs[1], "from the second tab");
    const inboxes = [await signIn(host, site.origin, { name: alice }), await host.open()] as const;
    await inboxes[1].goto(`${site.origin}/inbox`);
    for (const inbox of inboxes) await inbox.getByRole("button", { name: /second tab/ }).click();
    await say(inboxes[0], "seen by all");
    for (const page of [...tabs, ...inboxes]) {
      await shows(page, "from the first tab", "from the second tab", "seen by all");
    }
    expectQuiet();
  });

  test("a blocked visitor gets an error, and can write again after the block", async () => {
    const alice = newName();
    const visitor = await visit(await newcomer(), site.origin, alice);
    await say(visitor, "one");
    const user = await signIn(await newcomer(), site.origin, { name: alice });
    await user.getByRole("button", { name: /one/ }).click();
    await pick(user, "Block");
    await user.getByText("Nothing they write reaches you").waitFor();
    await say(visitor, "two");
    await visitor
      .getByRole("alert")
      .getByText("Not delivered. This person isn't accepting messages from you.")
      .waitFor();
    await pick(user, "Unblock");
    await user.getByText("Nothing they write reaches you").waitFor({ state: "hidden" });
    await visitor.getByRole("button", { name: "Try again" }).click();
    await shows(user, "one", "two");
    await visitor.getByText("Read", { exact: true }).waitFor();
    expect(await visitor.getByRole("button", { name: "Try again" }).count()).toBe(0);
    expectQuiet();
  });

  test("markup in messages, nicknames and names stays text", async () => {
    const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    const nickname = "<b onclick=alert(1)>Bold</b>";
    const name = `"><i>it`;
    const visitor = await visit(await newcomer(), site.origin, name);
    expect(await visitor.getByRole("heading").textContent()).toBe(`Chat with ${name}`);
    await say(visitor, markup);
    await visitor.getByRole("textbox", { name: /call you/ }).fill(nickname);
    await visitor.getByRole("button", { name: "Save" }).click();
    await say(visitor, markup);
    const user = await signIn(await newcomer(), site.origin, { name });
    await user.getByRole("button", { name: nickname }).click();
    await shows(user, markup, markup);
    await shows(visitor, markup, markup);
    expect(await user.getByRole("heading", { level: 2 }).textContent()).toBe(nickname);
    for (const page of [visitor, user]) {
      expect(await page.locator("main img, main script, main b, main i").count()).toBe(0);
      expect(await page.title()).not.toContain("owned");
    }
    expectQuiet();
  });

  test("scripts can't read the visitor's cookie, and the token is in no storage, cookie or URL", async () => {
    const alice = newName();
    const guest = await newcomer();
    const visitor = await visit(guest, plainSite.origin, alice);
    await say(visitor, "Hello");
    expect(await visitor.evaluate(() => document.cookie)).toBe("");
    expect(await guest.context.cookies()).toMatchObject([{ httpOnly: true, sameSite: "Lax" }]);

    const host = await stranger();
    const urls: string[] = [];
    host.context.on("request", (request) => urls.push(request.url()));
    host.context.on("page", (page) => page.on("websocket", (socket) => urls.push(socket.url())));
    const token = await plainSite.token(alice);
    const user = await signIn(host, plainSite.origin, { token });
    await user.getByRole("button", { name: /Hello/ }).click();
    await say(user, "Hi");
    await shows(visitor, "Hello", "Hi");
    const kept = await user.evaluate(async () => ({
      storage: JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state]),
      readable: document.cookie,
      databases: await indexedDB.databases(),
      caches: await caches.keys(),
      fields: [...document.querySelectorAll("input, textarea")].map(
        (field) => (field as HTMLInputElement).value,
      ),
    }));
    expect(kept).toMatchObject({ readable: "", databases: [], caches: [], fields: ["", ""] });
    expect(await host.context.cookies()).toMatchObject([{ httpOnly: true, sameSite: "Strict" }]);
    const [header = "", claims = ""] = token.split(".");
    expect(urls.some((url) => url.includes("/inbox/ws/chat?ticket="))).toBe(true);
    for (const text of [...urls, kept.storage]) {
      expect(text.includes(claims) || text.includes(header)).toBe(false);
    }
    expectQuiet();
  });

  test("signing out ends the session on the server, too", async () => {
    const alice = newName();
    const token = await plainSite.token(alice);
    const user = await signIn(await newcomer(), plainSite.origin, { token });
    // The list is there: no request is on its way that would be refused, and be in the console.
    await user.getByText("No messages yet.").waitFor();
    await user.getByRole("button", { name: "Sign out" }).click();
    await user.getByRole("textbox", { name: "JWT" }).waitFor();
    expect((await plainSite.mint(token)).status).toBe(401);
    expectQuiet();
  });

  test("after signing out elsewhere the page shows its sign-in form", async () => {
    const alice = newName();
    const token = await plainSite.token(alice);
    const user = await signIn(await newcomer(), plainSite.origin, { token });
    // The list is there: no request is on its way that would be refused, and be in the console.
    await user.getByText("No messages yet.").waitFor();
    await fetch(`${plainSite.origin}/api/auth/sign-out`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    await user.getByRole("alert").getByText("You have been signed out.").waitFor();
    expect(await user.getByRole("textbox", { name: "JWT" }).isVisible()).toBe(true);
    expectQuiet();
  });

  test("everything can be done with the keyboard alone", async () => {
    const alice = newName();
    const visitor = await visit(await newcomer(), site.origin, alice);
    await visitor.keyboard.type("first line");
    await visitor.keyboard.press("Shift+Enter");
    await visitor.keyboard.type("second line");
    await visitor.keyboard.press("Enter");
    await shows(visitor, "first line\nsecond line");
    await visitor.getByText("Sent", { exact: true }).waitFor();

    const user = await (await newcomer()).open();
    await user.goto(`${site.origin}/inbox`);
    await user.getByRole("textbox", { name: "Name" }).waitFor();
    await user.keyboard.type(alice);
    await user.keyboard.press("Enter");
    await connected(user);
    await user.getByRole("button", { name: /first line/ }).waitFor();
    /** Tab by tab until the element of this name has the focus. */
    async function tabTo(name: RegExp): Promise<void> {
      for (let presses = 0; presses < 12; presses++) {
        await user.keyboard.press("Tab");
        const focused = await user.evaluate(() => document.activeElement?.textContent ?? "");
        if (name.test(focused)) return;
      }
      throw new Error(`No way to ${name}`);
    }
    await tabTo(/first line/);
    await user.keyboard.press("Enter");
    await shows(user, "first line\nsecond line");
    await user.keyboard.type("answer");
    await user.keyboard.press("Enter");
    await shows(visitor, "first line\nsecond line", "answer");
    // From the text field back to the messages, to the menu, and into it.
    for (let presses = 0; presses < 2; presses++) await user.keyboard.press("Shift+Tab");
    expect(await user.evaluate(() => document.activeElement?.ariaLabel)).toBe("Options");
    await user.keyboard.press("Enter");
    await user.keyboard.press("Escape");
    await user.keyboard.press("Enter");
    await user.keyboard.press("Tab");
    await user.keyboard.press("Enter");
    await user.getByRole("dialog").waitFor();
    await user.keyboard.press("Escape");
    await shows(user, "first line\nsecond line", "answer");
    await user.keyboard.press("Enter");
    await user.keyboard.press("Tab");
    await user.keyboard.press("Enter");
    await user.getByRole("dialog").waitFor();
    await user.keyboard.press("Tab");
    await user.keyboard.press("Enter");
    await user.getByText("No messages yet").waitFor();
    expectQuiet();
  });

  test("a long history is loaded page by page, and 4,000 characters without a space don't overflow", async () => {
    const alice = newName();
    const guest = await newcomer();
    const page = await visit(guest, site.origin, alice);
    await say(page, "first");
    await page.getByText("Sent", { exact: true }).waitFor();
    const cookie = (await guest.context.cookies()).map(({ name, value }) => `${name}=${value}`)[0];
    const socket = await site.openVisitor(cookie);
    await getAnswer(site, socket, alice);
    const texts = ["first", "begin", "answer"];
    while (texts.length < 60) {
      const content = `message ${texts.length + 1}`;
      texts.push(content);
      socket.send({ type: "ANON_TO_USER", to: alice, content, ref: content });
      await socket.next(({ type, ref }) => type === "ACK" && ref === content);
      // The server's own clock stands still, and with it its limit of messages in a second.
      site.clock.advance(100);
    }
    await page.reload();
    await page.getByText("message 60").waitFor();
    const readOut = page.locator('.thread > [aria-live="polite"]');
    expect(await readOut.textContent()).toBe("");
    // Where older ones can't be loaded, neither scrolling nor another size tries it again and again.
    let requests = 0;
    page.on("request", (request) => (requests += Number(request.url().includes("/messages?"))));
    await page.route("**/messages?*", (route) => route.abort());
    const drawn = () =>
      page.evaluate(
        () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
      );
    const failed = page.waitForEvent("requestfailed");
    // So high that all of them would fit.
    await page.setViewportSize({ width: 1_000, height: 5_000 });
    await failed;
    for (const height of [4_900, 600]) {
      await page.setViewportSize({ width: 1_000, height });
      await drawn();
    }
    for (const top of [50, 0]) {
      await page.getByRole("log").evaluate((log, top) => log.scrollTo(0, top), top);
      await drawn();
    }
    await page.unroute("**/messages?*");
    await page.getByRole("button", { name: "Earlier messages" }).click();
    await shows(page, ...texts);
    expect(requests).toBe(2);
    const long = "x".repeat(4_000);
    await page.setViewportSize({ width: 320, height: 600 });
    await say(page, long);
    await shows(page, ...texts, long);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflow).toBe(0);

    const { body } = await site.ask("/api/chats", { user: alice });
    await site.ask(`/api/chats/${body.chats[0].peer}/block`, { method: "PUT", user: alice });
    await say(page, "refused");
    await page.getByRole("button", { name: "Discard" }).click();
    await shows(page, ...texts, long);
    // One message less at the end is no reason to read one out that has long been there.
    expect(await readOut.textContent()).not.toContain("message");
    expectQuiet({ outage: true });
  });
});
