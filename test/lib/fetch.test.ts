import { afterAll, describe, expect, test } from "bun:test";
import { DeadlineError } from "../../src/lib/deadline.ts";
import { fetchJson, ResponseError } from "../../src/lib/fetch.ts";
import { fakeClock, settle } from "../support/clock.ts";

const requests: string[] = [];
const paths: Record<string, () => Response> = {
  "/json": () => Response.json({ é: 1 }),
  "/refused": () => Response.json({ error: "no" }, { status: 403 }),
  "/text": () => new Response("<h1>no</h1>", { status: 502 }),
  "/nothing": () => new Response(null),
  "/moved": () => Response.redirect("/json", 302),
  "/moved-json": () => Response.json({}, { status: 300 }),
  "/long": () => new Response(`"${"x".repeat(98)}"`),
  "/parts": () => new Response(parts(['{"a":"', "\xc3", "\xa9", '"}'])),
  "/silent": () => new Response(parts(["{"], { ends: false })),
};
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request) {
    const { pathname } = new URL(request.url);
    requests.push(`${request.method} ${pathname}`);
    return (paths[pathname] as () => Response)();
  },
});
afterAll(() => server.stop(true));

/** Bytes that come one chunk at a time. */
function parts(chunks: readonly string[], { ends = true } = {}): ReadableStream<Uint8Array> {
  const left = [...chunks];
  return new ReadableStream({
    async pull(controller) {
      await Bun.sleep(1);
      const next = left.shift();
      if (next !== undefined) controller.enqueue(Buffer.from(next, "latin1"));
      else if (ends) controller.close();
      else await new Promise(() => {});
    },
  });
}

function get(path: string, { maxBytes = 1_000, clock = fakeClock() } = {}) {
  return fetchJson(new URL(path, server.url), { deadlineMs: 1_900, maxBytes, clock });
}

describe("JSON from a dependency", () => {
  test("comes with its status, and leaves no timer", async () => {
    const clock = fakeClock();
    expect(await get("/json", { clock })).toEqual({ status: 200, body: { é: 1 } });
    expect(await get("/refused", { clock })).toEqual({ status: 403, body: { error: "no" } });
    expect(await get("/parts", { clock })).toEqual({ status: 200, body: { a: "é" } });
    expect(clock.delays).toBe(0);
  });

  test.each([
    ["/text", "status_502_not_json"],
    ["/nothing", "status_200_not_json"],
    ["/moved", "redirected"],
    ["/moved-json", "redirected"],
  ])("%s is unusable: %s, and isn't asked for again", async (path, code) => {
    requests.length = 0;
    const clock = fakeClock();
    const fault = await get(path, { clock }).catch((error) => error);
    expect(fault).toBeInstanceOf(ResponseError);
    expect(fault).toMatchObject({ name: "ResponseError", code });
    expect(requests).toEqual([`GET ${path}`]);
    expect(clock.delays).toBe(0);
  });

  test("may be as long as it may, and not a byte longer", async () => {
    expect((await get("/long", { maxBytes: 100 })).body).toHaveLength(98);
    await expect(get("/long", { maxBytes: 99 })).rejects.toMatchObject({ code: "too_large" });
  });

  test("that doesn't come to its end in time is a DeadlineError", async () => {
    const clock = fakeClock();
    requests.length = 0;
    let fault: unknown;
    const ended = get("/silent", { clock }).catch((error) => {
      fault = error;
    });
    while (requests.length === 0) await settle(1);
    clock.advance(1_899);
    await settle(4);
    expect(fault).toBeUndefined();
    clock.advance(1);
    await ended;
    expect(fault).toBeInstanceOf(DeadlineError);
  });
});
