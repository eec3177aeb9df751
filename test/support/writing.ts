import { Database } from "bun:sqlite";
import type { People } from "./people.ts";
import type { TestSocket } from "./socket.ts";

/** A visitor's message and the user's answer, after which the visitor may send any number. */
export async function getAnswer(people: People, visitor: TestSocket, user: string): Promise<void> {
  visitor.send({ type: "ANON_TO_USER", to: user, content: "begin" });
  const { from } = await visitor.next(({ content }) => content === "begin");
  await using answering = await people.openUser(user);
  answering.send({ type: "USER_TO_ANON", to: from, content: "answer" });
  await visitor.next(({ content }) => content === "answer");
}

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
