import { parseArgs, type ParseArgsConfig } from "node:util";
import type { Environment } from "../config.ts";

/** Where a command is run. */
export interface Terminal {
  readonly environment: Environment;
  /** Writes a line to stdout. */
  print(line: string): void;
  /** Writes to stderr, as it is. */
  report(text: string): void;
  /** Whether somebody watches stderr, so that a line can be written over. */
  readonly isWatched: boolean;
}

/** One of the words that follow `ws-ticket`. */
export interface Command {
  /** How it is called, and what its options mean. */
  readonly usage: string;
  /** The exit code; `undefined` for a command that goes on. Throws a `UsageError`. */
  run(args: readonly string[], terminal: Terminal): Promise<number | undefined>;
}

/** A command was called wrongly. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Exit code for a command that was called wrongly. */
export const EXIT_USAGE = 2;
/** Exit code for a configuration that can't be used (sysexits.h, EX_CONFIG). */
export const EXIT_CONFIG = 78;

type Options = NonNullable<ParseArgsConfig["options"]>;
type Values<T extends Options> = ReturnType<
  typeof parseArgs<{ args: string[]; options: T; allowPositionals: true }>
>["values"];

/**
 * Reads a command's arguments: these options, and exactly as many words as have a name here. Throws a
 * `UsageError` for anything else.
 */
export function readArguments<T extends Options>(
  args: readonly string[],
  { options, words }: { options: T; words: readonly string[] },
): { values: Values<T>; words: string[] } {
  const { values, positionals } = parse(args, options);
  const missing = words[positionals.length];
  if (missing !== undefined) throw new UsageError(`${missing} is missing`);
  const unknown = positionals[words.length];
  if (unknown !== undefined) throw new UsageError(`Unknown argument: ${unknown}`);
  return { values, words: positionals };
}

function parse<T extends Options>(args: readonly string[], options: T) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    const { message } = error as Error;
    // What follows the first sentence is advice on writing "--" in front of words.
    throw new UsageError(message.split(". ")[0] ?? message);
  }
}
