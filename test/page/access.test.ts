import { beforeAll, expect, test } from "bun:test";
import axe from "axe-core";
import type { Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { pick, say } from "../support/site.ts";

/** The first of them is where people click: there is least room. */
const WIDTHS = [320, 1280] as const;

describeInChromium(
  "axe finds nothing, light and dark, at 320 and at 1280 px, on",
  (crowd, site) => {
    let visitor: string;

    beforeAll(async () => {
      visitor = await site.visitorCookie();
      await using socket = await site.openVisitor(visitor);
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

    async function openPage(): Promise<Page> {
      // Only to let axe in, which is a script that the page's own policy keeps out.
      const { context, open } = await crowd.stranger({ bypassCSP: true });
      const [name = "", value = ""] = visitor.split("=");
      await context.addCookies([{ name, value, url: site.origin }]);
      const page = await open();
      await page.setViewportSize({ width: WIDTHS[0], height: 700 });
      return page;
    }

    async function expectClean(page: Page): Promise<void> {
      await page.evaluate((source) => "axe" in globalThis || void (0, eval)(source), axe.source);
      for (const width of WIDTHS.toReversed()) {
        await page.setViewportSize({ width, height: 700 });
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
    }

    test("the first page", async () => {
      const page = await openPage();
      await page.goto(site.origin);
      await expectClean(page);
    });

    test("a chat", async () => {
      const page = await openPage();
      await page.goto(`${site.origin}/chat/alice`);
      await page.getByText("Hello").waitFor();
      await expectClean(page);
      await page.goto(`${site.origin}/chat/${"nobody".repeat(20)}`);
      await page.getByText("Hello").waitFor({ state: "hidden" });
      await page.getByText("You don't need an account").waitFor();
      await expectClean(page);
    });

    test("the inbox, from signing in to deleting", async () => {
      const page = await openPage();
      await page.goto(`${site.origin}/inbox#alice`);
      await expectClean(page);
      await page.getByRole("button", { name: "Sign in" }).click();
      await page.getByRole("button", { name: /Mira/ }).waitFor();
      await expectClean(page);
      await page.getByRole("button", { name: /Mira/ }).click();
      await page.getByRole("log").getByText("Hello").waitFor();
      await say(page, "Hi");
      await page.getByText("Sent", { exact: true }).last().waitFor();
      await pick(page, "Block");
      await page.getByText("Nothing they write reaches you").waitFor();
      await page.getByRole("button", { name: "Options" }).click();
      await expectClean(page);
      await page.getByRole("button", { name: "Delete chat" }).click();
      await page.getByRole("dialog").waitFor();
      await expectClean(page);
    });
  },
);

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
