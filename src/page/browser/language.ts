import { DE, EN } from "./words.ts";

const TABLES: Readonly<Record<string, typeof EN>> = { en: EN, de: DE };

type Key = keyof typeof EN;
/** A text of its own, and one that depends on a number. */
export type Word = { [K in Key]: (typeof EN)[K] extends string ? K : never }[Key];
type Counted = Exclude<Key, Word>;

/** In a frame, the page around it may have said which language it is in. */
const preferred = [document.documentElement.dataset.lang ?? [], navigator.languages].flat();

/** The first language that the reader prefers and that there are texts in, with the reader's region. */
export const language: string =
  preferred.find((tag) => baseOf(tag) in TABLES) ?? navigator.language;

const base = baseOf(language) in TABLES ? baseOf(language) : "en";
const table = TABLES[base] as typeof EN;
const plurals = new Intl.PluralRules(base);

function baseOf(tag: string): string {
  return tag.split("-", 1)[0]?.toLowerCase() ?? "";
}

/** A text in the reader's language. */
export function text(key: Word, values: Readonly<Record<string, string | number>> = {}): string {
  return fill(table[key], values);
}

/** A text about so many of something. */
export function counted(key: Counted, n: number): string {
  const forms = table[key];
  return fill(plurals.select(n) === "one" ? forms.one : forms.other, { n });
}

/** A text whose `{name}` is an element. */
export function textAround(key: Word, name: Node): (Node | string)[] {
  const [before = "", after = ""] = table[key].split("{name}");
  return [before, name, after];
}

function fill(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replaceAll(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}

/** Puts the server's own texts, which are English, into the reader's language. */
export function translatePage(): void {
  document.documentElement.lang = base;
  if (base === "en") return;
  for (const one of document.querySelectorAll<HTMLElement>("[data-word]")) {
    one.textContent = text(one.dataset.word as Word);
  }
}
