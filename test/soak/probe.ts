/** Loaded into the server before it starts: at SIGUSR2 it collects what nobody needs and says what is left. */
import { heapStats } from "bun:jsc";

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { objectCount, objectTypeCounts } = heapStats();
  const { ServerWebSocket = 0, Timeout = 0, Map = 0, Set = 0, Promise = 0 } = objectTypeCounts;
  const counts = { objectCount, ServerWebSocket, Timeout, Map, Set, Promise };
  process.stderr.write(`${JSON.stringify(counts)}\n`);
});
