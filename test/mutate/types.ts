import { dirname, join } from "node:path";
import type { SourceFile } from "typescript/unstable/ast";
import { API } from "typescript/unstable/async";
import { type Mutant, mutantsOf } from "./mutants.ts";

/** Names that nothing uses any more, code that is never reached, and comparisons that never hold: what a mutant may have. */
const ALLOWED = [6133, 6192, 6196, 6198, 7027, 2367, 2839, 2869, 2871, 2872, 2873];

/** The compiler, over one project. */
export interface Types extends AsyncDisposable {
  mutantsOf(file: string): Promise<Mutant[]>;
  /** Whether the file would still compile, and every other one of the source with it. */
  accepts(mutant: Mutant, text: string): Promise<boolean>;
}

export async function openTypes(
  root: string,
  sources: ReadonlyMap<string, string>,
): Promise<Types> {
  const importers = importersIn(sources);
  const changed = new Map<string, string>();
  const api = new API({ cwd: root, fs: { readFile: (path) => changed.get(path) } });
  const config = join(root, "tsconfig.json");

  async function program(changedFiles: readonly string[]) {
    const fileChanges = { changed: [...changedFiles] };
    const snapshot = await api.updateSnapshot({ openProjects: [config], fileChanges });
    const project = snapshot.getProject(config);
    if (!project) throw new Error(`No project: ${config}`);
    return { program: project.program, [Symbol.asyncDispose]: () => snapshot.dispose() };
  }

  return {
    async mutantsOf(file) {
      await using current = await program([]);
      const source: SourceFile | undefined = await current.program.getSourceFile(join(root, file));
      if (!source) throw new Error(`Not in this project: ${file}`);
      return mutantsOf(file, source);
    },
    async accepts({ file }, text) {
      const path = join(root, file);
      changed.set(path, text);
      try {
        await using current = await program([path]);
        const syntax = await current.program.getSyntacticDiagnostics(path);
        if (syntax.length > 0) return false;
        for (const one of [file, ...(importers.get(file) ?? [])]) {
          const found = await current.program.getSemanticDiagnostics(join(root, one));
          if (!found.every(({ code }) => ALLOWED.includes(code))) return false;
        }
        return true;
      } finally {
        changed.delete(path);
        await using _restored = await program([path]);
      }
    },
    [Symbol.asyncDispose]: () => api.close(),
  };
}

/** The files that import each file. */
function importersIn(sources: ReadonlyMap<string, string>): Map<string, string[]> {
  const importers = new Map<string, string[]>();
  for (const [file, text] of sources) {
    for (const [, path = ""] of text.matchAll(/from "(\.[^"]+)"/g)) {
      const imported = join(dirname(file), path);
      importers.set(imported, [...(importers.get(imported) ?? []), file]);
    }
  }
  return importers;
}
