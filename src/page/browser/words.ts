import type { ConversationMessage, Failure } from "../../client/mod.ts";

/** Why a message wasn't taken, for the one who wrote it. */
const MESSAGE_ERRORS: Readonly<Record<string, string>> = {
  blocked: "Not sent: your messages aren’t wanted here",
  too_many_messages: "Not sent: too many messages; wait for an answer, or a while",
  too_many_recipients: "Not sent: you have written to too many people who never answered",
  too_big: "Not sent: too long",
};

/** Why the connection doesn't come back by itself. */
const FINAL_FAILURES: Readonly<Record<number, string>> = {
  401: "Session has ended",
  403: "This page may not connect. If you run the server, set PUBLIC_URL to its address",
  4500: "Signed out",
  4501: "Disconnected: too many messages at once",
  4502: "Disconnected: open in too many tabs",
};

export function describeError(error: ConversationMessage["error"]): string {
  return MESSAGE_ERRORS[error ?? ""] ?? "Not sent: the server refused it";
}

export function describeFailure({ code }: Failure): string {
  return FINAL_FAILURES[code] ?? "Disconnected";
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const longDay = new Intl.DateTimeFormat(undefined, {
  weekday: "long",
  day: "numeric",
  month: "long",
});
const longDate = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });

/** A time of day, in the reader's zone and way of writing. */
export function timeOf(atMs: number): string {
  return clock.format(atMs);
}

export function fullTimeOf(atMs: number): string {
  return full.format(atMs);
}

/** A day as people say it: Today, Yesterday, or its date. */
export function dayOf(atMs: number, nowMs: number): string {
  const days = calendarDay(nowMs) - calendarDay(atMs);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return days > 1 && days < 180 ? longDay.format(atMs) : longDate.format(atMs);
}

/** When, as short as a list wants it. */
export function whenOf(atMs: number, nowMs: number): string {
  const days = calendarDay(nowMs) - calendarDay(atMs);
  if (days === 0) return clock.format(atMs);
  return days === 1 ? "Yesterday" : shortDay.format(atMs);
}

/** Days since the epoch on the reader's calendar. */
function calendarDay(atMs: number): number {
  const date = new Date(atMs);
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000;
}

/** A visitor's name: what they call themselves, or the beginning of their id. */
export function visitorName(id: string, nickname: string | undefined): string {
  return nickname ?? `Visitor ${id.slice(0, 6)}`;
}

/** A text as the server takes it: tabs and other control characters, as pasting brings them, are no text. */
export function cleanText(text: string): string {
  return text
    .replaceAll(/\r\n?/g, "\n")
    .replaceAll("\t", "    ")
    .replaceAll(/(?!\n)\p{Cc}/gu, "")
    .toWellFormed()
    .trim();
}
