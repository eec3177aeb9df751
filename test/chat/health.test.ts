import { beforeEach, describe, expect, test } from "bun:test";
import { createHealth, type Health } from "../../src/chat/health.ts";
import { faultCode } from "../../src/lib/log.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";

let clock: FakeClock;
let health: Health;
let probes: number;
let isBroken: boolean;

beforeEach(() => {
  clock = fakeClock();
  probes = 0;
  isBroken = false;
  const probe = async () => {
    probes++;
    if (isBroken) throw Object.assign(new Error("secret"), { code: "OOM" });
  };
  health = createHealth({ probe }, clock);
});

/** What a probe comes to. */
function outcome(): Promise<string> {
  return health.probe().then(() => "good", faultCode);
}

const FULL = Object.assign(new Error("secret"), { code: "SQLITE_FULL" });

describe("a probe of the chat's storage", () => {
  test("writes, and a good one is good for ten seconds", async () => {
    expect([await outcome(), probes]).toEqual(["good", 1]);
    isBroken = true;
    clock.advance(9_999);
    expect([await outcome(), probes]).toEqual(["good", 1]);
    clock.advance(1);
    expect([await outcome(), probes]).toEqual(["out_of_memory", 2]);
  });

  test("that failed is made again each time", async () => {
    isBroken = true;
    for (let round = 1; round <= 3; round++) {
      expect([await outcome(), probes]).toEqual(["out_of_memory", round]);
    }
    isBroken = false;
    expect(await outcome()).toBe("good");
  });

  test("isn't needed while messages are stored", async () => {
    for (let round = 0; round < 5; round++) {
      health.stored();
      clock.advance(5_000);
      expect([await outcome(), probes]).toEqual(["good", 0]);
    }
  });

  test("rejects for ten seconds after a message that couldn't be stored, although it could write itself", async () => {
    expect(await outcome()).toBe("good");
    health.failed(FULL);
    expect([await outcome(), probes]).toEqual(["disk_full", 1]);
    clock.advance(9_999);
    expect([await outcome(), probes]).toEqual(["disk_full", 1]);
    clock.advance(1);
    expect([await outcome(), probes]).toEqual(["good", 2]);
    expect([await outcome(), probes]).toEqual(["good", 2]);
  });

  test("is good again as soon as a message is stored", async () => {
    health.failed(FULL);
    health.stored();
    expect([await outcome(), probes]).toEqual(["good", 0]);
  });

  test("of a history that can't say is good", async () => {
    health = createHealth({}, clock);
    expect(await outcome()).toBe("good");
    health.failed(FULL);
    expect(await outcome()).toBe("disk_full");
  });
});
