import { expect, test } from "bun:test";
import { freePort } from "../support/redis.ts";
import { describeInChromium } from "../support/chromium.ts";
import { peopleOf } from "../support/people.ts";
import { openBrowser, startEmbedding } from "../support/embedding.ts";
import { newName, say, shows, signIn, startSite, visit } from "../support/site.ts";

const port = freePort();
const base = `http://127.0.0.1:${port}/chat`;

describeInChromium(
  "a server below a path",
  (crowd, site) => {
    test("serves its pages, on which a visitor and a user write to each other", async () => {
      const [mira, alice] = [await crowd.stranger(), await crowd.stranger()];
      const user = newName();
      const inbox = await signIn(alice, base, { token: await site.token(user) });
      const link = inbox.getByRole("link", { name: base });
      expect(await link.getAttribute("href")).toBe(`${base}/chat/${user}`);
      const chat = await visit(mira, base, user);
      await say(chat, "Hello");
      await inbox.getByRole("button", { name: /Hello.*1 unread/ }).click();
      await shows(inbox, "Hello");
      expect(inbox.url()).toStartWith(`${base}/inbox/`);
      await say(inbox, "Welcome");
      await shows(chat, "Hello", "Welcome");
      await chat.reload();
      await shows(chat, "Hello", "Welcome");
      expect(new URL(chat.url()).pathname).toBe(`/chat/chat/${user}`);
      expect([...mira.complaints, ...alice.complaints]).toEqual([]);
    });

    test("can be in a frame on a page of another site, where a visitor writes and is answered", async () => {
      const path = "/tools/chat";
      await using embedding = await startEmbedding({ path });
      await using browser = await openBrowser("partitioned");
      const page = await browser.context.newPage();
      const complaints: string[] = [];
      page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
      const paths: string[] = [];
      page.on("request", (request) => paths.push(new URL(request.url()).pathname));
      await page.goto(embedding.crossSite);
      await page.getByRole("button", { name: "Chat" }).click();
      const frame = page.frameLocator("iframe");
      const field = frame.getByRole("textbox", { name: "Message" });
      await field.fill("Hello");
      await field.press("Enter");
      await frame.locator('[data-status="sent"]').waitFor();
      const [cookie, ...others] = await browser.context.cookies();
      expect(others).toEqual([]);
      expect(cookie?.name).toBe("__Host-embedSessionId.tools.chat");
      const { origin, clock } = embedding.server;
      const people = peopleOf(origin + path, { nowMs: clock.nowMs });
      await using alice = await people.openUser("alice");
      const visitor = cookie?.value.split(".")[1];
      alice.send({ type: "USER_TO_ANON", to: visitor, content: "Hi" });
      await frame.locator(".content", { hasText: "Hi" }).waitFor();
      await frame.getByRole("button", { name: "Close" }).click();
      await page.getByRole("dialog").waitFor({ state: "hidden" });
      alice.send({ type: "USER_TO_ANON", to: visitor, content: "Still there?" });
      await page.getByRole("button", { name: "Chat (1)" }).waitFor();
      await page.reload();
      await page.getByRole("button", { name: "Chat" }).click();
      await frame.locator(".content", { hasText: "Still there?" }).waitFor();
      expect(paths.filter((one) => !one.startsWith(`${path}/`))).toEqual(["/", "/"]);
      expect(complaints).toEqual([]);
    });

    test("says what its operator has to set where pages have another origin than PUBLIC_URL", async () => {
      await using lost = startSite({ demo: false, publicUrl: new URL("https://chat.example.com") });
      const page = await (await crowd.stranger()).open();
      await page.goto(`${lost.origin}/chat/alice`);
      await say(page, "Hello");
      await page.getByRole("status").getByText("set PUBLIC_URL").waitFor();
    });

    test("has a home page whose links lead to its other pages", async () => {
      const person = await crowd.stranger();
      const page = await person.open();
      await page.goto(base);
      await page.getByRole("link", { name: "Open the inbox" }).click();
      await page.getByRole("textbox", { name: "JWT" }).waitFor();
      expect(page.url()).toBe(`${base}/inbox`);
      expect(person.complaints).toEqual([]);
    });
  },
  { demo: false, port, publicUrl: new URL(base) },
);
