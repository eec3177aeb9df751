// Preloaded: a process in which fifteen seconds take a third of one.
const FACTOR = 45;

const startedAtMs = performance.now();
const now = performance.now.bind(performance);
performance.now = () => startedAtMs + (now() - startedAtMs) * FACTOR;

const later = globalThis.setTimeout;
globalThis.setTimeout = ((run: () => void, delayMs = 0) =>
  later(run, delayMs / FACTOR)) as typeof setTimeout;
