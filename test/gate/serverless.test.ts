import { expect, test } from "bun:test";
import { createApp, createDeps } from "../../src/serverless.ts";
import { signToken } from "../../src/gate/token.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/server.ts";

test("the serverless half is one bundle that needs no runtime of its own", async () => {
  const entrypoints = [new URL("../../src/serverless.ts", import.meta.url).pathname];
  const built = await Bun.build({ entrypoints, target: "browser" });
  const text = await built.outputs[0]?.text();
  expect(built.success).toBe(true);
  expect(text).not.toMatch(/from\s*["'](?:node|bun):|require\(["'](?:node|bun):/);
  // What is left of Bun is asked for before it is used.
  expect(text?.match(/\bBun\.\w+/g) ?? []).toEqual(["Bun.CryptoHasher"]);
});

test("it mints behind https, where a platform calls it with a Request alone", async () => {
  const keys = { secret: TOKEN_SECRET };
  const app = createApp(createDeps({ keys, sessionSecret: SESSION_SECRET }));
  const expiresAtMs = Date.now() + 60_000;
  const token = await signToken({ secret: TOKEN_SECRET, user: "alice", expiresAtMs });
  const minted = await app.fetch(
    new Request("https://chat.example.com/api/auth/ws-ticket", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    }),
  );
  expect(await minted.json()).toEqual({
    ticket: expect.stringMatching(/^[\w-]{43}$/),
    expiresIn: 30,
  });
  const session = await app.fetch(
    new Request("https://chat.example.com/api/auth/anonymous-session", { method: "POST" }),
  );
  expect(session.headers.get("set-cookie")).toStartWith("__Host-anonSessionId=v1.");
});
