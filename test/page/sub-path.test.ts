import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Crowd, gatherCrowd } from "../support/browser.ts";
import { freePort } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { connected, newName, say, shows, signIn, startSite, visit } from "../support/site.ts";

/** Browsers are slow where others use the processor, too. */
setDefaultTimeout(60_000);

describeWith("chromium")("a server below a path", () => {
  let crowd: Crowd;
  let site: TestServer;
  let base: string;

  beforeAll(async () => {
    crowd = await gatherCrowd();
    const port = freePort();
    base = `http://127.0.0.1:${port}/chat`;
    site = startSite({ demo: false, port, publicUrl: new URL(base) });
  });
  afterAll(async () => {
    await crowd[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
  });

  test("serves its pages, on which a visitor and a user write to each other", async () => {
    const [mira, alice] = [await crowd.stranger(), await crowd.stranger()];
    const user = newName();
    const chat = await visit(mira, base, user);
    await say(chat, "Hello");
    const inbox = await signIn(alice, base, { token: await site.token(user) });
    const link = inbox.locator("#share-link");
    expect(await link.getAttribute("href")).toBe(`/chat/chat/${user}`);
    await inbox.getByText("Hello").first().click();
    await shows(inbox, "Hello");
    await say(inbox, "Welcome");
    await shows(chat, "Hello", "Welcome");
    await chat.reload();
    await connected(chat);
    await shows(chat, "Hello", "Welcome");
    expect([...mira.complaints, ...alice.complaints]).toEqual([]);
  });

  test("says what its operator has to set where pages have another origin than PUBLIC_URL", async () => {
    await using lost = startSite({ demo: false, publicUrl: new URL("https://chat.example.com") });
    const page = await (await crowd.stranger()).open();
    await page.goto(`${lost.origin}/chat/alice`);
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
});
