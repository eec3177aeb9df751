import type { Identity } from "../gate/admit.ts";
import { isLine, isLines, toTimestamp } from "../lib/text.ts";
import { isUserId } from "../gate/token.ts";
import { isVisitorId } from "../gate/visitor.ts";

/** Longest message, in UTF-16 code units as the browser counts them. */
export const MAX_CONTENT_LENGTH = 4_000;
/** Longest nickname. */
export const MAX_NICKNAME_LENGTH = 40;
/** Longest `ref`: the sender's own id for a message. */
export const MAX_REF_LENGTH = 100;

/** Deepest nesting of a frame: its own braces, and some for fields that are ignored. */
const MAX_DEPTH = 8;

/** A frame's type says who writes to whom. */
export type MessageType = "ANON_TO_USER" | "USER_TO_ANON";

/** Two people talk in a chat: one user and one visitor. Its `chatId` on the wire is the visitor's id. */
export interface Chat {
  readonly user: string;
  readonly visitor: string;
}

/** A frame from a client, checked. */
export type ClientFrame =
  | {
      readonly type: MessageType;
      readonly chat: Chat;
      readonly content: string;
      readonly nickname?: string;
      readonly ref?: string;
    }
  | {
      readonly type: "MARK_AS_READ";
      /** Without a user: all chats of the visitor. */
      readonly chat: { readonly user: string | undefined; readonly visitor: string };
      readonly ref?: string;
    };

/** What can be wrong with a frame: the closed table of `ERROR` codes. */
export const FRAME_ERRORS = {
  unavailable: "The message can't be kept now; send it again with the same ref",
  blocked: "The recipient wants no messages from you",
  too_many_recipients: "You have written to too many who never answered",
  not_found: "There is no such chat",
  malformed: "The frame is not a JSON object of a known type",
  not_allowed: "This type of message is not yours to send",
  invalid_recipient: "The recipient is not an id",
  invalid_content: "The content is empty, too long, or has control characters",
  invalid_nickname: "The nickname is too long or has control characters",
  invalid_ref: "The ref is too long or has control characters",
} as const;

export type FrameErrorCode = keyof typeof FRAME_ERRORS;

export interface FrameError {
  readonly error: FrameErrorCode;
  readonly ref?: string;
}

/** A message as it is stored and delivered. The server made `id`, `from` and `timestamp`. */
export interface Message {
  readonly type: MessageType;
  readonly id: string;
  readonly from: string;
  readonly to: string;
  readonly content: string;
  readonly nickname?: string;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
  readonly chatId: string;
}

/** Reads one text frame of a sender. What it claims about itself is ignored, and so are unknown fields. */
export function readFrame(text: string, sender: Identity): ClientFrame | FrameError {
  let frame: Record<string, unknown>;
  if (isTooDeep(text)) return { error: "malformed" };
  try {
    frame = JSON.parse(text);
  } catch {
    return { error: "malformed" };
  }
  if (typeof frame !== "object" || frame === null) return { error: "malformed" };
  const own = (field: string) => (Object.hasOwn(frame, field) ? frame[field] : undefined);

  const ref = own("ref");
  if (ref !== undefined && !isLine(ref, MAX_REF_LENGTH)) return { error: "invalid_ref" };
  const echo = ref === undefined ? {} : { ref };
  const type = own("type");
  if (type === "MARK_AS_READ") return readMark(own("chatId"), own("to"), sender, echo);
  if (type !== "ANON_TO_USER" && type !== "USER_TO_ANON") return { error: "malformed", ...echo };
  if ((type === "ANON_TO_USER") !== (sender.kind === "visitor")) {
    return { error: "not_allowed", ...echo };
  }
  const to = own("to");
  const isRecipient = sender.kind === "visitor" ? isUserId : isVisitorId;
  if (!isRecipient(to)) return { error: "invalid_recipient", ...echo };
  const content = own("content");
  if (!isLines(content, MAX_CONTENT_LENGTH)) return { error: "invalid_content", ...echo };
  const nickname = own("nickname");
  if (nickname !== undefined && !isLine(nickname, MAX_NICKNAME_LENGTH)) {
    return { error: "invalid_nickname", ...echo };
  }
  const chat =
    sender.kind === "visitor" ? { user: to, visitor: sender.id } : { user: sender.id, visitor: to };
  return { type, chat, content, ...(nickname !== undefined && { nickname }), ...echo };
}

function readMark(
  chatId: unknown,
  to: unknown,
  sender: Identity,
  echo: { ref?: string },
): ClientFrame | FrameError {
  if (!isVisitorId(chatId)) return { error: "not_found", ...echo };
  if (sender.kind === "user") {
    return { type: "MARK_AS_READ", chat: { user: sender.id, visitor: chatId }, ...echo };
  }
  const foreign = chatId !== sender.id || (to !== undefined && !isUserId(to));
  if (foreign) return { error: "not_found", ...echo };
  return {
    type: "MARK_AS_READ",
    chat: { user: to as string | undefined, visitor: chatId },
    ...echo,
  };
}

/** Whether JSON nests deeper than any frame does: found out before a parser goes down there. */
function isTooDeep(text: string): boolean {
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '"') quoted = !quoted;
    else if (quoted) at += char === "\\" ? 1 : 0;
    else if (char === "{" || char === "[") depth++;
    else if (char === "}" || char === "]") depth--;
    if (depth > MAX_DEPTH) return true;
  }
  return false;
}

export function errorFrame({ error, ref }: FrameError): string {
  return JSON.stringify({ type: "ERROR", ref, code: error, message: FRAME_ERRORS[error] });
}

export function ackFrame({ id, atMs, ref }: { id: string; atMs: number; ref?: string }): string {
  return JSON.stringify({ type: "ACK", ref, id, timestamp: toTimestamp(atMs) });
}

export function readReceipt(chat: Chat, { by, upTo }: { by: string; upTo: string }): string {
  return JSON.stringify({ type: "READ", chatId: chat.visitor, by, upTo });
}
