import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BARE_ORIGIN, bareGate, expectHeaders, expectRefusal } from "../support/gate.ts";
import { startServer } from "../support/server.ts";
import { anyPath, anyQuery } from "../support/text.ts";

/** The gate's routes, below whatever base path it has. */
const ROUTES = ["/ws-ticket", "/anonymous-session", "/sign-out"];

describe.each(["/api/auth", "/auth", "/v1/accounts.example/ws_gate"])(
  "gate.fetch with the base path %s",
  (basePath) => {
    test("answers its routes below it", async () => {
      const { send, bearer, gate } = bareGate({ basePath });
      expect(gate.basePath).toBe(basePath);
      const statuses: number[] = [];
      for (const route of ROUTES) {
        const init = { method: "POST", headers: await bearer() };
        statuses.push((await send(`${basePath}${route}`, init)).status);
      }
      expect(statuses).toEqual([200, 204, 204]);
    });

    test.each([
      "",
      "/",
      "/nowhere",
      "/ws-ticket/",
      "/ws-ticket/x",
      "//ws-ticket",
      "/x/ws-ticket",
      "/ws-ticket.json",
      "/ws-ticket;v=1",
      "/WS-TICKET",
      "/ws%2Dticket",
      "/ws-ticket%00",
      "/ws-ticket%20",
      "/%77s-ticket",
      "/toString",
      "/__proto__",
      "/*",
    ])("is not_found for %p below it", async (path) => {
      const { send, bearer } = bareGate({ basePath });
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const response = await send(`${basePath}${path}`, { method, headers: await bearer() });
        expectHeaders(response.headers);
        expect(response.headers.has("set-cookie")).toBe(false);
        await expectRefusal(response, 404, "not_found");
      }
    });

    test.each([
      ...ROUTES,
      ...ROUTES.map((route) => `/other${route}`),
      `${basePath}x/ws-ticket`,
      `/x${basePath}/ws-ticket`,
      `${basePath.toUpperCase()}/ws-ticket`,
      `${basePath}%2Fws-ticket`,
      `/${basePath}/ws-ticket`,
      `${basePath}/../ws-ticket`,
      "/",
      "/%",
      "/%ff",
    ])("is not_found for %s, which isn't below it", async (path) => {
      const { send, bearer } = bareGate({ basePath });
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const response = await send(path, { method, headers: await bearer() });
        expectHeaders(response.headers);
        expect(response.headers.has("set-cookie")).toBe(false);
        await expectRefusal(response, 404, "not_found");
      }
    });
  },
);

test("elsewhere gate.fetch doesn't read queries: they belong to the host", async () => {
  const { send, logLines } = bareGate();
  for (const path of ["/search", "/api/auth", "/api/authors", "/api/auth.json"]) {
    await expectRefusal(await send(`${path}?token=x&ticket=a&ticket=b`), 404, "not_found");
  }
  expect(logLines).toEqual([]);
});

test("gate.fetch never rejects, and has nothing for any path but its own", async () => {
  const { gate, bearer } = bareGate({ trustProxy: 1 });
  const headers = await bearer();
  const own = new Set(ROUTES.map((route) => `/api/auth${route}`));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("", "/api/auth", "/api", "/api/auth/ws-ticket"),
      anyPath(),
      anyQuery(),
      fc.constantFrom("GET", "POST", "OPTIONS", "PUT", "DELETE"),
      async (prefix, path, query, method) => {
        const url = new URL(`${BARE_ORIGIN}${prefix}${path}?${query}`);
        fc.pre(!own.has(url.pathname));
        const response = await gate.fetch(new Request(url, { method, headers }));
        expect([400, 404]).toContain(response.status);
        expectHeaders(response.headers);
      },
    ),
    { numRuns: 500 },
  );
});

test("a request without a usable URL is malformed, not a rejection", async () => {
  const { gate } = bareGate();
  const request = { url: "http://a b/", method: "POST", headers: new Headers() } as Request;
  await expectRefusal(await gate.fetch(request), 400, "malformed_request");
});

test("a server has the gate's routes where the gate has them", async () => {
  await using server = startServer({ basePath: "/v1/gate" });
  const headers = { Authorization: `Bearer ${await server.token()}` };
  const mint = (path: string) => fetch(`${server.origin}${path}`, { method: "POST", headers });
  expect((await mint("/v1/gate/ws-ticket")).status).toBe(200);
  expect((await mint("/api/auth/ws-ticket")).status).toBe(404);
});
