// Preloaded: a process in which something throws, and something else rejects, when it is told to.
process.on("SIGUSR2", () => {
  void Promise.reject(new TypeError("canary"));
  throw new RangeError("canary");
});
