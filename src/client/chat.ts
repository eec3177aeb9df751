/// <reference lib="esnext.disposable" preserve="true" />
import { MESSAGE_TOO_BIG } from "../wire/close.ts";
import type { ChatPage, ClientFrame, ServerFrame, Side } from "../wire/frames.ts";
import { BASE_PATH, SIGN_OUT_PATH } from "../wire/paths.ts";
import { addressOf } from "./address.ts";
import { createApi } from "./api.ts";
import { connect, type ConnectOptions } from "./connect.ts";
import type { ConnectionState } from "./connection.ts";
import {
  chatPath,
  CHATS,
  type Conversation,
  createConversation,
  type Draft,
  type TrackedConversation,
} from "./conversation.ts";
import { createEmitter } from "./events.ts";
import type { Failure } from "./failure.ts";
import { completeRuntime } from "./runtime.ts";

/** Messages sent in one second: half of what the server's own limit is where nobody has set it. */
const MESSAGES_PER_SECOND = 10;
/** Two of the server's heartbeats and a little: longer silence means that the connection is dead. */
const SILENCE_MS = 55_000;
/** Without an ACK for so long, the socket may be dead. */
const ACK_TIMEOUT_MS = 10_000;
/** What the server couldn't keep is sent again after so long, and nothing before it. */
const UNAVAILABLE_RETRY_MS = 2_000;

/** How to reach the server, and as whom: a user with `getToken`, a visitor without. `silenceMs` is 55,000 by default. */
export type ChatClientOptions = Omit<ConnectOptions, "getTicket" | "protocols">;

/** What `on` listens to. */
export interface ChatClientEvents {
  /** The connection is in another state. */
  state: ConnectionState;
  /** An attempt failed (its code is a status, or 0) or a socket was lost (its code is a close code). */
  down: Failure;
  /** Something in this conversation is different. */
  change: Conversation;
  /** A frame as it came; where two sockets overlap, a message comes twice. What isn't the chat's, and heartbeats, are left out. */
  frame: ServerFrame;
}

/** One connection to the server, and the conversations over it. Connects by itself until it is disposed of. */
export interface ChatClient extends Disposable {
  /** Of the connection. */
  readonly state: ConnectionState;
  /** Listens until the returned function is called. */
  on<Name extends keyof ChatClientEvents>(
    name: Name,
    listener: (event: ChatClientEvents[Name]) => void,
  ): () => void;
  /** The chat with this user or visitor, followed from now on. */
  conversation(peer: string): Conversation;
  /** The newest 200 chats, or those older than the message `before`. */
  chats(options?: { before?: string }): Promise<ChatPage>;
  /** Deletes a chat for both sides. */
  remove(peer: string): Promise<void>;
  /** For users: whether nothing more is wanted from this visitor. */
  setBlocked(peer: string, blocked: boolean): Promise<void>;
  /** For users: ends the session on the server, with all its sockets. */
  signOut(): Promise<void>;
  /** Tries to connect now, also after `closed`. */
  retry(): void;
  /** Closes the connection for good. */
  dispose(): void;
}

/**
 * Connects a user (with `getToken`) or a visitor (without) to the chat.
 *
 * ```ts
 * const chat = createChatClient({ getToken: () => session.jwt });
 * chat.on("state", ({ status }) => console.log(status));
 * ```
 */
