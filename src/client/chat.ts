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
  type ConversationMessage,
  createConversation,
  type Draft,
  type Outbox,
  peerOf,
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
export interface ChatClientOptions extends Omit<ConnectOptions, "getTicket" | "protocols"> {
  /** Keeps unsent messages over a reload, from `createOutbox`. Default: they live as long as this client. */
  readonly outbox?: Outbox | undefined;
}

/** What `on` listens to. */
export interface ChatClientEvents {
  /** The connection is in another state. */
  state: ConnectionState;
  /** A new socket has replaced the last one: frames may be missing, so load again whatever you show. */
  resumed: undefined;
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
  /** Whose: with `getToken` the user's, otherwise the visitor's. */
  readonly side: Side;
  /** Listens until the returned function is called. */
  on<Name extends keyof ChatClientEvents>(
    name: Name,
    listener: (event: ChatClientEvents[Name]) => void,
  ): () => void;
  /** The chat with this user or visitor, followed from now on. */
  conversation(peer: string): Conversation;
  /** The newest chats (200 unless `limit` says less), or those older than the message `before`. */
  chats(options?: { before?: string | undefined; limit?: number | undefined }): Promise<ChatPage>;
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
 * @example
 * const chat = createChatClient({ getToken: () => session.jwt });
 * chat.on("state", ({ status }) => console.log(status));
 */
export function createChatClient(options: ChatClientOptions = {}): ChatClient {
  const { url, getToken, paths, silenceMs = SILENCE_MS, outbox } = options;
  const side: Side = getToken === undefined ? "visitor" : "user";
  const runtime = completeRuntime(options.runtime);
  const { on, emit, clear } = createEmitter<ChatClientEvents>(runtime);
  const conversations = new Map<string, TrackedConversation>();
  const drafts = new Map<string, Draft>(
    outbox?.load().map((one) => [one.message.key, { ...one, sentOver: -1 }]),
  );
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
    if (sockets > 1) emit("resumed", undefined);
  });
  connection.on("message", (text) => {
    const frame = parse(text);
    if (!frame || frame.type === "HEARTBEAT") return;
    receive(frame);
    emit("frame", frame);
  });

  function receive(frame: ServerFrame): void {
    if (frame.type === "EXPIRING") return connection.renew();
    if (frame.type === "ACK" || frame.type === "ERROR") return receiveResponse(frame);
    if (!("chatId" in frame)) return;
    const conversation = conversations.get(peerOf(frame, side));
    if (!conversation) return;
    if (frame.type === "READ") {
      conversation.read(frame.by === frame.chatId ? "visitor" : "user", frame.upTo);
    } else if (frame.type === "DELETED") conversation.forget(Number(frame.upTo));
    else if ("content" in frame) conversation.add(frame);
    conversation.changed();
  }

  function receiveResponse(frame: ServerFrame & { type: "ACK" | "ERROR" }): void {
    const draft = drafts.get(frame.ref ?? "");
    if (!draft) return;
    if (frame.type === "ACK") {
      drafts.delete(draft.message.key);
      conversations.get(draft.peer)?.acknowledge(draft, frame);
      changed(draft);
    } else if (frame.code === "unavailable") {
      draft.sentOver = 0;
      budget = 0;
      refillAfter(UNAVAILABLE_RETRY_MS * (1 + runtime.random()));
    } else refuse(draft, frame.code);
    awaitAcks();
  }

  /** Sends what this socket hasn't carried yet: each message until its ACK, in order, no faster than the server takes them. */
  function flush(): void {
    save();
    if (connection.state.status !== "open") return;
    for (const draft of drafts.values()) {
      if (draft.message.error || draft.sentOver === sockets) continue;
      if (budget === 0) break;
      budget--;
      if (!cancelBudget) refillAfter(1_000);
      draft.sentOver = sockets;
      send(frameOf(draft));
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

  function frameOf({ peer, message: { key, content, nickname } }: Draft): ClientFrame {
    const type = side === "user" ? "USER_TO_ANON" : "ANON_TO_USER";
    return { type, to: peer, content, nickname, ref: key };
  }

  function send(frame: ClientFrame): void {
    connection.send(JSON.stringify(frame));
  }

  /** What this socket has carried, and no answer has come to. */
  function waiting(): Draft[] {
    return [...drafts.values()].filter(
      ({ message, sentOver }) => sentOver === sockets && !message.error,
    );
  }

  function awaitAcks(): void {
    cancelAckTimeout();
    if (waiting()[0]) cancelAckTimeout = runtime.after(ACK_TIMEOUT_MS, connection.check);
  }

  /** The server doesn't say which frame was too big for it; sent again, it would end the next socket, too. */
  function refuseBiggest(): void {
    const [biggest] = waiting().sort((a, b) => b.message.content.length - a.message.content.length);
    if (biggest) refuse(biggest, "too_big");
  }

  function refuse(draft: Draft, error: ConversationMessage["error"]): void {
    draft.message = { ...draft.message, status: "failed", error };
    changed(draft);
  }

  function save(): void {
    outbox?.save([...drafts.values()]);
  }

  function changed({ peer }: Draft): void {
    save();
    conversations.get(peer)?.changed();
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
    side,
    on,
    conversation(peer) {
      const known = conversations.get(peer);
      if (known) return known.conversation;
      const made = createConversation({
        peer,
        side,
        api,
        runtime,
        drafts,
        flush,
        onChange: (conversation) => emit("change", conversation),
        send,
        onClose: () => conversations.get(peer) === made && conversations.delete(peer),
      });
      conversations.set(peer, made);
      if (connection.state.status === "open") void made.sync();
      return made.conversation;
    },
    chats: ({ before, limit = 200 } = {}) =>
      api.call("GET", CHATS + limit + (before ? `&before=${before}` : "")),
    remove: (peer) => api.call("DELETE", chatPath(peer)),
    setBlocked: (peer, isBlocked) =>
      api.call(isBlocked ? "PUT" : "DELETE", `${chatPath(peer)}/block`),
    signOut: () => api.call("POST", (paths?.auth ?? BASE_PATH) + SIGN_OUT_PATH),
    retry: connection.retry,
    dispose,
    [Symbol.dispose]: dispose,
  };
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
