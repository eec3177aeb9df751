import { lstatSync, unlinkSync } from "node:fs";

/** Rights that a new socket doesn't get: those of others than its owner and group. */
const UMASK = 0o117;

/** Calls `listen`, so that only the owner and the group of the unix socket that it makes can connect. */
export function listenPrivately<Server>(listen: () => Server): Server {
  const before = process.umask(UMASK);
  try {
    return listen();
  } finally {
    process.umask(before);
  }
}

/** Removes a unix socket on which nobody listens: a process that was killed leaves it, and none could listen there. */
export async function removeAbandoned(path: string): Promise<void> {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  try {
    const socket = await Bun.connect({ unix: path, socket: { data() {} } });
    socket.end();
  } catch (error) {
    if ((error as { code?: unknown }).code === "ECONNREFUSED") unlinkSync(path);
  }
}
