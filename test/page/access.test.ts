import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import axe from "axe-core";
import { type Browser, launchBrowser, type Page } from "../support/browser.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { connected, say, startSite } from "../support/site.ts";

setDefaultTimeout(30_000);

const WIDTHS = [320, 1280];

describeWith("chromium")("axe finds nothing on", () => {
  let browser: Browser;
  let site: TestServer;
  let visitor: string;

  beforeAll(async () => {
    browser = await launchBrowser();
    site = startSite();
    visitor = await site.visitorCookie();
    const socket = await site.openVisitor(visitor);
    for (const content of ["Hello", "A word as long as ".replaceAll(" ", "") + "x".repeat(300)]) {
      socket.send({
        type: "ANON_TO_USER",
        to: "alice",
        content,
        nickname: "Mira",
        ref: content.slice(0, 9),
      });
      await socket.next((frame) => frame.type === "ACK");
    }
  });
  afterAll(async () => {
    await browser.close();
    await site.server.stop();
  });

  async function openPage(width: number): Promise<Page> {
    const context = await browser.newContext({
      viewport: { width, height: 700 },
      // Only to let axe in, which is a script that the page's own policy keeps out.
      bypassCSP: true,
      reducedMotion: "reduce",
    });
    const [name = "", value = ""] = visitor.split("=");
    await context.addCookies([{ name, value, url: site.origin }]);
    return context.newPage();
  }

  async function expectClean(page: Page): Promise<void> {
    await page.evaluate(axe.source);
    await page.emulateMedia({ colorScheme: "light" });
    expect(await violations(page, {})).toEqual([]);
    await page.emulateMedia({ colorScheme: "dark" });
    // Nothing but colours is different in the dark.
    expect(await violations(page, { runOnly: ["color-contrast"] })).toEqual([]);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflow).toBe(0);
  }

  for (const width of WIDTHS) {
    test(`the first page, light and dark, ${width} px wide`, async () => {
      const page = await openPage(width);
      await page.goto(site.origin);
      await expectClean(page);
      await page.context().close();
    });

    test(`a chat, light and dark, ${width} px wide`, async () => {
      const page = await openPage(width);
      await page.goto(`${site.origin}/chat/alice`);
      await page.getByText("Hello").waitFor();
      await expectClean(page);
      await page.goto(`${site.origin}/chat/${"nobody".repeat(20)}`);
      await connected(page);
      await page.getByText("You need no account").waitFor();
      await expectClean(page);
      await page.context().close();
    });

    test(`the inbox, from signing in to deleting, light and dark, ${width} px wide`, async () => {
      const page = await openPage(width);
      await page.goto(`${site.origin}/inbox#alice`);
      await expectClean(page);
      await page.getByRole("button", { name: "Sign in" }).click();
      await page.getByRole("button", { name: /Mira/ }).waitFor();
      await expectClean(page);
      await page.getByRole("button", { name: /Mira/ }).click();
      await page.getByRole("log").getByText("Hello").waitFor();
      await say(page, "Hi");
      await page.getByText("Sent", { exact: true }).last().waitFor();
      await page.getByRole("button", { name: "Block", exact: true }).click();
      await page.getByRole("button", { name: "Unblock" }).waitFor();
      await expectClean(page);
      await page.getByRole("button", { name: "Unblock" }).click();
      await page.getByRole("button", { name: "Delete" }).click();
      await page.getByRole("dialog").waitFor();
      await expectClean(page);
      await page.context().close();
    });
  }
});

async function violations(page: Page, options: axe.RunOptions): Promise<unknown[]> {
  return page.evaluate(async (only) => {
    const { axe: run } = globalThis as unknown as { axe: typeof axe };
    const found = await run.run({ ...only, resultTypes: ["violations"] });
    return found.violations.map(({ id, impact, nodes }) => ({
      ...{ id, impact },
      nodes: nodes.map(({ html, failureSummary }) => `${html}: ${failureSummary}`),
    }));
  }, options);
}
