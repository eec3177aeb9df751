import { expect, test } from "bun:test";
import { describeInChromium } from "../support/chromium.ts";
import { connected, newName, pick, say, shows, signIn, visit } from "../support/site.ts";

describeInChromium("what was written in Chromium", (crowd, site) => {
  test("outlives another chat, a reload and an expired session while it is half-written", async () => {
    const alice = newName();
    for (const text of ["one", "two"]) {
      const visitor = await visit(await crowd.stranger(), site.origin, alice);
      await say(visitor, text);
      await visitor.getByText("Sent", { exact: true }).waitFor();
    }
    const user = await signIn(await crowd.stranger(), site.origin, { name: alice });
    const field = user.getByRole("textbox", { name: "Message" });
    await user.getByRole("button", { name: /one/ }).click();
    await field.fill("Half an answer");
    await user.getByRole("button", { name: /two/ }).click();
    await shows(user, "two");
    expect(await field.inputValue()).toBe("");
    await user.getByRole("button", { name: /one/ }).click();
    await shows(user, "one");
    expect(await field.inputValue()).toBe("Half an answer");
    await user.reload();
    await shows(user, "one");
    expect(await field.inputValue()).toBe("Half an answer");

    // By then the demo's token, and with it the session, has ended.
    site.clock.advance(3_600_000);
    await user.getByText("Your session has expired. Please sign in again.").waitFor();
    await user.getByRole("textbox", { name: "Name" }).fill(alice);
    await user.getByRole("button", { name: "Sign in" }).click();
    await shows(user, "one");
    expect(await field.inputValue()).toBe("Half an answer");

    await user.getByRole("button", { name: "Sign out" }).click();
    await user.getByRole("textbox", { name: "Name" }).waitFor();
    expect(await user.evaluate(() => sessionStorage.length)).toBe(0);
  });

  test("outlives a reload without a connection, and is stored once", async () => {
    const alice = newName();
    const person = await crowd.stranger();
    const visitor = await visit(person, site.origin, alice);
    await say(visitor, "one");
    await visitor.getByText("Sent", { exact: true }).waitFor();
    // The page still loads, and nothing is sent.
    let isCut = true;
    await visitor.routeWebSocket("**/ws/chat", (socket) => {
      if (isCut) void socket.close();
      else socket.connectToServer();
    });
    await visitor.reload();
    await say(visitor, "two");
    await visitor.getByText("Sending").waitFor();
    await visitor.reload();
    await visitor.getByText("Sending").waitFor();
    isCut = false;
    await connected(visitor);
    await shows(visitor, "one", "two");
    await visitor.getByText("Sent", { exact: true }).waitFor();
    await visitor.reload();
    await shows(visitor, "one", "two");
    const user = await signIn(await crowd.newcomer(), site.origin, { name: alice });
    await user.getByRole("button", { name: /two/ }).click();
    await shows(user, "one", "two");
  });

  test("a chat that the user deletes is gone on the visitor's page at once, and a block is in the other tab", async () => {
    const alice = newName();
    const visitor = await visit(await crowd.newcomer(), site.origin, alice);
    await say(visitor, "One");
    await visitor.getByRole("textbox", { name: /call you/ }).fill("Mira");
    await visitor.getByRole("button", { name: "Save" }).click();
    await say(visitor, "Hello");
    const person = await crowd.newcomer();
    const first = await signIn(person, site.origin, { name: alice });
    await first.getByRole("button", { name: /Hello/ }).click();
    await shows(first, "One", "Hello");
    const second = await person.open();
    await second.goto(first.url());
    await shows(second, "One", "Hello");
    await pick(first, "Block");
    for (const page of [first, second]) {
      await page.getByText("Nothing they write reaches you").waitFor();
    }
    await pick(second, "Unblock");
    await first.getByText("Nothing they write reaches you").waitFor({ state: "hidden" });
    await pick(first, "Delete chat");
    await first.getByRole("dialog").getByRole("button", { name: "Delete chat" }).click();
    await first.getByText("No messages yet.").waitFor();
    await shows(visitor);
    await second.getByText("This chat has been deleted.").waitFor();
    await connected(second);
    // The next message is the visitor's: until then there is nothing to write to.
    const field = second.getByRole("textbox", { name: "Message" });
    expect(await field.isVisible()).toBe(false);
    expect(await second.getByRole("heading", { level: 2 }).textContent()).toBe("Mira");
    await say(visitor, "Hello again");
    await shows(second, "Hello again");
    expect(await field.isVisible()).toBe(true);
  });
});
