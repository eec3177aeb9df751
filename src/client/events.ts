import type { Runtime } from "./runtime.ts";

/** Who listens to what. */
export interface Emitter<Events> {
  /** Listens until the returned function is called. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void;
  /** No listener is called any more. */
  clear(): void;
}

export function createEmitter<Events>({
  reportError,
}: Pick<Runtime, "reportError">): Emitter<Events> {
  const all = new Set<{ name: keyof Events; listener: (event: never) => void }>();
  return {
    on(name, listener) {
      const one = { name, listener };
      all.add(one);
      return () => void all.delete(one);
    },
    emit(name, event) {
      for (const one of all) {
        if (one.name !== name) continue;
        try {
          one.listener(event as never);
        } catch (error) {
          // The listeners after it have done nothing wrong.
          reportError(error);
        }
      }
    },
    clear: () => all.clear(),
  };
}
