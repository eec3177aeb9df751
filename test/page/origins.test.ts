import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Page, Person } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { newName } from "../support/site.ts";

/** Hosts of a foreign page: same site as the server's, and not. */
const HOSTS = ["127.0.0.1", "localhost"];

describeInChromium("a foreign page", (crowd, site) => {
  let strangers: Bun.Server<undefined>;

  beforeAll(() => {
    strangers = Bun.serve({
      port: 0,
      fetch: () =>
        new Response("<!doctype html><title>A foreign page</title>", {
          headers: { "Content-Type": "text/html" },
        }),
    });
  });
  afterAll(() => strangers.stop(true));

  async function foreignPage(person: Person, host: string): Promise<Page> {
    const page = await person.open();
    await page.goto(`http://${host}:${strangers.port}/`);
    return page;
  }

  function count(event: string, code = ""): number {
    const isIt = (line: string) => line.includes(`"${event}"`) && line.includes(code);
    return site.logLines.filter(isIt).length;
  }
  const refusals = () => count("socket_refused", "origin_refused");

  /** A browser on the foreign page whose owner has written to a user before. */
  async function victim(host: string): Promise<{ person: Person; page: Page; user: string }> {
    const person = await crowd.newcomer();
    const user = newName();
    await person.context.request.post(`${site.origin}/api/auth/anonymous-session`);
    const [cookie] = await person.context.cookies(site.origin);
    await using socket = await site.openVisitor(`${cookie?.name}=${cookie?.value}`);
    socket.send({ type: "ANON_TO_USER", to: user, content: "a secret" });
    await socket.next(({ type }) => type === "ACK");
    return { person, page: await foreignPage(person, host), user };
  }

  for (const host of HOSTS) {
    test(`on ${host} and another port can't open a socket with the visitor's cookie`, async () => {
      const { page } = await victim(host);
      const [earlier, refused] = [count("socket_opened"), refusals()];
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
      expect(refusals()).toBe(refused + 1);
      expect(count("socket_opened")).toBe(earlier);
    });

    test(`on ${host} and another port can't get or renew a cookie`, async () => {
      const person = await crowd.newcomer();
      const page = await foreignPage(person, host);
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
      const { page, user } = await victim(host);
      const outcomes = await page.evaluate(
        async ([origin, user]) => {
          const asks: [string, string, RequestMode][] = [
            ["GET", "/api/chats", "cors"],
            ["GET", `/api/chats/${user}/messages`, "cors"],
            ["GET", `/api/chats/${user}/messages`, "no-cors"],
            ["POST", `/api/chats/${user}/read`, "no-cors"],
            ["DELETE", `/api/chats/${user}`, "cors"],
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
        },
        [site.origin, user],
      );
      const refused = "TypeError: Failed to fetch";
      expect(outcomes).toEqual([refused, refused, "opaque", "opaque", refused, "opaque"]);
      const chats = await site.ask("/api/chats", { user });
      expect(chats.body.chats).toMatchObject([{ unread: 1, lastMessage: { content: "a secret" } }]);
    });

    test(`on ${host} and another port can neither frame the chat nor keep a reference to its window`, async () => {
      const { page, user } = await victim(host);
      await page.evaluate((url) => {
        const frame = document.createElement("iframe");
        frame.src = url;
        document.body.append(frame);
        return new Promise((resolve) => (frame.onload = resolve));
      }, `${site.origin}/chat/${user}`);
      expect(await page.frameLocator("iframe").getByRole("log").count()).toBe(0);
      const popup = page.waitForEvent("popup");
      await page.evaluate((url) => {
        Object.assign(globalThis, { opened: window.open(url) });
      }, `${site.origin}/chat/${user}`);
      const chat = await popup;
      await chat.getByText("a secret").waitFor();
      expect(await chat.evaluate(() => window.opener)).toBeNull();
      expect(
        await page.evaluate(() => (globalThis as unknown as { opened: Window }).opened.closed),
      ).toBe(true);
    });
  }
});
