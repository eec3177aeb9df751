import type { ConversationMessage, Failure } from "../../client/mod.ts";
import { text, type Word } from "./language.ts";

/** Why a message wasn't taken. */
const MESSAGE_ERRORS: Readonly<Record<string, Word>> = {
  blocked: "notDelivered",
  too_many_messages: "tooMany",
  too_many_recipients: "tooManyPeople",
  too_big: "tooBig",
  too_old: "tooOld",
};

/** Why the connection doesn't come back by itself. */
const FINAL_FAILURES: Readonly<Record<number, Word>> = {
  401: "sessionExpired",
  403: "notAllowed",
  4500: "signedOut",
  4501: "flooded",
  4502: "tooManyTabs",
};

/** Why nobody was signed in. */
const REFUSALS: Readonly<Record<number, Word>> = {
  0: "unreachable",
  401: "tokenInvalid",
  429: "tooManyAttempts",
};

export function describeError(error: ConversationMessage["error"]): string {
  return text(MESSAGE_ERRORS[error ?? ""] ?? "notSent");
}

export function describeFailure({ code }: Failure): string {
  return text(FINAL_FAILURES[code] ?? "disconnected");
}

export function describeRefusal({ code }: Failure): string {
  return text(REFUSALS[code] ?? "refused");
}

/** A visitor's name: what they call themselves, or the beginning of their id. */
export function visitorName(id: string, nickname: string | undefined): string {
  return nickname ?? text("visitor", { id: id.slice(0, 6) });
}

/** A text as the server takes it: tabs and other control characters, as pasting brings them, are no text. */
export function cleanText(given: string): string {
  return given
    .replaceAll(/\r\n?/g, "\n")
    .replaceAll("\t", "    ")
    .replaceAll(/(?!\n)\p{Cc}/gu, "")
    .toWellFormed()
    .trim();
}
