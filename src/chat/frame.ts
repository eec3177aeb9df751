import type { Identity } from "../gate/identity.ts";
import { parseJson } from "../lib/json.ts";
import { isLine, isLines } from "../lib/text.ts";
import {
  type FrameErrorCode,
  MAX_CONTENT_LENGTH,
  MAX_NICKNAME_LENGTH,
  MAX_REF_LENGTH,
  type MessageType,
} from "../wire/frames.ts";
import { isUserId, isVisitorId } from "../wire/ids.ts";
import type { Chat } from "./history.ts";

/** A frame from a client, checked against who sent it. */
export type CheckedFrame =
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
    }
  | { readonly type: "TYPING"; readonly chat: Chat; readonly ref?: string };

/** What is wrong with a frame, and which one it was. */
export interface FrameError {
  readonly error: FrameErrorCode;
  readonly ref?: string;
}

/** Reads one text frame of a sender. Whatever it says about its sender, and unknown fields, are ignored. */
export function readFrame(text: string, sender: Identity): CheckedFrame | FrameError {
  let frame: unknown;
  try {
    frame = parseJson(text);
  } catch {
    return { error: "malformed" };
  }
  if (typeof frame !== "object" || frame === null) return { error: "malformed" };
  const own = (field: string): unknown =>
    Object.hasOwn(frame, field) ? (frame as Record<string, unknown>)[field] : undefined;

  const ref = own("ref");
  if (ref !== undefined && !isLine(ref, MAX_REF_LENGTH)) return { error: "invalid_ref" };
  const echo = ref === undefined ? {} : { ref };
  const type = own("type");
  if (type === "MARK_AS_READ") return readMark(own("chatId"), own("to"), sender, echo);
  const isTyping = type === "TYPING";
  if (!isTyping && type !== "ANON_TO_USER" && type !== "USER_TO_ANON") {
    return { error: "malformed", ...echo };
  }
  const isVisitor = sender.kind === "visitor";
  if (!isTyping && (type === "ANON_TO_USER") !== isVisitor)
    return { error: "not_allowed", ...echo };
  const to = own("to");
  const isRecipient = isVisitor ? isUserId : isVisitorId;
  if (!isRecipient(to)) return { error: "invalid_recipient", ...echo };
  const chat = isVisitor ? { user: to, visitor: sender.id } : { user: sender.id, visitor: to };
  if (isTyping) return { type, chat, ...echo };
  const content = own("content");
  if (!isLines(content, MAX_CONTENT_LENGTH)) return { error: "invalid_content", ...echo };
  const nickname = own("nickname");
  if (nickname !== undefined && !isLine(nickname, MAX_NICKNAME_LENGTH)) {
    return { error: "invalid_nickname", ...echo };
  }
  return { type, chat, content, ...(nickname !== undefined && { nickname }), ...echo };
}

function readMark(
  chatId: unknown,
  to: unknown,
  sender: Identity,
  echo: { ref?: string },
): CheckedFrame | FrameError {
  if (!isVisitorId(chatId)) return { error: "not_found", ...echo };
  if (sender.kind === "user") {
    return { type: "MARK_AS_READ", chat: { user: sender.id, visitor: chatId }, ...echo };
  }
  if (chatId !== sender.id) return { error: "not_found", ...echo };
  if (to !== undefined && !isUserId(to)) return { error: "not_found", ...echo };
  return { type: "MARK_AS_READ", chat: { user: to, visitor: chatId }, ...echo };
}
