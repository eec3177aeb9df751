import { language, text } from "./language.ts";

const clock = new Intl.DateTimeFormat(language, { hour: "numeric", minute: "2-digit" });
const shortDay = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
const longDay = new Intl.DateTimeFormat(language, {
  weekday: "long",
  day: "numeric",
  month: "long",
});
const longDate = new Intl.DateTimeFormat(language, { dateStyle: "long" });
const full = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "short" });

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
  if (days === 0) return text("today");
  if (days === 1) return text("yesterday");
  return days > 1 && days < 180 ? longDay.format(atMs) : longDate.format(atMs);
}

/** When, as short as a list wants it. */
export function whenOf(atMs: number, nowMs: number): string {
  const days = calendarDay(nowMs) - calendarDay(atMs);
  if (days === 0) return clock.format(atMs);
  return days === 1 ? text("yesterday") : shortDay.format(atMs);
}

/** Days since the epoch on the reader's calendar. */
export function calendarDay(atMs: number): number {
  const date = new Date(atMs);
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000;
}
