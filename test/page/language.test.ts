import { describe, expect, test } from "bun:test";
import { describeInChromium } from "../support/chromium.ts";
import { DE, EN } from "../../src/page/browser/words.ts";

describe("every text of the pages", () => {
  const placeholders = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

  test("is there in German, with the same values to be filled in", () => {
    expect(Object.keys(DE)).toEqual(Object.keys(EN));
    for (const [key, text] of Object.entries(EN)) {
      const german = DE[key as keyof typeof EN];
      for (const form of typeof text === "string" ? [undefined] : (["one", "other"] as const)) {
        const [one, other] = [text, german].map((of) =>
          form === undefined ? String(of) : (of as { one: string; other: string })[form],
        );
        expect(placeholders(other as string)).toEqual(placeholders(one as string));
      }
    }
  });
});

describeInChromium("the pages' language in Chromium", (crowd, site) => {
  test("is the first that the reader prefers and that there is, and English where there is none", async () => {
    for (const [languages, lang, message, signIn] of [
      [["fr-FR", "de-AT", "en"], "de", "Nachricht", "Anmelden"],
      [["en-GB", "de"], "en", "Message", "Sign in"],
      [["fr-FR"], "en", "Message", "Sign in"],
    ] as const) {
      const { context, open } = await crowd.stranger({ locale: languages[0] });
      await context.addInitScript((all) => {
        Object.defineProperty(navigator, "languages", { get: () => all });
      }, languages);
      const page = await open();
      await page.goto(`${site.origin}/chat/alice`);
      await page.getByRole("textbox", { name: message }).waitFor();
      expect(await page.evaluate(() => document.documentElement.lang)).toBe(lang);
      await page.goto(`${site.origin}/inbox`);
      await page.getByRole("button", { name: signIn }).waitFor();
      expect(await page.evaluate(() => document.documentElement.lang)).toBe(lang);
    }
  });

  test("is German from the heading to the status of a message", async () => {
    const { open } = await crowd.stranger({ locale: "de" });
    const page = await open();
    await page.goto(`${site.origin}/chat/alice`);
    await page.getByRole("heading", { name: "Chat mit alice" }).waitFor();
    await page.getByRole("textbox", { name: "Nachricht" }).fill("Hallo");
    await page.getByRole("button", { name: "Senden" }).click();
    await page.getByText("Gesendet", { exact: true }).waitFor();
    expect(await page.title()).toBe("Chat mit alice");
    await page.goto(`${site.origin}/nothing`);
    await page.getByRole("heading", { name: "Seite nicht gefunden" }).waitFor();
  });
});
