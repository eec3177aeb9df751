import { join } from "node:path";

const readme = await Bun.file(join(import.meta.dir, "../../README.md")).text();
/** The part on production, as it stands. */
export const section = /\n### In production\n([\s\S]*?)\n### /.exec(readme)?.[1] ?? "";
const blocks = [...section.matchAll(/```\w+\n([\s\S]*?)```/g)].map(([, text = ""]) => text);

/** The one block of the README's part on production that has this text. */
export function blockWith(text: string): string {
  const found = blocks.filter((block) => block.includes(text));
  if (found.length !== 1) throw new Error(`${found.length} blocks of the README have ${text}`);
  return found[0] as string;
}

/** The text with other names, numbers and paths in it. Throws where there is nothing to replace: the README has changed. */
export function fitted(text: string, changes: Readonly<Record<string, string>>): string {
  let result = text;
  for (const [from, to] of Object.entries(changes)) {
    if (!result.includes(from)) throw new Error(`The README's block has no ${from}: ${text}`);
    result = result.replaceAll(from, to);
  }
  return result;
}
