import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  fromBase64url,
  isCanonicalBase64url,
  isSameSecret,
  sha256Hex,
  toBase64url,
  utf8,
} from "../../src/lib/encoding.ts";
import { anyText } from "../support/text.ts";

describe("base64url", () => {
  test.each([
    ["", ""],
    ["f", "Zg"],
    ["fo", "Zm8"],
    ["foo", "Zm9v"],
    ["foob", "Zm9vYg"],
    ["fooba", "Zm9vYmE"],
    ["foobar", "Zm9vYmFy"],
    ["\xfb\xff\xbf", "-_-_"],
  ])("known answer of RFC 4648 for %j", (plain, encoded) => {
    const bytes = Buffer.from(plain, "latin1");
    expect(toBase64url(bytes)).toBe(encoded);
    expect(fromBase64url(encoded)).toEqual(new Uint8Array(bytes));
  });

  test("what is encoded comes back, and agrees with another encoder", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const encoded = toBase64url(bytes);
        expect(encoded).toBe(Buffer.from(bytes).toString("base64url"));
        expect(isCanonicalBase64url(encoded)).toBe(true);
        expect(fromBase64url(encoded)).toEqual(new Uint8Array(bytes));
      }),
    );
  });

  test("whatever text is decoded is exactly what an encoder would have written", () => {
    const text = fc.oneof(
      fc.string({ maxLength: 12 }),
      fc.stringMatching(/^[\w-]{0,12}={0,2}$/),
      anyText(12),
    );
    fc.assert(
      fc.property(text, (text) => {
        const bytes = fromBase64url(text);
        expect(bytes !== undefined).toBe(isCanonicalBase64url(text));
        if (bytes) expect(toBase64url(bytes)).toBe(text);
      }),
      { numRuns: 1_000 },
    );
  });

  test("of the spellings that differ in the last character one stands for each value", () => {
    const alphabet = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"];
    const canonical = (start: string) =>
      alphabet.filter((last) => isCanonicalBase64url(start + last)).length;
    expect(["", "A", "AA", "AAA", "AAAA"].map(canonical)).toEqual([0, 4, 16, 64, 0]);
  });

  test("is the same where the runtime has no base64 of its own", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const encoded = Buffer.from(bytes).toString("base64url");
        expect(toBase64url(Object.assign(bytes.slice(), { toBase64: undefined }))).toBe(encoded);
      }),
    );
    const own = Object.getOwnPropertyDescriptor(Uint8Array, "fromBase64") as PropertyDescriptor;
    Reflect.deleteProperty(Uint8Array, "fromBase64");
    try {
      expect(Uint8Array.fromBase64).toBeUndefined();
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
          const encoded = Buffer.from(bytes).toString("base64url");
          expect(fromBase64url(encoded)).toEqual(new Uint8Array(bytes));
        }),
      );
      expect(fromBase64url("Zh")).toBeUndefined();
    } finally {
      Object.defineProperty(Uint8Array, "fromBase64", own);
    }
  });

  test.each([
    ["padding", "Zg=="],
    ["half of the padding", "Zg="],
    ["needless padding", "Zm9v="],
    ["the standard alphabet", "+/+/"],
    ["spare bits", "Zh"],
    ["a lone character", "Z"],
    ["a space", "Zm 9v"],
    ["a line feed behind", "Zm9v\n"],
    ["a NUL", "Zm9v\0"],
    ["a percent-escape", "Zg%3D"],
    ["full-width letters", "Ｚｍ９ｖ"],
    ["a letter that folds to ASCII", "Zm9ſ"],
  ])("%s is refused", (_, text) => {
    expect(fromBase64url(text)).toBeUndefined();
    expect(isCanonicalBase64url(text)).toBe(false);
  });
});

describe("sha256Hex", () => {
  test.each([
    ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
  ])("known answer of FIPS 180 for %j", async (text, digest) => {
    expect(await sha256Hex(text)).toBe(digest);
  });

  test("hashes the UTF-8 bytes, and agrees with another implementation", async () => {
    await fc.assert(
      fc.asyncProperty(anyText(), async (text) => {
        expect(await sha256Hex(text)).toBe(createHash("sha256").update(utf8(text)).digest("hex"));
      }),
    );
  });
});

test("two secrets are the same only where every character of their hashes is", async () => {
  // Among so many there are hashes that share their first character with this one's, and others their last.
  const others = Array.from({ length: 200 }, (_, at) => `secret ${at}`);
  const hash = String(await sha256Hex("secret"));
  const hashes = await Promise.all(others.map((other) => sha256Hex(other)));
  expect(hashes.some((one) => one.at(0) === hash.at(0))).toBe(true);
  expect(hashes.some((one) => one.at(-1) === hash.at(-1))).toBe(true);
  expect(await isSameSecret("secret", "secret")).toBe(true);
  for (const other of others) expect(await isSameSecret("secret", other)).toBe(false);
});
