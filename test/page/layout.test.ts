import { expect, test } from "bun:test";
import type { Page } from "../support/browser.ts";
import { describeInChromium } from "../support/chromium.ts";
import { newName, say, shows, signIn, visit } from "../support/site.ts";

/** A phone, and a window at 400 % zoom. */
const PHONE = { width: 320, height: 600 };
const ZOOMED = { width: 320, height: 256 };

describeInChromium("the layout in Chromium", (crowd, site) => {
  /** A chat between two people, as each of them has it open in a window of this size. */
  async function openChat(size: { width: number; height: number }): Promise<[Page, Page]> {
    const alice = newName();
    const visitor = await visit(await crowd.newcomer(), site.origin, alice);
    await visitor.setViewportSize(size);
    for (let n = 0; n < 12; n++) await say(visitor, `message ${n}\nof two lines`);
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.setViewportSize(size);
    await user.getByRole("button", { name: /message 11/ }).click();
    await user.getByRole("log").getByText("message 11").waitFor();
    return [visitor, user];
  }

  test("nothing moves while a page loads on a phone: the layout shifts by 0.02 at most", async () => {
    const alice = newName();
    const { context, open } = await crowd.stranger({ viewport: PHONE });
    const page = await open();
    await context.addInitScript(() => {
      Object.assign(globalThis, { shift: 0 });
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries() as unknown as { value: number }[]) {
          (globalThis as unknown as { shift: number }).shift += entry.value;
        }
      }).observe({ type: "layout-shift", buffered: true });
    });
    const shiftOf = () => page.evaluate(() => (globalThis as unknown as { shift: number }).shift);
    await page.goto(`${site.origin}/chat/${alice}`);
    await say(page, "Hello");
    await page.getByText("Sent", { exact: true }).waitFor();
    for (const path of [`/chat/${alice}`, "/inbox"]) {
      await page.goto(site.origin + path);
      await page.getByRole("textbox", { name: /Message|Name/ }).waitFor();
      if (path !== "/inbox") await shows(page, "Hello");
      expect(await shiftOf()).toBeLessThanOrEqual(0.02);
    }
    const user = await signIn({ ...(await crowd.stranger()), context, open }, site.origin, {
      name: alice,
    });
    await user.getByRole("button", { name: /Hello/ }).waitFor();
    expect(await shiftOf()).toBeLessThanOrEqual(0.02);
  });

  test("what jumps to the newest message covers neither the text field nor its button", async () => {
    for (const page of await openChat(PHONE)) {
      const field = page.getByRole("textbox", { name: "Message" });
      await field.fill("a\nfew\nlines\nof\ntext");
      await page.getByRole("log").hover();
      await page.mouse.wheel(0, -2_000);
      const jump = page.getByRole("button", { name: "Newest messages" });
      const [jumpBox, fieldBox] = [await jump.boundingBox(), await field.boundingBox()];
      expect((jumpBox?.y ?? 0) + (jumpBox?.height ?? 0)).toBeLessThan(fieldBox?.y ?? 0);
    }
  });

  test("whoever reads the newest message goes on reading it when the window gets narrower or lower", async () => {
    for (const page of await openChat({ width: 1_000, height: 600 })) {
      for (const size of [PHONE, { width: 1_000, height: 400 }, ZOOMED]) {
        await page.setViewportSize(size);
        await page.waitForFunction(() => {
          const { scrollHeight, scrollTop, clientHeight } = document.querySelector(
            '[role="log"]',
          ) as HTMLElement;
          return scrollHeight - scrollTop - clientHeight < 2;
        });
        // Where two frames of the browser's have passed, nothing moves any more.
        await page.evaluate(
          () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
        );
        expect(await page.getByRole("button", { name: "Newest messages" }).isVisible()).toBe(false);
      }
    }
  });

  test("menus stay within a narrow window", async () => {
    for (const page of await openChat(PHONE)) {
      await page.getByRole("button", { name: "Options" }).click();
      await expectInside(page);
    }
    const user = await signIn(await crowd.newcomer(), site.origin, { name: newName() });
    await user.setViewportSize(PHONE);
    await user.getByRole("button", { name: "Menu" }).click();
    await expectInside(user);
  });

  async function expectInside(page: Page): Promise<void> {
    const box = await page.locator(".menu:visible").boundingBox();
    expect(box?.x).toBeGreaterThanOrEqual(0);
    expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(PHONE.width);
  }

  test("at 400 % zoom there is room for messages", async () => {
    for (const page of await openChat(ZOOMED)) {
      const room = await page.getByRole("log").evaluate((log) => log.clientHeight);
      expect(room).toBeGreaterThan(150);
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(overflow).toBe(0);
    }
  });

  test("forced colours show which chat is open", async () => {
    const alice = newName();
    for (const text of ["one", "two"]) {
      const visitor = await visit(await crowd.newcomer(), site.origin, alice);
      await say(visitor, text);
      await visitor.getByText("Sent", { exact: true }).waitFor();
    }
    const { open } = await crowd.stranger({ forcedColors: "active" });
    const user = await signIn({ ...(await crowd.stranger()), open }, site.origin, { name: alice });
    await user.getByRole("button", { name: /one/ }).click();
    await user.getByRole("log").getByText("one").waitFor();
    const colourOf = (name: RegExp) =>
      user.getByRole("button", { name }).evaluate((row) => getComputedStyle(row).backgroundColor);
    // Other colours are the reader's: one that is opaque looks like none at all.
    const highlight = await user.evaluate(() => {
      const probe = document.body.appendChild(document.createElement("i"));
      Object.assign(probe.style, { backgroundColor: "Highlight", forcedColorAdjust: "none" });
      return getComputedStyle(probe).backgroundColor;
    });
    expect(await colourOf(/one/)).toBe(highlight);
    expect(await colourOf(/two/)).not.toBe(highlight);
  });
});