export function createChatClient(options: ChatClientOptions = {}): ChatClient {
  const { url, getToken, paths, silenceMs = SILENCE_MS } = options;
  const side: Side = getToken === undefined ? "visitor" : "user";
  const runtime = completeRuntime(options.runtime);
  const { on, emit, clear } = createEmitter<ChatClientEvents>(runtime);
  const conversations = new Map<string, TrackedConversation>();
  const drafts = new Set<Draft>();
  /** The user's latest token. */
  let token: string | undefined;
  /** Sockets so far. */
  let sockets = 0;
  /** Messages that may still be sent in this second. */
  let budget = MESSAGES_PER_SECOND;
  let cancelBudget: (() => void) | undefined;
  let cancelAckTimeout = (): void => {};

  async function newToken() {
    return (token = await (typeof getToken === "function" ? getToken() : getToken));
  }

  const api = createApi({
    at: addressOf(url),
    runtime,
    getToken: async () => token ?? newToken(),
  });
  const connection = connect({
    ...options,
    silenceMs,
    getToken: getToken === undefined ? undefined : (newToken as () => Promise<string>),
  });
  connection.on("state", (state) => {
    if (state.status !== "open") for (const one of conversations.values()) one.disconnect();
    emit("state", state);
  });
  connection.on("down", (failure) => {
    if (failure.code === MESSAGE_TOO_BIG) refuseBiggest();
    emit("down", failure);
  });
  connection.on("open", () => {
    sockets++;
    for (const one of conversations.values()) void one.sync();
    flush();
  });
  connection.on("message", (text) => {
    const frame = parse(text);
    if (!frame || frame.type === "HEARTBEAT") return;
    receive(frame);
    emit("frame", frame);
  });

  function receive(frame: Exclude<ServerFrame, { type: "HEARTBEAT" }>): void {
    if (frame.type === "EXPIRING") return connection.renew();
    if (frame.type === "READ") return receiveRead(frame);
    if (frame.type === "ACK" || frame.type === "ERROR") {
      const draft = [...drafts].find(({ ref }) => ref === frame.ref);
      if (!draft) return;
      if (frame.type === "ACK") {
        drafts.delete(draft);
        conversations.get(draft.peer)?.acknowledge(draft, frame);
      } else if (frame.code === "unavailable") {
        draft.sentOver = 0;
        budget = 0;
        refillAfter(UNAVAILABLE_RETRY_MS * (1 + runtime.random()));
      } else refuse(draft, frame.code);
      return awaitAcks();
    }
    const fromVisitor = frame.type === "ANON_TO_USER";
    const peer = side === "user" ? frame.chatId : fromVisitor ? frame.to : frame.from;
    if (fromVisitor || frame.type === "USER_TO_ANON") conversations.get(peer)?.add(frame);
  }

  function receiveRead({ chatId, by, upTo }: ServerFrame & { type: "READ" }): void {
    // A visitor's own reading doesn't say in which of his chats: it is nobody's here.
    const peer = side === "user" ? chatId : by;
    conversations.get(peer)?.read(by === chatId ? "visitor" : "user", upTo);
  }

  /** Sends what this socket hasn't carried yet: each message until its ACK, in order, no faster than the server takes them. */
  function flush(): void {
    if (connection.state.status !== "open") return;
    for (const draft of drafts) {
      if (draft.error || draft.sentOver === sockets) continue;
      if (budget === 0) break;
      budget--;
      if (!cancelBudget) refillAfter(1_000);
      draft.sentOver = sockets;
      connection.send(frameOf(draft));
      awaitAcks();
    }
  }

  function refillAfter(delayMs: number): void {
    cancelBudget?.();
    cancelBudget = runtime.after(delayMs, () => {
      cancelBudget = undefined;
      budget = MESSAGES_PER_SECOND;
      flush();
    });
  }

  function frameOf({ peer, content, nickname, ref }: Draft): string {
    const type = side === "user" ? "USER_TO_ANON" : "ANON_TO_USER";
    return textOf({ type, to: peer, content, nickname, ref });
  }

  /** What this socket has carried, and no answer has come to. */
  function waiting(): Draft[] {
    return [...drafts].filter((draft) => draft.sentOver === sockets && !draft.error);
  }

  function awaitAcks(): void {
    cancelAckTimeout();
    if (waiting()[0]) cancelAckTimeout = runtime.after(ACK_TIMEOUT_MS, connection.check);
  }

  /** The server doesn't say which frame was too big for it; sent again, it would end the next socket, too. */
  function refuseBiggest(): void {
    const [biggest] = waiting().sort((a, b) => frameOf(b).length - frameOf(a).length);
    if (biggest) refuse(biggest, "too_big");
  }

  function refuse(draft: Draft, error: Draft["error"]): void {
    draft.error = error;
    changed(draft.peer);
  }

  function changed(peer: string): void {
    const conversation = conversations.get(peer);
    if (conversation) emit("change", conversation);
  }

  function dispose(): void {
    clear();
    for (const conversation of conversations.values()) conversation.disconnect();
    cancelBudget?.();
    cancelAckTimeout();
    connection.dispose();
    api.dispose();
  }

  return {
    get state() {
      return connection.state;
    },
    on,
    conversation(peer) {
      const known = conversations.get(peer);
      if (known) return known;
      const conversation = createConversation({
        peer,
        side,
        api,
        runtime,
        drafts,
        flush,
        onChange: () => changed(peer),
        onMarkRead(chatId) {
          const to = side === "visitor" ? peer : undefined;
          connection.send(textOf({ type: "MARK_AS_READ", chatId, to }));
        },
        onClose: () => conversations.delete(peer),
      });
      conversations.set(peer, conversation);
      if (connection.state.status === "open") void conversation.sync();
      return conversation;
    },
    chats: ({ before } = {}) => api.call("GET", before ? `${CHATS}&before=${before}` : CHATS),
    remove: (peer) => api.call("DELETE", chatPath(peer)),
    setBlocked: (peer, isBlocked) =>
      api.call(isBlocked ? "PUT" : "DELETE", `${chatPath(peer)}/block`),
    signOut: () => api.call("POST", (paths?.auth ?? BASE_PATH) + SIGN_OUT_PATH),
    retry: connection.retry,
    dispose,
    [Symbol.dispose]: dispose,
  };
}

function textOf(frame: ClientFrame): string {
  return JSON.stringify(frame);
}

/** A frame; `undefined` for the text of a server that speaks something else. */
function parse(text: string): ServerFrame | undefined {
  try {
    const frame = JSON.parse(text);
    return typeof frame?.type === "string" ? frame : undefined;
  } catch {
    return undefined;
  }
}
