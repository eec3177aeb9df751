import { expect, test } from "bun:test";
import type { Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { connected, newName, pick, say, shows, signIn, visit } from "../support/site.ts";
import { getAnswer } from "../support/writing.ts";

describeInChromium("writing a message in Chromium", (crowd, site) => {
  const field = (page: Page) => page.getByRole("textbox", { name: "Message" });
  const open = async () => visit(await crowd.newcomer(), site.origin, newName());

  test("a text that is too long with its tabs expanded says so, and is sent once it is shorter", async () => {
    const page = await open();
    await field(page).fill("\t".repeat(1_001));
    await field(page).press("Enter");
    await shows(page);
    // Nothing but spaces is nothing to send; beside a letter, each tab is four characters.
    const text = `a${"\t".repeat(1_000)}b`;
    await field(page).fill(text);
    await page.getByText("Too long by 2 characters").waitFor();
    await field(page).press("Enter");
    await page.getByRole("button", { name: "Send" }).click();
    expect(await field(page).evaluate((one) => one === document.activeElement)).toBe(true);
    expect(await field(page).inputValue()).toBe(text);
    expect(await field(page).getAttribute("aria-invalid")).toBe("true");
    await field(page).fill(text.replace("\t", ""));
    await page.getByText("2 characters left").waitFor();
    await field(page).press("Enter");
    await page.getByText("Sent", { exact: true }).waitFor();
    await shows(page, `a${" ".repeat(3_996)}b`);
  });

  test("a paste of 5,000 characters stays whole, and says by how many it is too long", async () => {
    const page = await open();
    await field(page).focus();
    await page.keyboard.insertText("x".repeat(5_000));
    await page.getByText("Too long by 1000 characters").waitFor();
    expect((await field(page).inputValue()).length).toBe(5_000);
  });

  test("the Enter that ends an input method's composition doesn't send, as Safari reports it", async () => {
    const page = await open();
    await field(page).fill("にほん");
    const wasSent = await field(page).evaluate((element) => {
      const enter = new KeyboardEvent("keydown", {
        ...{ key: "Enter", keyCode: 229, isComposing: false, bubbles: true, cancelable: true },
      });
      return !element.dispatchEvent(enter);
    });
    expect(wasSent).toBe(false);
    expect(await field(page).inputValue()).toBe("にほん");
    await field(page).press("Enter");
    await shows(page, "にほん");
  });

  test("on a touch screen, Enter makes a new line and nothing takes the focus by itself", async () => {
    const { open: openPage } = await crowd.stranger({ hasTouch: true, isMobile: true });
    const page = await openPage();
    await page.goto(`${site.origin}/chat/${newName()}`);
    await field(page).waitFor();
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("BODY");
    await field(page).tap();
    await page.keyboard.type("one");
    await page.keyboard.press("Enter");
    await page.keyboard.type("two");
    await page.getByRole("button", { name: "Send" }).tap();
    await shows(page, "one\ntwo");
  });

  test("links are links to http and https, and to nothing else", async () => {
    const page = await open();
    await say(
      page,
      [
        "See https://example.com/a?b=c#d.",
        "(http://example.org/x_(y))",
        "javascript:alert(1) data:text/html,x ftp://example.com",
        "https://user:secret@example.com https:// HTTPS://EXAMPLE.NET",
        'https://example.com/"onclick="alert(1)',
      ].join(" "),
    );
    await page.getByText("Sent", { exact: true }).waitFor();
    const links = await page.locator(".content a").evaluateAll((all) =>
      all.map((link) => ({
        href: link.getAttribute("href"),
        rel: link.getAttribute("rel"),
        target: link.getAttribute("target"),
        text: link.textContent,
      })),
    );
    expect(links.map(({ href }) => href)).toEqual([
      "https://example.com/a?b=c#d",
      "http://example.org/x_(y)",
      "https://example.net/",
      "https://example.com/",
    ]);
    expect(links[2]?.text).toBe("HTTPS://EXAMPLE.NET");
    for (const link of links) {
      expect(link).toMatchObject({ rel: "noopener nofollow ugc", target: "_blank" });
    }
  });

  test("messages that follow each other are one group, whose last one has the time and the status", async () => {
    const page = await open();
    for (const text of ["one", "two", "three"]) await say(page, text);
    await page.getByText("Sent", { exact: true }).waitFor();
    await shows(page, "one", "two", "three");
    expect(await page.getByText("Sent", { exact: true }).count()).toBe(1);
    expect(await page.locator(".meta:visible").count()).toBe(1);
  });

  test("a message that is the first of its day says which day that is", async () => {
    const person = await crowd.stranger({ locale: "en-US", timezoneId: "UTC" });
    const page = await person.open();
    await page.goto(`${site.origin}/chat/${newName()}`);
    await say(page, "one");
    await say(page, "two");
    await page.getByText("Sent", { exact: true }).waitFor();
    const days = () =>
      page
        .locator('[role="log"] [data-status]')
        .evaluateAll((items) => items.map((item) => (item as HTMLElement).dataset.day));
    for (const [later, day] of [
      [0, "Today"],
      [1, "Yesterday"],
      [2, "Thursday, January 1"],
    ] as const) {
      await page.clock.setFixedTime(site.clock.nowMs() + later * 86_400_000);
      await page.reload();
      await shows(page, "one", "two");
      expect(await days()).toEqual([day, ""]);
    }
    // In the last minute of a day and the first of the next one: near each other, and no group.
    site.clock.advance(86_400_000 - (site.clock.nowMs() % 86_400_000) - 60_000);
    for (const [at, text] of ["three", "four"].entries()) {
      await say(page, text);
      await page
        .locator('.message[data-status="sent"]')
        .nth(2 + at)
        .waitFor();
      site.clock.advance(at === 0 ? 120_000 : 0);
    }
    await page.clock.setFixedTime(site.clock.nowMs());
    await page.reload();
    await shows(page, "one", "two", "three", "four");
    expect(await days()).toEqual(["Yesterday", "", "", "Today"]);
    expect(await page.locator(".message.joined").allTextContents()).toHaveLength(1);
  });

  test("a visitor is asked for a name once, after the first message, and it goes with the next one", async () => {
    const alice = newName();
    const person = await crowd.stranger();
    const page = await visit(person, site.origin, alice);
    const name = page.getByRole("textbox", { name: `What should ${alice} call you?` });
    expect(await name.isVisible()).toBe(false);
    await say(page, "Hello");
    await name.fill("Mira");
    await name.press("Enter");
    expect(await name.isVisible()).toBe(false);
    await say(page, "It's me");
    await page.reload();
    await shows(page, "Hello", "It's me");
    expect(await name.isVisible()).toBe(false);
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.getByRole("button", { name: /Mira/ }).waitFor();
  });

  test("a visitor who skips the question stays without a name, whatever stands in its field", async () => {
    const alice = newName();
    const page = await visit(await crowd.stranger(), site.origin, alice);
    await say(page, "Hello");
    await page.getByRole("textbox", { name: /call you/ }).fill("Mira");
    await page.getByRole("button", { name: "Skip" }).click();
    await page.keyboard.type("Anyway");
    await page.keyboard.press("Enter");
    await shows(page, "Hello", "Anyway");
    const { body } = await site.ask("/api/chats", { user: alice });
    expect(body.chats).toMatchObject([{ lastMessage: { content: "Anyway" } }]);
    expect(body.chats[0].nickname).toBeUndefined();
  });

  test("a name goes with the next message even if the browser has no room to keep it", async () => {
    const alice = newName();
    const person = await crowd.stranger();
    const page = await visit(person, site.origin, alice);
    await page.evaluate(() => {
      let key = 0;
      for (let size = 2 ** 22; size >= 1; size >>= 1) {
        try {
          for (;;) localStorage.setItem(String(key++), "x".repeat(size));
        } catch {
          // The next one is half as long.
        }
      }
    });
    await say(page, "Hello");
    const name = page.getByRole("textbox", { name: /call you/ });
    await name.fill("Mira");
    await name.press("Enter");
    await say(page, "It's me");
    await shows(page, "Hello", "It's me");
    await page.getByText("Sent", { exact: true }).waitFor();
    expect(await name.isVisible()).toBe(false);
    const { body } = await site.ask("/api/chats", { user: alice });
    expect(body.chats).toMatchObject([{ nickname: "Mira" }]);
    expect(person.complaints).toEqual([]);
  });

  test("a message that was refused can be tried again or discarded", async () => {
    const alice = newName();
    const visitor = await open();
    await visitor.goto(`${site.origin}/chat/${alice}`);
    await say(visitor, "one");
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.getByRole("button", { name: /one/ }).click();
    await pick(user, "Block");
    await user.getByText("Nothing they write reaches you").waitFor();
    await say(visitor, "two");
    await visitor
      .getByRole("alert")
      .getByText("Not delivered. This person isn't accepting messages from you.")
      .waitFor();
    await visitor.getByRole("button", { name: "Discard" }).click();
    await shows(visitor, "one");
    await visitor.reload();
    await shows(visitor, "one");
  });

  test("whoever has scrolled up can jump to the newest, and scrolling up loads what is older by itself", async () => {
    const alice = newName();
    const person = await crowd.newcomer();
    const page = await visit(person, site.origin, alice);
    await say(page, "first");
    await page.getByText("Sent", { exact: true }).waitFor();
    const cookie = (await person.context.cookies()).map(({ name, value }) => `${name}=${value}`)[0];
    await using socket = await site.openVisitor(cookie);
    await getAnswer(site, socket, alice);
    const texts = ["first", "begin", "answer"];
    while (texts.length < 130) {
      const content = `message ${texts.length + 1}`;
      texts.push(content);
      socket.send({ type: "ANON_TO_USER", to: alice, content, ref: content });
      await socket.next(({ type, ref }) => type === "ACK" && ref === content);
      // The server's own clock stands still, and with it its limit of messages in a second.
      site.clock.advance(100);
    }
    await page.reload();
    await connected(page);
    await page.getByText("message 130").waitFor();
    const jump = page.getByRole("button", { name: "Newest messages" });
    expect(await jump.isVisible()).toBe(false);
    const log = page.getByRole("log");
    await log.hover();
    while (!(await log.getByText("first", { exact: true }).isVisible())) {
      await page.mouse.wheel(0, -600);
    }
    await shows(page, ...texts);
    await jump.click();
    await page.getByText("message 130").waitFor();
    expect(await jump.isVisible()).toBe(false);

    await page.mouse.wheel(0, -2_000);
    await jump.waitFor();
    socket.send({ type: "ANON_TO_USER", to: alice, content: "from another tab", ref: "other" });
    await socket.next(({ type, ref }) => type === "ACK" && ref === "other");
    await say(page, "from here");
    await log.getByText("from here").waitFor();
    await jump.waitFor({ state: "hidden" });

    await page.mouse.wheel(0, -2_000);
    await jump.waitFor();
    const { from } = await socket.next(({ content }) => content === "from here");
    await using answering = await site.openUser(alice);
    answering.send({ type: "USER_TO_ANON", to: from, content: "an answer" });
    await page.getByRole("button", { name: "New messages" }).click();
    await log.getByText("an answer").waitFor();
  });
});
