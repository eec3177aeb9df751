import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Page } from "playwright-core";
import { type Embedding, shareBrowser, startEmbedding } from "../support/embedding.ts";
import { describeWith } from "../support/require.ts";

/** Browsers are slow where others use the processor, too. */
setDefaultTimeout(60_000);

describeWith("chromium", "openssl")("the host's app hands a JWT over", () => {
  let embedding: Embedding;
  const browser = shareBrowser("partitioned");
  beforeAll(async () => {
    embedding = await startEmbedding({ areAllowed: true });
  });
  afterAll(() => embedding[Symbol.asyncDispose]());

  /** Sends the browser to the inbox with a form, as a page on another site has to. */
  async function submit(page: Page, token: string): Promise<void> {
    await page.evaluate(
      ([action, token]) => {
        const field = Object.assign(document.createElement("input"), { name: "token" });
        const form = Object.assign(document.createElement("form"), { method: "post" });
        [form.action, field.value] = [action as string, token as string];
        form.append(field);
        document.body.append(form);
        form.submit();
      },
      [`${embedding.chat}/inbox/api/session`, token],
    );
  }

  /** What the exchange answers to a page's script; its name where the browser keeps the answer from it. */
  function exchange(page: Page, token: string): Promise<number | string> {
    return page.evaluate(
      ([url, token]) =>
        fetch(url as string, {
          method: "POST",
          headers: { Authorization: `Bearer ${token}` },
          credentials: "include",
        }).then(
          ({ status }) => status,
          (error) => String(error.name),
        ),
      [`${embedding.chat}/inbox/api/session`, token],
    );
  }

  const whoIs = (page: Page) =>
    page.evaluate(async () => (await (await fetch("/inbox/api/session")).json()).user as unknown);

  test("by a form on another site: the inbox opens, and stays open after a reload", async () => {
    const page = await browser.context.newPage();
    await page.goto(embedding.crossSite);
    await submit(page, await embedding.server.token("alice"));
    await page.waitForURL(`${embedding.chat}/inbox`);
    await page
      .getByRole("button", { name: /alice|Sign out|Options/ })
      .first()
      .waitFor();
    expect(await whoIs(page)).toBe("alice");
    await page.reload();
    expect(await whoIs(page)).toBe("alice");
    expect(await page.evaluate("document.cookie")).toBe("");
    const cookies = await browser.context.cookies();
    expect(cookies).toMatchObject([
      { name: "__Host-inboxSession", httpOnly: true, secure: true, sameSite: "Strict" },
    ]);
  });

  test("by a script on the same site", async () => {
    const page = await browser.context.newPage();
    await page.goto(embedding.sameSite);
    expect(await exchange(page, await embedding.server.token("alice"))).toBe(204);
    await page.goto(`${embedding.chat}/inbox`);
    expect(await whoIs(page)).toBe("alice");
  });

  test("and a script on another site can't: the browser doesn't keep the cookie", async () => {
    const page = await browser.context.newPage();
    await page.goto(embedding.crossSite);
    expect(await exchange(page, await embedding.server.token("alice"))).toBe(204);
    expect(await browser.context.cookies()).toEqual([]);
  });

  test("and a page that isn't allowed can open nobody's inbox, by form or script", async () => {
    const page = await browser.context.newPage();
    await page.goto(embedding.foreign);
    const token = await embedding.server.token("mallory");
    expect(await exchange(page, token)).toBe("TypeError");
    await submit(page, token);
    await page.waitForURL(`${embedding.chat}/inbox/api/session`);
    expect(await page.textContent("body")).toContain("origin_refused");
    expect(await browser.context.cookies()).toEqual([]);
  });

  test("and other sites can't use the session", async () => {
    const page = await browser.context.newPage();
    await page.goto(embedding.crossSite);
    await submit(page, await embedding.server.token("alice"));
    await page.waitForURL(`${embedding.chat}/inbox`);
    for (const site of ["sameSite", "crossSite", "foreign"] as const) {
      await page.goto(`${embedding[site]}/open`);
      const outcomes = await page.evaluate(async (chat) => {
        const asks = ["/inbox/api/auth/ws-ticket", "/inbox/api/auth/sign-out"].flatMap((path) =>
          (["cors", "no-cors"] as const).map((mode) =>
            fetch(chat + path, { method: "POST", mode, credentials: "include" }).then(
              ({ status, type }) => `${type} ${status}`,
              (error) => String(error.name),
            ),
          ),
        );
        return Promise.all(asks);
      }, embedding.chat);
      for (const outcome of outcomes) {
        expect(["TypeError", "opaque 0", "cors 401", "cors 403"]).toContain(outcome);
      }
    }
    await page.goto(`${embedding.chat}/inbox`);
    expect(await whoIs(page)).toBe("alice");
  });
});
