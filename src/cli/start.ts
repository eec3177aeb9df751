import { start } from "../main.ts";
import { type Command, readArguments } from "./command.ts";

/** `ws-ticket start`: the same as `bun start`. */
export const command: Command = {
  usage: `ws-ticket start

Starts the server that the environment describes. It logs to stdout, one JSON object a line, until SIGTERM or
SIGINT ends it. Exits with 78 for settings that can't be used.`,
  async run(args, { environment }) {
    readArguments(args, { options: {}, words: [] });
    await start(environment);
    return undefined;
  },
};
