import { type Gate, partsOf } from "../gate/gate.ts";
import { type ConnectionInfo, readRequest } from "../request/incoming.ts";
import { refusalResponse } from "../request/refusal.ts";
import type { SocketHandlers } from "../sockets/socket.ts";
import type { ChatHistory } from "./history.ts";
import { createHub } from "./hub.ts";
import { createChatRoutes } from "./routes.ts";

/** The chat between visitors and users. */
export interface ChatService {
  /** For `createSockets` or `serve`, which then own the history: their `stop` closes it. */
  readonly handlers: SocketHandlers;
  /** Answers the requests at and below `/api/chats`; `not_found` for all others. Never rejects. */
  fetch(request: Request, connection?: ConnectionInfo): Promise<Response>;
  /** Rejects while messages can't be stored, as far as the history can say. */
  probe(): Promise<void>;
}

/**
 * Makes a chat for those whom `gate` admits. What they write is stored in `history`: `sqliteChatHistory` for one
 * process, or the `chat` of `openRedis` for several.
 *
 * @example
 * const chat = createChat(gate, sqliteChatHistory({ path: "chat.sqlite" }));
 * await using server = serve(gate, chat.handlers, { fetch: chat.fetch });
 */
export function createChat(gate: Gate, history: ChatHistory): ChatService {
  const parts = partsOf(gate);
  const handle = createChatRoutes(history, parts);
  return {
    handlers: createHub(history, parts),
    async fetch(request, connection) {
      const read = readRequest(request, parts.policy, connection);
      return read.ok ? handle(read.incoming) : refusalResponse(read);
    },
    async probe() {
      await history.probe?.();
    },
  };
}
