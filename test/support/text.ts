import fc from "fast-check";

// In place of what fast-check has for them: its `unit: "binary"`, and with it its URLs, take seconds to set up.

/** Any text of at most `maxLength` code points: control characters and half surrogate pairs, too. */
export function anyText(maxLength?: number): fc.Arbitrary<string> {
  const codePoint = fc.oneof(
    fc.integer({ min: 0, max: 0xff }),
    fc.integer({ min: 0xd7ff, max: 0xe000 }),
    fc.integer({ min: 0, max: 0x10ffff }),
  );
  return fc
    .array(codePoint, maxLength === undefined ? {} : { maxLength })
    .map((codePoints) => String.fromCodePoint(...codePoints));
}

/** The query of a URL, without its question mark. */
export function anyQuery(): fc.Arbitrary<string> {
  const raw = fc.stringMatching(/^[\w!$'()*+,;:@/?.~%=-]{0,12}$/);
  const encoded = anyText(8).map((text) => new URLSearchParams([["", text]]).toString().slice(1));
  const part = fc.oneof(raw, encoded);
  return fc
    .array(fc.tuple(part, part), { maxLength: 5 })
    .map((pairs) => pairs.map((pair) => pair.join("=")).join("&"));
}

/** The path of a URL. */
export function anyPath(): fc.Arbitrary<string> {
  const segment = fc.oneof(
    fc.stringMatching(/^[\w!$&'()*+,;=:@.~-]{0,12}$/),
    anyText(8).map((text) => encodeURIComponent(text.toWellFormed())),
  );
  return fc.array(segment, { maxLength: 4 }).map((segments) => `/${segments.join("/")}`);
}

/** A URL of a website. */
export function anyUrl(): fc.Arbitrary<string> {
  const port = fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined });
  const query = fc.option(anyQuery(), { nil: undefined });
  return fc
    .tuple(fc.constantFrom("http", "https"), fc.domain(), port, anyPath(), query)
    .map(
      ([scheme, host, port, path, query]) =>
        `${scheme}://${host}${port === undefined ? "" : `:${port}`}${path}${query === undefined ? "" : `?${query}`}`,
    );
}
