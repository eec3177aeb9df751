import type { GateParts } from "../gate/gate.ts";
import { identityFields, identityKey, type Identity } from "../gate/identity.ts";
import { faultCode } from "../lib/log.ts";
import { toTimestamp } from "../lib/text.ts";
import { type Socket, type SocketHandlers, stateOf } from "../sockets/socket.ts";
import { CLOSE } from "../wire/close.ts";
import { FRAME_ERRORS, MAX_PAGE, otherSide, type ServerFrame } from "../wire/frames.ts";
import { type CheckedFrame, type FrameError, readFrame } from "./frame.ts";
import type { Health } from "./health.ts";
import type { Appended, ChatEvent, ChatHistory } from "./history.ts";
import { type ChatLimits, costOf } from "./limits.ts";

/** Bad frames in a row after which a socket is closed. */
const MAX_BAD_FRAMES = 10;

const HEARTBEAT = toText({ type: "HEARTBEAT" });

type Mark = Extract<CheckedFrame, { type: "MARK_AS_READ" }>;
type Typing = Extract<CheckedFrame, { type: "TYPING" }>;

/**
 * The chat as socket handlers: stores what people write, and sends what was stored to every socket of both
 * sides.
 */
export function createHub(
  history: ChatHistory,
  { clock, log }: Pick<GateParts, "clock" | "log">,
  { limits, health }: { limits: ChatLimits; health: Pick<Health, "stored" | "failed"> },
): SocketHandlers {
  /** Bad frames in a row. Weak: frames of a socket are handled after its end, too. */
  const badFrames = new WeakMap<Socket, number>();
  /** Messages of visitors that are on their way into the history, by address: whether they are answered isn't clear yet. */
  const pending = new Map<string, number>();
  let socketsOf: (identity: Pick<Identity, "kind" | "id">) => readonly Socket[] = () => [];
  /** What waits for the end of this turn, by socket. */
  let outgoing = new Map<Socket, string[]>();

  async function append(
    socket: Socket,
    identity: Identity,
    frame: Exclude<CheckedFrame, Mark | Typing>,
  ): Promise<void> {
    const { chat, content, nickname, ref } = frame;
    const from = identity.kind;
    const { key, limitKey } = stateOf(socket);
    const isVisitor = from === "visitor" && limitKey !== undefined;
    const cost = costOf(content);
    const isTooMuch =
      (isVisitor && limits.visitors.waitMs(limitKey, cost) > 0) ||
      limits.writing[from].take(key, cost) > 0;
    if (isTooMuch) {
      return send(socket, errorFrame({ error: "too_many_messages", ...refOf(frame) }));
    }
    if (isVisitor) limits.visitors.count(limitKey, cost);
    const waiting = isVisitor ? (pending.get(limitKey) ?? 0) : 0;
    const onlyAnswered = isVisitor && limits.unanswered.waitMs(limitKey, waiting + 1) > 0;
    const atMs = clock.nowMs();
    const costMs = limits.costMs(from, cost);
    const draft = { chat, from, content, nickname, ref, atMs, onlyAnswered, costMs };
    let appended: Appended;
    if (isVisitor) pending.set(limitKey, waiting + 1);
    try {
      // Awaited here and not through another promise: one step later its ACK would follow its delivery.
      appended = await history.append(draft);
    } catch (error) {
      health.failed(error);
      throw error;
    } finally {
      if (isVisitor) settle(limitKey);
    }
    health.stored();
    if (!appended.ok) {
      return send(socket, errorFrame({ error: appended.error, ...refOf(frame) }));
    }
    if (appended.isUnanswered && isVisitor) limits.unanswered.count(limitKey);
    log("debug", "message_kept", identityFields(identity));
    send(socket, ackFrame(appended, ref));
  }

  function settle(limitKey: string): void {
    const left = (pending.get(limitKey) as number) - 1;
    if (left > 0) pending.set(limitKey, left);
    else pending.delete(limitKey);
  }

  /** What was stored together leaves together: one write for each socket, not one for each frame. */
  function send(socket: Socket, text: string): void {
    const waiting = outgoing.get(socket);
    if (waiting) {
      waiting.push(text);
      return;
    }
    if (outgoing.size === 0) queueMicrotask(sendAll);
    outgoing.set(socket, [text]);
  }

  function sendAll(): void {
    const batch = outgoing;
    outgoing = new Map();
    for (const [socket, texts] of batch) {
      socket.cork(() => {
        for (const text of texts) socket.send(text);
      });
    }
  }

  function deliver(to: Pick<Identity, "kind" | "id">, text: string): void {
    for (const socket of socketsOf(to)) send(socket, text);
  }

  /** Milliseconds to wait: over all processes, and before that, which takes longer, in this one. */
  async function spendMarks(socket: Socket, count: number): Promise<number> {
    const { key, limitKey } = stateOf(socket);
    const waitMs = limits.marks.waitMs(key, count);
    if (waitMs > 0) return waitMs;
    const addressWaitMs = limitKey === undefined ? 0 : limits.marksOfAddress.take(limitKey, count);
    if (addressWaitMs > 0) return addressWaitMs;
    limits.marks.count(key, count);
    return history.spendRequests(key, count);
  }

  async function markRead(socket: Socket, { kind, id }: Identity, mark: Mark): Promise<void> {
    const { user, visitor } = mark.chat;
    const of = { side: kind, id };
    const refuse = () =>
      void socket.send(errorFrame({ error: "too_many_messages", ...refOf(mark) }));
    // Also where there turn out to be none, and before they are listed, which takes longer.
    if ((await spendMarks(socket, 1)) > 0) return refuse();
    const users =
      user === undefined
        ? (await history.chats(of, { limit: MAX_PAGE })).map(({ peer }) => peer)
        : [user];
    const others = users.length - 1;
    if (others > 0 && (await spendMarks(socket, others)) > 0) return refuse();
    const marked = await Promise.all(
      users.map((one) => history.markRead({ user: one, visitor }, kind)),
    );
    if (marked.some((upTo) => upTo !== undefined)) return;
    socket.send(errorFrame({ error: "not_found", ...refOf(mark) }));
  }

  /** Shows the partner's sockets in this process that somebody writes. Whoever sends it finds out nothing. */
  async function showTyping({ kind, id }: Identity, { chat }: Typing): Promise<void> {
    if (limits.typing.take(identityKey({ kind, id })) > 0) return;
    if (!(await history.isOpen(chat).catch(() => false))) return;
    const partner = otherSide(kind);
    deliver({ kind: partner, id: chat[partner] }, toText({ type: "TYPING", from: id }));
  }

  return {
    start(_, findSockets) {
      socketsOf = findSockets;
      history.start((event) => {
        const text = frameOf(event);
        deliver({ kind: "user", id: event.chat.user }, text);
        // Whom a user has blocked is the user's own business.
        if (event.kind === "blocked") return;
        deliver({ kind: "visitor", id: event.chat.visitor }, text);
      });
    },
    message(socket, identity, text) {
      const frame = readFrame(text, identity);
      if ("error" in frame) {
        const inARow = (badFrames.get(socket) ?? 0) + 1;
        badFrames.set(socket, inARow);
        socket.send(errorFrame(frame));
        if (inARow >= MAX_BAD_FRAMES) stateOf(socket).end(CLOSE.badFrames);
        return;
      }
      badFrames.delete(socket);
      // The message behind it waits, and arrives behind it.
      if (frame.type === "TYPING") return showTyping(identity, frame);
      const isMark = frame.type === "MARK_AS_READ";
      const handled = isMark ? markRead(socket, identity, frame) : append(socket, identity, frame);
      const settled = handled.catch((error) => {
        log("error", "chat_failed", { ...identityFields(identity), code: faultCode(error) });
        socket.send(errorFrame({ error: "unavailable", ...refOf(frame) }));
      });
      // A message isn't waited for: the history keeps the order, and stores together what arrives together.
      return isMark ? settled : undefined;
    },
    heartbeat(socket) {
      socket.send(HEARTBEAT);
    },
    expiring(socket, _, inSeconds) {
      socket.send(toText({ type: "EXPIRING", inSeconds }));
    },
    stop: () => history.close(),
  };
}

/** What a response says of the frame that it responds to. */
function refOf({ ref }: CheckedFrame): { ref?: string } {
  return ref === undefined ? {} : { ref };
}

function toText(frame: ServerFrame): string {
  return JSON.stringify(frame);
}

function ackFrame({ id, atMs }: { id: string; atMs: number }, ref: string | undefined): string {
  return toText({ type: "ACK", ref, id, timestamp: toTimestamp(atMs) });
}

function errorFrame({ error, ref }: FrameError): string {
  return toText({ type: "ERROR", ref, code: error, message: FRAME_ERRORS[error] });
}

function frameOf(event: ChatEvent): string {
  if (event.kind === "message") return event.frame;
  const { kind, chat } = event;
  const of = { chatId: chat.visitor, user: chat.user };
  if (kind === "read") return toText({ type: "READ", ...of, by: chat[event.by], upTo: event.upTo });
  if (kind === "deleted") return toText({ type: "DELETED", ...of, upTo: event.upTo });
  return toText({ type: "BLOCKED", ...of, blocked: event.blocked });
}
