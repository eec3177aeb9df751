import { afterAll, afterEach, expect, test } from "bun:test";
import { type Crowd, gatherCrowd } from "../support/browser.ts";
import { describeWith } from "../support/require.ts";
import { say, shows, signIn, visit } from "../support/site.ts";
import { FRONTS } from "./front.ts";
import { deploy } from "./scene.ts";

let crowd: Crowd | undefined;
afterEach(() => crowd?.leave());
afterAll(() => crowd?.[Symbol.asyncDispose]());

for (const name of FRONTS) {
  describeWith(
    name,
    "openssl",
    "chromium",
  )(`in a browser, behind ${name},`, () => {
    test("a visitor and a user write to each other, over HTTP/2", async () => {
      crowd ??= await gatherCrowd();
      await using site = await deploy(name);
      // The certificate vouches for itself.
      const options = { ignoreHTTPSErrors: true };
      const [visitor, user] = [await crowd.stranger(options), await crowd.stranger(options)];
      const chat = await visit(visitor, site.origin, "alice");
      const protocol = await chat.evaluate(() => {
        const [entry] = performance.getEntriesByType("navigation") as {
          nextHopProtocol?: string;
        }[];
        return entry?.nextHopProtocol;
      });
      expect(protocol).toBe("h2");
      await say(chat, "Hello?");
      await shows(chat, "Hello?");
      const inbox = await signIn(user, site.origin, { token: await site.token("alice") });
      await inbox.getByText("Hello?").first().click();
      await say(inbox, "Hello!");
      await shows(inbox, "Hello?", "Hello!");
      await shows(chat, "Hello?", "Hello!");
      expect([...visitor.complaints, ...user.complaints]).toEqual([]);
    }, 60_000);
  });
}
