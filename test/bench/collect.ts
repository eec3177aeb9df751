/** Preloaded into every measured server: collects garbage when it is told to, so that memory can be compared. */
process.on("SIGUSR2", () => Bun.gc(true));
