import { closeSync, openSync, readFileSync } from "node:fs";

/** Open files that every system allows. */
const USUAL_OPEN_FILES = 1_024;

/** Files that the process may have open, connections included. */
export function maxOpenFiles(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? USUAL_OPEN_FILES);
  } catch {
    return USUAL_OPEN_FILES;
  }
}

/** How many files are open, about: a new one gets the lowest number that is free. */
export function openFiles(): number {
  try {
    const file = openSync("/dev/null", "r");
    closeSync(file);
    return file;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
