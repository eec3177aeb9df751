import { describe, expect, test } from "bun:test";
import type { GateOptions } from "../../src/gate/gate-options.ts";
import { bareGate, expectRefusal } from "../support/gate.ts";
import { startServer } from "../support/server.ts";

/** A gate, and what it has warned of: the variables, in order. */
function watchedGate(options: Partial<GateOptions> = {}) {
  const { gate, logLines } = bareGate(options as never);
  const warnings = () =>
    logLines
      .map((line) => JSON.parse(line))
      .filter(({ event, level }) => event === "setting_warning" && level === "warn");
  return {
    post: (url: string, headers: Record<string, string> = {}, socketAddress = "127.0.0.1") =>
      gate.fetch(new Request(url, { method: "POST", headers }), { socketAddress }),
    warnings,
    warned: () => warnings().map(({ variable }) => variable),
  };
}

const SESSIONS = "/api/auth/anonymous-session";
const FORWARDED = { "X-Forwarded-For": "192.0.2.1" };

describe("a proxy on this machine that isn't trusted", () => {
  test.each(["127.0.0.1", "::1", "::ffff:127.0.0.1"])(
    "is warned of once, at the first request from %s that was forwarded",
    async (address) => {
      const { post, warned } = watchedGate();
      await post(`http://127.0.0.1${SESSIONS}`, {}, address);
      expect(warned()).toEqual([]);
      for (let n = 0; n < 3; n++) await post(`http://127.0.0.1${SESSIONS}`, FORWARDED, address);
      expect(warned()).toEqual(["TRUST_PROXY"]);
    },
  );

  test("is none where TRUST_PROXY is set, or the request comes from elsewhere", async () => {
    const trusting = watchedGate({ trustProxy: 1 });
    await trusting.post(`http://127.0.0.1${SESSIONS}`, FORWARDED);
    expect(trusting.warned()).toEqual([]);
    const direct = watchedGate();
    await direct.post(`http://127.0.0.1${SESSIONS}`, FORWARDED, "192.0.2.9");
    expect(direct.warned()).toEqual([]);
  });

  test("is noticed by a server at its handshakes and at its own routes", async () => {
    for (const path of ["/ws/chat", "/readyz"]) {
      await using server = startServer();
      await server.ask(path, { headers: FORWARDED });
      const lines = server.logLines.filter((line) => line.includes('"setting_warning"'));
      expect(lines).toHaveLength(1);
      expect(JSON.parse(lines[0] as string)).toMatchObject({
        variable: "TRUST_PROXY",
        note: expect.stringContaining("TRUST_PROXY=1"),
      });
    }
  });
});

describe("a page of a server that doesn't know its own origin", () => {
  test.each(["https://chat.example.com", "http://chat.example.com"])(
    "at %s is refused, and PUBLIC_URL is asked for once",
    async (origin) => {
      const { post, warned } = watchedGate();
      for (let n = 0; n < 3; n++) {
        const response = await post(`http://chat.example.com${SESSIONS}`, { Origin: origin });
        await expectRefusal(response, 403, "origin_refused");
      }
      expect(warned()).toEqual(["PUBLIC_URL"]);
    },
  );

  test("behind a proxy that sends another host is refused, and both origins are named once", async () => {
    const { post, warnings } = watchedGate();
    const headers = { Origin: "https://chat.example.com", "Sec-Fetch-Site": "same-origin" };
    for (let n = 0; n < 3; n++) await post(`http://127.0.0.1:3000${SESSIONS}`, headers);
    expect(warnings()).toMatchObject([
      {
        variable: "PUBLIC_URL",
        origin: "https://chat.example.com",
        expected: "http://127.0.0.1:3000",
        note: expect.stringContaining("set PUBLIC_URL"),
      },
    ]);
  });

  test.each(["https://chat.example.com:8443", "http://chat.example.com"])(
    "at %s is refused where the URL has another scheme or port, and both origins are named",
    async (origin) => {
      const { post, warnings } = watchedGate({ publicUrl: "https://chat.example.com" });
      await post(`http://127.0.0.1:3000${SESSIONS}`, { Origin: origin });
      const expected = "https://chat.example.com";
      expect(warnings()).toMatchObject([{ variable: "PUBLIC_URL", origin, expected }]);
    },
  );

  test("isn't believed to be one for an origin that is none", async () => {
    const { post, warned } = watchedGate();
    const headers = { Origin: "https://a.example/?canary", "Sec-Fetch-Site": "same-origin" };
    await post(`http://127.0.0.1:3000${SESSIONS}`, headers);
    expect(warned()).toEqual([]);
  });

  test.each<[string, Partial<GateOptions>, string]>([
    ["of another host", {}, "https://evil.example"],
    ["of a host that looks like it", {}, "https://chat.example.com.evil.example"],
    ["of another port", {}, "https://chat.example.com:8443"],
    ["where the URL is known", { publicUrl: "https://a.example" }, "https://chat.example.com"],
    ["where origins are listed", { origins: ["https://a.example"] }, "https://chat.example.com"],
  ])("%s is refused, and nothing is asked for", async (_, options, origin) => {
    const { post, warned } = watchedGate(options);
    const response = await post(`http://chat.example.com${SESSIONS}`, { Origin: origin });
    await expectRefusal(response, 403, "origin_refused");
    expect(warned()).toEqual([]);
  });
});
