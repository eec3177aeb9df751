import { expect, test } from "bun:test";
import { FRAME_ERRORS } from "../src/wire/frames.ts";
import { readConfig } from "../src/config.ts";
import { REFUSAL_CODES } from "../src/request/refusal.ts";
import { CLOSE } from "../src/wire/close.ts";

const root = new URL("..", import.meta.url).pathname;
const readme = await Bun.file(`${root}README.md`).text();

test("the README names every refusal, every error frame and every close code", () => {
  const names = [
    ...REFUSAL_CODES,
    ...Object.keys(FRAME_ERRORS),
    ...Object.values(CLOSE).map(({ code }) => code),
  ];
  expect(names.filter((name) => !readme.includes(`${name}`))).toEqual([]);
});

test("the README names every variable that is read, and no other", () => {
  const read = new Set<string>();
  readConfig(
    new Proxy<Record<string, string>>(
      {},
      {
        get(_, name) {
          read.add(String(name));
          return undefined;
        },
      },
    ),
  );
  read.delete("NODE_ENV");
  const table = readme.slice(readme.indexOf("## Configuration"), readme.indexOf("Fixed limits"));
  const named = new Set(table.match(/\b[A-Z]{3,}(?:_[A-Z]+)*\b/g));
  for (const word of ["HMAC", "JSON"]) named.delete(word);
  expect([...read].filter((name) => !named.has(name))).toEqual([]);
  const isVariable = (name: string) => name.includes("_") || name === "HOST" || name === "PORT";
  expect([...named].filter((name) => isVariable(name) && !read.has(name))).toEqual([]);
});

test("the README's library example runs", async () => {
  const code = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  const secret = "a secret for the example, 32 bytes";
  const child = Bun.spawn([process.execPath, "-e", code], {
    cwd: root,
    env: { ...process.env, JWT_SECRET: secret, SESSION_SECRET: secret },
    stdout: "pipe",
  });
  expect(await new Response(child.stdout).text()).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\n$/);
  expect(await child.exited).toBe(0);
});
