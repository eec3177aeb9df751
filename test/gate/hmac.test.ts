import { expect, test } from "bun:test";
import { createHmac as createNodeHmac } from "node:crypto";
import fc from "fast-check";
import { createHmac, isSameText, SECRET_ALGORITHMS } from "../../src/gate/hmac.ts";
import { anyText } from "../support/text.ts";

test.each([...SECRET_ALGORITHMS])(
  "%s is the HMAC of another implementation, however often",
  (algorithm) =>
    fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 32, maxLength: 64 }),
        anyText(),
        async (secret, text) => {
          const hmac = createHmac(new Uint8Array(secret));
          const hash = algorithm.replace("HS", "sha");
          const expected = createNodeHmac(hash, secret).update(text).digest("base64url");
          expect(await hmac(algorithm, text)).toBe(expected);
          expect(await hmac(algorithm, text)).toBe(expected);
        },
      ),
      { numRuns: 30 },
    ),
);

test("two texts are the same only where every character is", () => {
  const text = "signature";
  expect(isSameText(text, "signature")).toBe(true);
  for (const [at, char] of [...text].entries()) {
    const other = text.slice(0, at) + (char === "x" ? "y" : "x") + text.slice(at + 1);
    expect(isSameText(text, other)).toBe(false);
  }
  for (const other of ["", "signatur", "signatures"]) expect(isSameText(text, other)).toBe(false);
  expect(isSameText("", "")).toBe(true);
});
