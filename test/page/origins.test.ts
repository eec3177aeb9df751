import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Browser, launchBrowser, type Page } from "../support/browser.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { newPerson, type Person, say, startSite, visit } from "../support/site.ts";

setDefaultTimeout(20_000);

/** Where somebody else's page may live: same site as the server's, and not. */
const STRANGERS = ["127.0.0.1", "localhost"];

describeWith("chromium")("a page of somebody else's", () => {
  let browser: Browser;
  let strangers: Bun.Server<undefined>;
  let person: Person;

  beforeAll(async () => {
    browser = await launchBrowser();
    strangers = Bun.serve({
      port: 0,
      fetch: () =>
        new Response("<!doctype html><title>Somebody else</title>", {
          headers: { "Content-Type": "text/html" },
        }),
    });
  });
  afterAll(async () => {
    await browser.close();
    await strangers.stop(true);
  });
  afterEach(() => person.context.close());

  /** A browser whose owner has written to alice before, now on the other page. */
  async function victim(site: TestServer, host: string): Promise<Page> {
    person = await newPerson(browser);
    const chat = await visit(person, site.origin);
    await say(chat, "a secret");
    await chat.getByText("Sent", { exact: true }).waitFor();
    await chat.close();
    const page = await person.context.newPage();
    await page.goto(`http://${host}:${strangers.port}/`);
    return page;
  }

  for (const host of STRANGERS) {
    test(`on ${host} and another port can't open a socket with the visitor's cookie`, async () => {
      await using site = startSite();
      const page = await victim(site, host);
      const outcome = await page.evaluate(
        (url) =>
          new Promise((resolve) => {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve("open");
            socket.onclose = ({ code }) => resolve(code);
          }),
        `${site.origin.replace("http", "ws")}/ws/chat`,
      );
      expect(outcome).toBe(1006);
      expect(site.logLines.some((line) => line.includes("origin_refused"))).toBe(true);
      // The one that its owner opened before.
      expect(site.logLines.filter((line) => line.includes('"socket_opened"'))).toHaveLength(1);
    });

    test(`on ${host} and another port can't mint or renew a cookie`, async () => {
      await using site = startSite();
      person = await newPerson(browser);
      const page = await person.context.newPage();
      await page.goto(`http://${host}:${strangers.port}/`);
      const outcomes = await page.evaluate(async (url) => {
        const post = (mode: RequestMode) =>
          fetch(url, { method: "POST", mode, credentials: "include" }).then(
            ({ type }) => type,
            (error) => String(error),
          );
        const form = document.createElement("form");
        const frame = document.createElement("iframe");
        const loaded = new Promise((resolve) => (frame.onload = resolve));
        [form.method, form.action, form.target, frame.name] = ["post", url, "frame", "frame"];
        document.body.append(frame, form);
        const outcomes = [await post("cors"), await post("no-cors")];
        form.submit();
        await loaded;
        return outcomes;
      }, `${site.origin}/api/auth/anonymous-session`);
      // An opaque answer is one that nobody can read.
      expect(outcomes).toEqual(["TypeError: Failed to fetch", "opaque"]);
      expect(await person.context.cookies(site.origin)).toEqual([]);
    });

    test(`on ${host} and another port can't read, mark or delete a chat`, async () => {
      await using site = startSite();
      const page = await victim(site, host);
      const outcomes = await page.evaluate(async (origin) => {
        const asks: [string, string, RequestMode][] = [
          ["GET", "/api/chats", "cors"],
          ["GET", "/api/chats/alice/messages", "cors"],
          ["GET", "/api/chats/alice/messages", "no-cors"],
          ["POST", "/api/chats/alice/read", "no-cors"],
          ["DELETE", "/api/chats/alice", "cors"],
          ["POST", "/api/demo/token", "no-cors"],
        ];
        return Promise.all(
          asks.map(([method, path, mode]) =>
            fetch(origin + path, { method, mode, credentials: "include" }).then(
              async (response) => response.type + (await response.text()),
              (error) => String(error),
            ),
          ),
        );
      }, site.origin);
      const refused = "TypeError: Failed to fetch";
      expect(outcomes).toEqual([refused, refused, "opaque", "opaque", refused, "opaque"]);
      const chats = await site.ask("/api/chats", { user: "alice" });
      expect(chats.body.chats).toMatchObject([{ lastMessage: { content: "a secret" } }]);
    });

    test(`on ${host} and another port can neither frame the chat nor keep a hand on its window`, async () => {
      await using site = startSite();
      const page = await victim(site, host);
      await page.evaluate((url) => {
        const frame = document.createElement("iframe");
        frame.src = url;
        document.body.append(frame);
        return new Promise((resolve) => (frame.onload = resolve));
      }, `${site.origin}/chat/alice`);
      expect(await page.frameLocator("iframe").getByRole("log").count()).toBe(0);
      const popup = page.waitForEvent("popup");
      await page.evaluate((url) => {
        Object.assign(globalThis, { opened: window.open(url) });
      }, `${site.origin}/chat/alice`);
      const chat = await popup;
      await chat.getByText("a secret").waitFor();
      expect(await chat.evaluate(() => window.opener)).toBeNull();
      expect(
        await page.evaluate(() => (globalThis as unknown as { opened: Window }).opened.closed),
      ).toBe(true);
    });
  }
});
