import { describe, expect, test } from "bun:test";
import { CLOSE, type Close, reconnectsAfter } from "../../src/wire/close.ts";

const ENTRIES = Object.entries<Close>(CLOSE);

describe("a close code tells a client what to do", () => {
  test.each([4000, 4001, 4003, 4250, 4499])("%i: reconnect", (code) => {
    expect(reconnectsAfter(code)).toBe(true);
  });

  test.each([4500, 4501, 4502, 4750, 4999])("%i: don't reconnect", (code) => {
    expect(reconnectsAfter(code)).toBe(false);
  });

  test.each([1000, 1001, 1003, 1006, 1009, 1011, 1012, 1013, 3000])(
    "%i, which says nothing of it: reconnect",
    (code) => {
      expect(reconnectsAfter(code)).toBe(true);
    },
  );
});

describe("every reason for the end of a socket", () => {
  test.each(ENTRIES)("%s agrees with the range of its code", (_, { code, reconnects }) => {
    expect(reconnects).toBe(reconnectsAfter(code));
  });

  test.each(ENTRIES)("%s has a code that a server may send", (_, { code }) => {
    // RFC 6455 section 7.4.1 reserves 1004 to 1006 and 1015; 4000 to 4999 are for private use.
    const isOfProtocol = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013];
    expect(isOfProtocol.includes(code) || (code >= 4000 && code <= 4999)).toBe(true);
  });

  test.each(ENTRIES)("%s has a reason that fits into a Close frame", (_, { reason }) => {
    const bytes = new TextEncoder().encode(reason).length;
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThanOrEqual(123);
  });
});
