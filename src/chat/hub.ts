import type { Deps } from "../deps.ts";
import { keyOf, type SocketHandlers } from "../sockets.ts";
import { ackFrame, errorFrame, type Message, readFrame } from "./protocol.ts";

/** The chat between the sockets of one process: stamps messages and hands them to every socket of both sides. */
export function relay({ clock }: Pick<Deps, "clock">): SocketHandlers {
  let publish: (topic: string, text: string) => void = () => {};
  let lastId = 0;
  return {
    start(to) {
      publish = to;
    },
    open(socket, identity) {
      socket.subscribe(keyOf(identity));
    },
    message(socket, identity, text) {
      const frame = readFrame(text, identity);
      if ("error" in frame) {
        socket.send(errorFrame(frame));
        return;
      }
      if (frame.type === "MARK_AS_READ") return;
      const { type, chat, content, nickname, ref } = frame;
      const message: Message = {
        type,
        id: String(++lastId),
        from: identity.id,
        to: identity.kind === "visitor" ? chat.user : chat.visitor,
        content,
        ...(nickname !== undefined && { nickname }),
        timestamp: new Date(clock.nowMs()).toISOString(),
        chatId: chat.visitor,
      };
      socket.send(ackFrame(message, ref));
      publish(keyOf({ kind: "user", id: chat.user }), JSON.stringify(message));
      publish(keyOf({ kind: "visitor", id: chat.visitor }), JSON.stringify(message));
    },
  };
}
