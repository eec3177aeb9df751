import { type Gate, partsOf } from "../gate/gate.ts";
import { requireWhole } from "../gate/options.ts";
import { type ConnectionInfo, readRequest } from "../request/incoming.ts";
import { refusalResponse } from "../request/refusal.ts";
import type { SocketHandlers } from "../sockets/socket.ts";
import type { ChatHistory } from "./history.ts";
import { createHealth } from "./health.ts";
import { createHub } from "./hub.ts";
import { CHARACTERS_PER_MINUTE, createChatLimits } from "./limits.ts";
import { createChatRoutes } from "./routes.ts";

/** The chat between visitors and users. */
export interface ChatService {
  /** For `createSockets` or `serve`, which then own the history: their `stop` closes it. */
  readonly handlers: SocketHandlers;
  /** Answers the requests at and below `/api/chats`; `not_found` for all others. Never rejects. */
  fetch(request: Request, connection?: ConnectionInfo): Promise<Response>;
  /** What users show to visitors: a name, a greeting. */
  readonly profiles: Pick<ChatHistory, "profile" | "setProfile">;
  /** Rejects while messages can't be stored, as far as the history can say. */
  probe(): Promise<void>;
}

/** How much may be written. */
export interface ChatOptions {
  /** Per user, over all their sockets; ten minutes' worth at once, a visitor a quarter. Default 40,000; 0 for no limit. */
  readonly charactersPerMinute?: number | undefined;
}

/**
 * Makes a chat for those whom `gate` admits. What they write is stored in `history`: `sqliteChatHistory` for one
 * process, or the `chat` of `openRedis` for several.
 *
 * @example
 * const chat = createChat(gate, sqliteChatHistory({ path: "chat.sqlite" }));
 * await using server = serve(gate, chat.handlers, { fetch: chat.fetch });
 */
export function createChat(
  gate: Gate,
  history: ChatHistory,
  options: ChatOptions = {},
): ChatService {
  const { charactersPerMinute = CHARACTERS_PER_MINUTE } = options;
  requireWhole(charactersPerMinute, "charactersPerMinute", { least: 0, most: 1_000_000_000 });
  const parts = partsOf(gate);
  const limits = createChatLimits({ charactersPerMinute, clock: parts.clock });
  const handle = createChatRoutes(history, parts, limits);
  const health = createHealth(history, parts.clock);
  return {
    handlers: createHub(history, parts, { limits, health }),
    async fetch(request, connection) {
      const read = readRequest(request, parts.policy, connection);
      return read.ok ? handle(read.incoming) : refusalResponse(read);
    },
    profiles: {
      profile: (user) => history.profile(user),
      setProfile: (user, profile) => history.setProfile(user, profile),
    },
    probe: health.probe,
  };
}
