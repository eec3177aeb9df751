import { afterAll, afterEach, setDefaultTimeout } from "bun:test";
import { type Crowd, gatherCrowd } from "./browser.ts";
import { describeWith } from "./require.ts";
import type { TestServer } from "./server.ts";
import { startSite } from "./site.ts";

/** `describe` for tests with people at browsers, and a site that they are on; everybody leaves after each test. */
export function describeInChromium(
  title: string,
  define: (crowd: Crowd, site: TestServer) => void,
  options: Parameters<typeof startSite>[0] = {},
): void {
  // Browsers are slow where others use the processor, too.
  setDefaultTimeout(60_000);
  describeWith("chromium")(title, () => {
    const crowd = gatherCrowd();
    const site = startSite(options);
    afterEach(() => crowd.leave());
    afterAll(async () => {
      await crowd[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
    });
    define(crowd, site);
  });
}
