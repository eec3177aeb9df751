// Loaded before a recipe: SIGUSR2 moves its wall clock forward by an hour, and checks follow at once.
const HOUR_MS = 3_600_000;
const CHECK_MS = 20;
const realNow = Date.now;
const realInterval = globalThis.setInterval;
let aheadMs = 0;
Date.now = () => realNow() + aheadMs;
globalThis.setInterval = (run, intervalMs, ...args) =>
  realInterval(run, Math.min(intervalMs, CHECK_MS), ...args);
process.on("SIGUSR2", () => {
  aheadMs += HOUR_MS;
});
