import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Frame, Page } from "playwright-core";
import { type Embedding, openBrowser, shareBrowser, startEmbedding } from "../support/embedding.ts";
import { describeWith } from "../support/require.ts";

/** Browsers are slow where others use the processor, too. */
setDefaultTimeout(60_000);

const SITES = ["sameSite", "crossSite"] as const;

/** What the page around needs in its own policy, and nothing more. */
const policy = (chat: string) =>
  `default-src 'none'; script-src ${chat}; frame-src ${chat}; require-trusted-types-for 'script'; trusted-types 'none'`;

describeWith("chromium", "openssl")("the chat on somebody's own site", () => {
  let embedding: Embedding;
  beforeAll(async () => {
    embedding = await startEmbedding({
      policy,
      attributes: 'data-greeting="Any questions?" data-color="#0a7d33" data-locale="en"',
    });
  });
  afterAll(() => embedding[Symbol.asyncDispose]());

  function launcher(page: Page) {
    return page.getByRole("button", { name: /^Chat( \(\d+\))?$/ });
  }

  /** Opens the chat on a page, and returns its frame. */
  async function openChat(page: Page): Promise<Frame> {
    await launcher(page).click();
    const element = await page.locator("iframe").elementHandle();
    const frame = await element?.contentFrame();
    if (!frame) throw new Error("There is no frame");
    await frame.getByRole("textbox", { name: "Message" }).waitFor();
    return frame;
  }

  async function say(frame: Frame, text: string): Promise<void> {
    const box = frame.getByRole("textbox", { name: "Message" });
    await box.fill(text);
    await box.press("Enter");
  }

  /** The next message to alice with this text. */
  async function heard(text: string) {
    const { body } = await embedding.server.ask("/api/chats", { user: "alice" });
    const chats = body.chats as { peer: string; lastMessage: { content: string } }[];
    return chats.find(({ lastMessage }) => lastMessage.content === text)?.peer;
  }

  describe.each(["all", "partitioned"] as const)("where third-party cookies: %s", (cookies) => {
    const browser = shareBrowser(cookies);

    test.each(SITES)(
      "%s: writes, is answered, and finds the chat again after a reload",
      async (site) => {
        const page = await browser.context.newPage();
        const complaints: string[] = [];
        page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
        const requests: string[] = [];
        page.on("request", (request) => requests.push(request.url()));
        await page.goto(embedding[site]);
        await launcher(page).waitFor();
        // Before the first click there is nothing but the script.
        const { chat } = embedding;
        expect(requests.filter((url) => url.startsWith(chat))).toEqual([`${chat}/embed.js`]);
        expect(await browser.context.cookies()).toEqual([]);

        const frame = await openChat(page);
        // Whoever only looks at it isn't remembered, either.
        expect(await browser.context.cookies()).toEqual([]);
        const text = `Hello from ${site}, ${cookies}`;
        await say(frame, text);
        await frame.locator('[role="log"]').getByText(text).waitFor();
        await frame.locator('[data-status="sent"]').waitFor();
        const [cookie, ...others] = await browser.context.cookies();
        expect(others).toEqual([]);
        expect(cookie).toMatchObject({
          name: "__Host-embedSessionId",
          httpOnly: true,
          secure: true,
          sameSite: "None",
        });

        await using alice = await embedding.server.openUser("alice");
        const visitor = cookie?.value.split(".")[1] as string;
        alice.send({ type: "USER_TO_ANON", to: visitor, content: "Hi" });
        await frame.locator('[role="log"]').getByText("Hi", { exact: true }).waitFor();

        await page.reload();
        const again = await openChat(page);
        await again.locator('[role="log"]').getByText(text).waitFor();
        await again.locator('[role="log"]').getByText("Hi", { exact: true }).waitFor();
        expect(complaints).toEqual([]);
      },
    );
  });

  describe("in a browser", () => {
    const browser = shareBrowser("partitioned");

    async function openPage(site: "sameSite" | "crossSite" | "foreign", path = "/") {
      const page = await browser.context.newPage();
      await page.goto(embedding[site] + path);
      return page;
    }

    test("each site has a visitor of its own", async () => {
      const ids = new Set<string | undefined>();
      for (const site of SITES) {
        const page = await openPage(site);
        const frame = await openChat(page);
        await say(frame, `I am on ${site}`);
        await frame.locator('[data-status="sent"]').waitFor();
        ids.add(await heard(`I am on ${site}`));
      }
      expect(ids.size).toBe(2);
      expect([...ids]).not.toContain(undefined);
    });

    test("counts what comes in while it is closed, and reads it when it is opened", async () => {
      const page = await openPage("crossSite");
      const frame = await openChat(page);
      await say(frame, "Are you there?");
      await frame.locator('[data-status="sent"]').waitFor();
      const visitor = await heard("Are you there?");
      await frame.getByRole("button", { name: "Close" }).click();
      await page.getByRole("dialog").waitFor({ state: "hidden" });
      await using alice = await embedding.server.openUser("alice");
      alice.send({ type: "USER_TO_ANON", to: visitor, content: "Yes" });
      await page.getByRole("button", { name: "Chat (1)" }).waitFor();
      expect(await page.locator(".badge").textContent()).toBe("1");
      await launcher(page).click();
      await alice.next(({ type, by }) => type === "READ" && by === visitor);
      await page.locator(".badge").waitFor({ state: "hidden" });
    });

    test("Escape closes it, in the frame and on the page, and the focus returns to its button", async () => {
      const page = await openPage("crossSite");
      const frame = await openChat(page);
      await frame.waitForFunction(() => document.activeElement?.tagName === "TEXTAREA");
      for (const press of [
        () => page.keyboard.press("Escape"),
        () => page.keyboard.press("Escape"),
      ]) {
        await press();
        await page.getByRole("dialog").waitFor({ state: "hidden" });
        const focused = await page.evaluate(
          () => document.activeElement?.shadowRoot?.activeElement?.className,
        );
        expect(focused).toBe("launcher");
        expect(await launcher(page).getAttribute("aria-expanded")).toBe("false");
        await launcher(page).click();
        await page.getByRole("link", { name: "A link" }).focus();
      }
    });

    test("takes colour, greeting, theme and language from the page, and changes them with it", async () => {
      const page = await openPage("crossSite");
      await page.getByRole("button", { name: "Any questions?" }).waitFor();
      const color = () =>
        launcher(page).evaluate((element) => getComputedStyle(element).backgroundColor);
      const onColor = () => launcher(page).evaluate((element) => getComputedStyle(element).color);
      expect([await color(), await onColor()]).toEqual(["rgb(10, 125, 51)", "rgb(255, 255, 255)"]);
      const frame = await openChat(page);
      expect(await page.getByRole("button", { name: "Any questions?" }).isVisible()).toBe(false);
      const accent = () =>
        frame.evaluate(() => document.documentElement.style.getPropertyValue("--accent"));
      await frame.waitForFunction(() =>
        document.documentElement.style.getPropertyValue("--accent"),
      );
      expect(await accent()).toBe("#0a7d33");
      await frame.evaluate(() => Object.assign(globalThis, { isFirst: true }));
      await page.evaluate(() => {
        const script = document.querySelector("script") as HTMLScriptElement;
        script.dataset.theme = "dark";
        script.dataset.color = "gold";
      });
      await frame.waitForFunction(() => document.documentElement.style.colorScheme === "dark");
      expect([await accent(), await color()]).toEqual(["gold", "rgb(255, 215, 0)"]);
      expect(await onColor()).toBe("rgb(0, 0, 0)");
      // What is no colour changes nothing.
      await page.evaluate(() => {
        const script = document.querySelector("script") as HTMLScriptElement;
        script.dataset.color = "golden";
        script.dataset.theme = "light";
      });
      await frame.waitForFunction(() => document.documentElement.style.colorScheme === "light");
      expect([await accent(), await color()]).toEqual(["gold", "rgb(255, 215, 0)"]);
      // None of this has loaded it again, as another language does.
      expect(await frame.evaluate(() => "isFirst" in globalThis)).toBe(true);
      await page.evaluate(() => {
        (document.querySelector("script") as HTMLScriptElement).dataset.locale = "de";
      });
      await page.frameLocator("iframe").getByRole("button", { name: "Schließen" }).waitFor();
    });

    test("its greeting opens it, or can be dismissed, which leaves the focus on its button", async () => {
      const page = await openPage("crossSite");
      const greeting = page.getByRole("button", { name: "Any questions?" });
      await page.getByRole("button", { name: "×" }).click();
      expect(await greeting.isVisible()).toBe(false);
      expect(await launcher(page).evaluate((one) => one.matches(":focus"))).toBe(true);
      expect(await page.locator("iframe").count()).toBe(0);
      // There is nothing to close: the focus isn't the chat's to move.
      const link = page.getByRole("link", { name: "A link" });
      await link.focus();
      await page.keyboard.press("Escape");
      expect(await link.evaluate((one) => one.matches(":focus"))).toBe(true);
      await page.reload();
      await greeting.click();
      await page.frameLocator("iframe").getByRole("textbox", { name: "Message" }).waitFor();
      expect(await greeting.isVisible()).toBe(false);
      // The page has a dialog of its own, say, that this Escape closes.
      await link.evaluate((one) =>
        one.addEventListener("keydown", (event) => event.preventDefault(), { once: true }),
      );
      await link.focus();
      const chat = page.getByRole("dialog", { name: "Chat" });
      await page.keyboard.press("Escape");
      expect(await chat.isVisible()).toBe(true);
      await page.keyboard.press("Escape");
      await chat.waitFor({ state: "hidden" });
    });

    test("works from a page's head, with the page's language, and the side and the name that it is given", async () => {
      const page = await openPage("crossSite", "/open");
      const script = `<script src="${embedding.chat}/embed.js" data-user="a/b?c#d" data-side="left" data-label="Fragen?"></script>`;
      await page.setContent(
        `<!doctype html><html lang="de"><head><title>A shop</title>${script}</head><body>A shop</body></html>`,
      );
      const button = page.getByRole("button", { name: "Fragen?" });
      expect((await button.boundingBox())?.x).toBe(16);
      await button.click();
      await page.getByRole("dialog", { name: "Fragen?" }).waitFor();
      expect(await page.locator("iframe").getAttribute("title")).toBe("Fragen?");
      const frame = page.frameLocator("iframe");
      await frame.getByRole("textbox", { name: "Nachricht" }).waitFor();
      expect(await frame.getByRole("heading").textContent()).toBe("Chat mit a/b?c#d");
    });

    test("Escape in the frame closes a menu or a dialog before the chat, and not while a text is composed", async () => {
      const page = await openPage("crossSite");
      const frame = await openChat(page);
      await say(frame, "Hello");
      await frame.locator('[data-status="sent"]').waitFor();
      const chat = page.getByRole("dialog", { name: "Chat" });
      const pressed = () => frame.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
      const options = frame.getByRole("button", { name: "Options" });
      const remove = frame.getByRole("button", { name: "Delete chat" });
      await options.click();
      await page.keyboard.press("Escape");
      await pressed();
      expect([await remove.isVisible(), await chat.isVisible()]).toEqual([false, true]);
      await options.click();
      await remove.click();
      await frame.getByRole("dialog").waitFor();
      await page.keyboard.press("Escape");
      await frame.getByRole("dialog").waitFor({ state: "hidden" });
      expect(await chat.isVisible()).toBe(true);
      await frame.getByRole("textbox", { name: "Message" }).evaluate((field) => {
        const composing = { key: "Escape", isComposing: true, bubbles: true };
        field.dispatchEvent(new KeyboardEvent("keydown", composing));
      });
      await pressed();
      expect(await chat.isVisible()).toBe(true);
      await page.keyboard.press("Escape");
      await chat.waitFor({ state: "hidden" });
    });

    test("the inbox has the script to copy for any user's id, as text inside its quotation marks", async () => {
      const page = await browser.context.newPage();
      await page.goto(`${embedding.chat}/inbox`);
      const token = await embedding.server.token('a"<b>&c');
      await page.getByRole("textbox", { name: "JWT" }).fill(token);
      await page.getByRole("button", { name: "Sign in" }).click();
      expect(await page.locator("code").textContent()).toBe(
        `<script async src="${embedding.chat}/embed.js" data-user="a&quot;&lt;b>&amp;c"></script>`,
      );
      const link = page.getByRole("link", { name: `${embedding.chat}/chat/` });
      expect(await link.getAttribute("href")).toBe(`${embedding.chat}/chat/a%22%3Cb%3E%26c`);
    });

    test("fills the screen of a phone", async () => {
      const page = await openPage("crossSite");
      await page.setViewportSize({ width: 390, height: 800 });
      await openChat(page);
      expect(await page.locator("iframe").boundingBox()).toEqual({
        x: 0,
        y: 0,
        width: 390,
        height: 800,
      });
      expect(await launcher(page).isVisible()).toBe(false);
      const frame = page.frameLocator("iframe");
      await frame.getByRole("textbox", { name: "Message" }).fill("From a phone");
      await frame.getByRole("button", { name: "Send" }).click();
      await frame.locator('[data-status="sent"]').waitFor();
      await frame.getByRole("button", { name: "Close" }).click();
      await launcher(page).waitFor();
    });

    test("the page around can neither read it nor act as the visitor", async () => {
      // Without a policy, which would keep the page from trying.
      const page = await openPage("crossSite", "/open");
      const told: unknown[] = [];
      await page.exposeFunction("tell", (data: unknown) => void told.push(data));
      await page.evaluate(() => {
        addEventListener("message", ({ data, origin }) =>
          (globalThis as unknown as { tell(data: unknown): void }).tell({ ...data, origin }),
        );
      });
      const frame = await openChat(page);
      await say(frame, "A secret");
      await frame.locator('[data-status="sent"]').waitFor();
      const outcomes = await page.evaluate(async (chat) => {
        const { contentWindow, contentDocument } = (
          document.querySelector("div:last-of-type") as HTMLElement
        ).shadowRoot?.querySelector("iframe") as HTMLIFrameElement;
        const attempt = (read: () => unknown) => {
          try {
            return String(read());
          } catch (error) {
            return (error as Error).name;
          }
        };
        const ask = (method: string, path: string, mode: RequestMode) =>
          fetch(chat + path, { method, mode, credentials: "include" }).then(
            async (response) => response.type + (await response.text()),
            (error) => String(error.name),
          );
        return {
          document: contentDocument,
          read: attempt(() => contentWindow?.document),
          location: attempt(() => contentWindow?.location.href),
          asked: [
            await ask("GET", "/embed/api/chats", "cors"),
            await ask("GET", "/embed/api/chats/alice/messages", "no-cors"),
            await ask("DELETE", "/embed/api/chats/alice", "cors"),
            await ask("POST", "/embed/api/chats/alice/read", "no-cors"),
          ],
          socket: await new Promise((resolve) => {
            const socket = new WebSocket(`${chat.replace("https", "wss")}/embed/ws/chat`);
            socket.onopen = () => resolve("open");
            socket.onclose = ({ code }) => resolve(code);
          }),
        };
      }, embedding.chat);
      expect(outcomes).toEqual({
        document: null,
        read: "SecurityError",
        location: "SecurityError",
        // An opaque answer is one that nobody can read.
        asked: ["TypeError", "opaque", "TypeError", "opaque"],
        socket: 1006,
      });
      const { body } = await embedding.server.ask("/api/chats", { user: "alice" });
      expect(body.chats[0]).toMatchObject({ unread: 1, lastMessage: { content: "A secret" } });
      expect(told.map((data) => (data as { type: string }).type)).toContain("ws-ticket:ready");
      for (const one of told) {
        expect(one).toMatchObject({ origin: embedding.chat });
        expect(JSON.stringify(one)).not.toMatch(/v1\.|secret/);
      }
    });

    test("a message from anybody else is ignored, at both ends", async () => {
      const page = await openPage("crossSite");
      const frame = await openChat(page);
      // From the page to itself: the right words, and the wrong sender.
      await page.evaluate(() => postMessage({ type: "ws-ticket:close" }, "*"));
      await page.evaluate(() => postMessage({ type: "ws-ticket:unread", count: 7 }, "*"));
      // From the frame to itself.
      await frame.evaluate(() => postMessage({ type: "ws-ticket:theme", scheme: "dark" }, "*"));
      // Of the right origin and from another window, and the other way round.
      await page.evaluate((chat) => {
        const { contentWindow } = (
          document.querySelector("body > div") as HTMLElement
        ).shadowRoot?.querySelector("iframe") as HTMLIFrameElement;
        const data = { type: "ws-ticket:close" };
        dispatchEvent(new MessageEvent("message", { data, origin: chat, source: window }));
        const { origin } = location;
        dispatchEvent(new MessageEvent("message", { data, origin, source: contentWindow }));
      }, embedding.chat);
      await frame.evaluate((host) => {
        const data = { type: "ws-ticket:theme", scheme: "dark" };
        dispatchEvent(new MessageEvent("message", { data, origin: host, source: window }));
        const { origin } = location;
        dispatchEvent(new MessageEvent("message", { data, origin, source: parent }));
      }, embedding.crossSite);
      await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
      await frame.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
      expect(await page.getByRole("dialog").isVisible()).toBe(true);
      expect(await page.locator(".badge").isVisible()).toBe(false);
      expect(await frame.evaluate(() => document.documentElement.style.colorScheme)).toBe("");
    });

    test("on a page that isn't allowed there is a link in its place", async () => {
      const page = await browser.context.newPage();
      await page.clock.install();
      await page.goto(embedding.foreign);
      await launcher(page).click();
      await page.clock.runFor(10_000);
      const link = page.getByRole("link", { name: "Open chat in a new tab" });
      expect(await link.getAttribute("href")).toBe(`${embedding.chat}/chat/alice`);
      expect(await page.locator("iframe").count()).toBe(0);
    });

    test("nothing else can be framed, by allowed pages and by others", async () => {
      const { chat, crossSite } = embedding;
      const paths = ["/", "/chat/alice", "/inbox", "/inbox/x", "/embed/alice", "/nothing"];
      const lie = `/embed/alice?host=${encodeURIComponent(crossSite)}`;
      for (const [site, all] of [
        ["crossSite", paths],
        ["foreign", [...paths, lie]],
      ] as const) {
        const page = await openPage(site);
        for (const path of all) {
          await page.evaluate((src) => {
            const frame = document.createElement("iframe");
            frame.src = src;
            document.body.append(frame);
            return new Promise((resolve) => (frame.onload = resolve));
          }, chat + path);
          const framed = page.frames().at(-1);
          expect([site, path, await framed?.getByRole("heading").count()]).toEqual([site, path, 0]);
        }
      }
    });
  });

  test("where no cookie is kept in frames, offers to open the chat in a new tab, and keeps the text", async () => {
    await using browser = await openBrowser("none");
    const page = await browser.context.newPage();
    await page.goto(embedding.crossSite);
    const frame = await openChat(page);
    await say(frame, "Not lost");
    const link = frame.getByRole("link", { name: "Open chat in a new tab" });
    await link.waitFor();
    expect(await link.getAttribute("href")).toBe("/chat/alice");
    expect(await frame.getByRole("textbox", { name: "Message" }).inputValue()).toBe("Not lost");
  });
});
