import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { limitKey, clientAddress } from "../../src/request/address.ts";

function forwarded(value: string | undefined): Request {
  return new Request("http://127.0.0.1/", {
    headers: value === undefined ? {} : { "X-Forwarded-For": value },
  });
}

describe("clientAddress", () => {
  const cases: [name: string, header: string | undefined, trustProxy: number, address: string][] = [
    ["no proxy: the connection's, whatever the header is", "192.0.2.1", 0, "10.0.0.1"],
    ["one proxy: what it saw", "192.0.2.1", 1, "192.0.2.1"],
    ["one proxy: not what the client wrote before it", "192.0.2.9, 192.0.2.1", 1, "192.0.2.1"],
    ["two proxies: what the outer one saw", "192.0.2.9, 192.0.2.1, 10.0.0.2", 2, "192.0.2.1"],
    ["blanks don't count", "  192.0.2.9 ,192.0.2.1\t", 1, "192.0.2.1"],
    ["IPv6", "2001:db8::1", 1, "2001:db8::1"],
    ["IPv4 with the port", "192.0.2.1:4711", 1, "192.0.2.1"],
    ["IPv6 with the port", "[2001:db8::1]:4711", 1, "2001:db8::1"],
    ["IPv6 in brackets", "[2001:db8::1]", 1, "2001:db8::1"],
    ["IPv4 as a socket for both families has it", "::ffff:192.0.2.1", 1, "192.0.2.1"],
    ["no header", undefined, 1, "10.0.0.1"],
    ["an empty header", "", 1, "10.0.0.1"],
    ["an empty last entry", "192.0.2.1,", 1, "10.0.0.1"],
    ["fewer entries than proxies", "192.0.2.1", 2, "10.0.0.1"],
    ["no address", "unknown", 1, "10.0.0.1"],
    ["markup", "<b>192.0.2.1</b>", 1, "10.0.0.1"],
    ["longer than any address", "1".repeat(46), 1, "10.0.0.1"],
  ];
  test.each(cases)("%s", (_, header, trustProxy, address) => {
    expect(clientAddress(forwarded(header), { socketAddress: "10.0.0.1" }, trustProxy)).toBe(
      address,
    );
  });

  test("a connection's IPv4 address is written as one, an IPv6 address in full", () => {
    expect(clientAddress(forwarded(undefined), { socketAddress: "::ffff:192.0.2.1" }, 0)).toBe(
      "192.0.2.1",
    );
    expect(clientAddress(forwarded(undefined), { socketAddress: "2001:db8::1:2" }, 0)).toBe(
      "2001:db8::1:2",
    );
  });

  test("the connection is read only where it counts", () => {
    const connection = {
      get socketAddress(): string {
        throw new Error("Was read");
      },
    };
    expect(clientAddress(forwarded("192.0.2.1"), connection, 1)).toBe("192.0.2.1");
    expect(() => clientAddress(forwarded(""), connection, 1)).toThrow("Was read");
  });

  test("no connection, no header: unknown", () => {
    expect(clientAddress(forwarded(undefined), {}, 1)).toBeUndefined();
  });

  test("nothing that a client writes before the proxies' entries counts", () => {
    fc.assert(
      fc.property(
        fc.array(fc.stringMatching(/^[!-~]{0,20}$/), { maxLength: 5 }),
        fc.array(fc.ipV4(), { minLength: 1, maxLength: 4 }),
        (forged, seen) => {
          const request = forwarded([...forged, ...seen].join(", "));
          expect(clientAddress(request, { socketAddress: "10.0.0.1" }, seen.length)).toBe(
            seen[0] as string,
          );
        },
      ),
    );
  });
});

describe("limitKey", () => {
  const cases: [address: string | undefined, key: string | undefined][] = [
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::FFFF:192.0.2.1", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:DB8:0001:0002::", "2001:db8:1:2"],
    ["2001:db8::1", "2001:db8:0:0"],
    ["2001:db8::1:0:0:0:1", "2001:db8:0:1"],
    ["fe80::1%eth0", "fe80:0:0:0"],
    ["::2", "0:0:0:0"],
    ["64:ff9b::192.0.2.1", "64:ff9b:0:0"],
    ["127.0.0.1", undefined],
    ["127.9.9.9", undefined],
    ["::1", undefined],
    ["::ffff:127.0.0.1", undefined],
    ["", undefined],
    [undefined, undefined],
  ];
  test.each(cases)("%p is counted under %p", (address, key) => {
    expect(limitKey(address)).toBe(key as string);
  });

  const group = fc.integer({ min: 0, max: 0xffff });
  const groups = fc
    .tuple(fc.integer({ min: 1, max: 0xffff }), ...Array.from({ length: 7 }, () => group))
    .map((all): number[] => all);

  /** An address in one of the many ways to write it (RFC 4291 section 2.2). */
  function write(address: number[], { padded, upper, from, length }: Spelling): string {
    const hex = address.map((one) => one.toString(16).padStart(padded ? 4 : 1, "0"));
    const zeros = address.slice(from, from + length);
    const short = length > 0 && zeros.length === length && zeros.every((one) => one === 0);
    const text = short
      ? `${hex.slice(0, from).join(":")}::${hex.slice(from + length).join(":")}`
      : hex.join(":");
    return upper ? text.toUpperCase() : text;
  }
  type Spelling = { padded: boolean; upper: boolean; from: number; length: number };
  const spelling: fc.Arbitrary<Spelling> = fc.record({
    padded: fc.boolean(),
    upper: fc.boolean(),
    from: fc.integer({ min: 1, max: 7 }),
    length: fc.integer({ min: 0, max: 7 }),
  });

  test("one key per IPv6 network of 64 bits, however its addresses are written", () => {
    const someZero = fc
      .tuple(groups, fc.array(fc.boolean(), { minLength: 7, maxLength: 7 }))
      .map(([all, zeroed]) => all.map((one, at) => (at > 0 && zeroed[at - 1] ? 0 : one)));
    fc.assert(
      fc.property(someZero, groups, spelling, spelling, (address, other, one, two) => {
        const neighbour = [...address.slice(0, 4), ...other.slice(4)];
        expect(limitKey(write(address, one))).toBe(limitKey(write(neighbour, two)) as string);
        const elsewhere = address.with(3, (address[3] as number) ^ 1);
        expect(limitKey(write(elsewhere, one))).not.toBe(limitKey(write(address, one)) as string);
      }),
      { numRuns: 1_000 },
    );
  });

  test("one key per IPv4 address, and none of them an IPv6 network's", () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), (one, two) => {
        fc.pre(!one.startsWith("127.") && !two.startsWith("127."));
        expect(limitKey(one) === limitKey(two)).toBe(one === two);
        expect(limitKey(`::ffff:${one}`)).toBe(limitKey(one) as string);
      }),
    );
  });

  test("whatever a header may hold, it makes a key or none, and never throws", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[\d.a-fA-F:]{0,45}$/), (address) => {
        expect(["string", "undefined"]).toContain(typeof limitKey(address));
      }),
    );
  });
});
