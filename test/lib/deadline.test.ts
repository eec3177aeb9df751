import { expect, test } from "bun:test";
import { DEPENDENCY_DEADLINE_MS, DeadlineError, withinDeadline } from "../../src/lib/deadline.ts";
import { fakeClock, settle } from "../support/clock.ts";

test("work that settles in time settles as it does, and leaves no timer", async () => {
  const clock = fakeClock();
  expect(await withinDeadline(Promise.resolve(7), 1_900, clock)).toBe(7);
  const failing = withinDeadline(Promise.reject(new TypeError("no")), 1_900, clock);
  expect(await failing.catch((error) => error)).toBeInstanceOf(TypeError);
  await settle(1);
  expect(clock.delays).toBe(0);
});

test("a dependency gets less than the 2 s within which a caller has its 503", () => {
  expect(DEPENDENCY_DEADLINE_MS).toBeLessThan(2_000);
  expect(DEPENDENCY_DEADLINE_MS).toBeGreaterThan(1_000);
});

test("work that doesn't is a DeadlineError at its time, whatever becomes of it", async () => {
  const clock = fakeClock();
  const work = Promise.withResolvers<number>();
  let fault: unknown;
  const ended = withinDeadline(work.promise, 1_900, clock).catch((error) => {
    fault = error;
  });
  // The time begins once it is known that the work hasn't settled at once.
  await settle(1);
  clock.advance(1_899);
  await settle(1);
  expect(fault).toBeUndefined();
  clock.advance(1);
  await ended;
  expect(fault).toBeInstanceOf(DeadlineError);
  expect(fault).toMatchObject({ name: "DeadlineError", message: "No response in time: 1900 ms" });
  work.reject(new Error("Too late to matter"));
  await settle(1);
});
