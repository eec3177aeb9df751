import { expect, test } from "bun:test";
import { inspect } from "../../src/check/inspect.ts";
import { type Environment, readConfig } from "../../src/config.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { withFile } from "../support/history.ts";

const SECRETS = {
  JWT_SECRET: "a secret for tokens, long enough by far",
  SESSION_SECRET: "a secret for cookies, long enough, too",
};

/** What is found out about the chat's file. */
async function found(environment: Environment): Promise<string | undefined> {
  const read = readConfig(environment);
  if (!read.ok) throw new Error("No configuration");
  const reports = await inspect(read.config, environment, {
    ...{ clock: systemClock, isRunning: false },
  });
  return reports.find(({ subject }) => subject === "CHAT_DATABASE")?.found;
}

test("a chat in memory is warned of, but in the demo that was given no file", () =>
  withFile(async (path) => {
    expect(await found({})).toBeUndefined();
    expect(await found({ CHAT_DATABASE: path })).toBe("will be created");
    expect(await found({ ...SECRETS, CHAT_DATABASE: ":memory:" })).toBe("in memory");
    expect(await found({ ...SECRETS, CHAT_DATABASE: path })).toBe("will be created");
  }));
