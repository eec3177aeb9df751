import { Database } from "bun:sqlite";
import type { TestSocket } from "./socket.ts";

/** Sends one message after the other until the socket ends; refs of those that were acknowledged go into `kept`. */
export async function writeOn(
  socket: TestSocket,
  frame: Record<string, string>,
  kept: string[],
): Promise<void> {
  let ended = false;
  void socket.closed.then(() => {
    ended = true;
  });
  while (!ended) {
    const ref = crypto.randomUUID();
    socket.send({ ...frame, content: "Still there?", ref });
    const ack = socket.next((one) => one.type === "ACK" && one.ref === ref);
    if (await Promise.race([ack, socket.closed.then(() => undefined)])) kept.push(ref);
  }
}

/** The refs of all messages in a chat's database. */
export function keptIn(path: string): Set<string> {
  const db = new Database(path, { readonly: true });
  const rows = db.query<{ ref: string }, []>("SELECT ref FROM refs JOIN messages USING (id)").all();
  db.close();
  return new Set(rows.map(({ ref }) => ref));
}
