import type { Identity } from "../gate/admit.ts";
import type { Deps } from "../gate/gate.ts";
import { faultCode } from "../lib/log.ts";
import { CLOSE, keyOf, type Socket, type SocketHandlers, who } from "../sockets/sockets.ts";
import { type ChatEvent, type ChatLog, MAX_PAGE } from "./history.ts";
import { ackFrame, type ClientFrame, errorFrame, readFrame, readReceipt } from "../wire/frames.ts";

/** Frames in a row that make no sense, after which a socket is closed. */
const MAX_BAD_FRAMES = 10;

/**
 * The chat as socket handlers: keeps what people write in `chat`, and hands what the log tells to every
 * socket of both sides.
 */
export function createChat(
  chat: ChatLog,
  { clock, log }: Pick<Deps, "clock" | "log">,
): SocketHandlers {
  /** How many frames in a row made no sense. Weak: frames of a socket are handled after its end, too. */
  const badFrames = new WeakMap<Socket, number>();

  /** Answers that wait for the end of this turn. */
  const answers = new Map<Socket, string[]>();

  async function append(
    socket: Socket,
    identity: Identity,
    frame: Exclude<ClientFrame, { type: "MARK_AS_READ" }>,
  ): Promise<void> {
    const { chat: where, content, nickname, ref } = frame;
    const atMs = clock.nowMs();
    const kept = await chat.append({
      chat: where,
      from: identity.kind,
      content,
      nickname,
      ref,
      atMs,
    });
    if (kept.ok) log("debug", "message_kept", who(identity));
    answer(
      socket,
      kept.ok ? ackFrame({ ...kept, ...echoOf(frame) }) : errorFrame({ ...kept, ...echoOf(frame) }),
    );
  }

  /** Answers to what was kept together go out together: one write for each socket, not one for each answer. */
  function answer(socket: Socket, text: string): void {
    const waiting = answers.get(socket);
    if (waiting) {
      waiting.push(text);
      return;
    }
    if (answers.size === 0) queueMicrotask(sendAnswers);
    answers.set(socket, [text]);
  }

  function sendAnswers(): void {
    for (const [socket, texts] of answers) {
      socket.cork(() => {
        for (const text of texts) socket.send(text);
      });
    }
    answers.clear();
  }

  async function markRead(socket: Socket, { kind, id }: Identity, mark: Mark): Promise<void> {
    const { user, visitor } = mark.chat;
    const of = { side: kind, id };
    const users =
      user === undefined
        ? (await chat.chats(of, { limit: MAX_PAGE })).map(({ peer }) => peer)
        : [user];
    const marked = await Promise.all(
      users.map((one) => chat.markRead({ user: one, visitor }, kind)),
    );
    if (marked.some((upTo) => upTo !== undefined)) return;
    socket.send(errorFrame({ error: "not_found", ...echoOf(mark) }));
  }

  return {
    start(publish) {
      chat.start((event) => {
        // The sender has its ACK before anybody has the message.
        sendAnswers();
        const text = frameOf(event);
        publish(keyOf({ kind: "user", id: event.chat.user }), text);
        publish(keyOf({ kind: "visitor", id: event.chat.visitor }), text);
      });
    },
    open(socket, identity) {
      socket.subscribe(keyOf(identity));
      if (identity.kind === "user") {
        chat
          .meet(identity.id)
          .catch((error) => log("error", "chat_failed", { code: faultCode(error) }));
      }
    },
    message(socket, identity, text) {
      const frame = readFrame(text, identity);
      if ("error" in frame) {
        const inARow = (badFrames.get(socket) ?? 0) + 1;
        badFrames.set(socket, inARow);
        socket.send(errorFrame(frame));
        if (inARow >= MAX_BAD_FRAMES) socket.close(CLOSE.flooding, "Too many bad frames");
        return;
      }
      badFrames.delete(socket);
      const isMark = frame.type === "MARK_AS_READ";
      const handled = isMark ? markRead(socket, identity, frame) : append(socket, identity, frame);
      const settled = handled.catch((error) => {
        log("error", "chat_failed", { ...who(identity), code: faultCode(error) });
        socket.send(errorFrame({ error: "unavailable", ...echoOf(frame) }));
      });
      // A message isn't waited for: the log keeps the order, and takes in together what comes together.
      return isMark ? settled : undefined;
    },
    expiring(socket, _, inSeconds) {
      socket.send(JSON.stringify({ type: "EXPIRING", inSeconds }));
    },
    stop: () => chat.close(),
  };
}

type Mark = Extract<ClientFrame, { type: "MARK_AS_READ" }>;

/** What an answer says of the frame that it answers. */
function echoOf({ ref }: ClientFrame): { ref?: string } {
  return ref === undefined ? {} : { ref };
}

function frameOf(event: ChatEvent): string {
  if (event.kind === "message") return event.frame ?? JSON.stringify(event.message);
  const { chat, by, upTo } = event;
  return readReceipt(chat, { by: chat[by], upTo });
}
