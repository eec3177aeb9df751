import { type Command, EXIT_CONFIG, readArguments } from "./command.ts";
import { readConfig } from "../config.ts";

/** Longest wait for a response, in milliseconds: more than the server takes to find a store unavailable. */
const DEADLINE_MS = 2_500;

/** `ws-ticket healthcheck`: for containers without curl. */
export const command: Command = {
  usage: `ws-ticket healthcheck

Sends GET /readyz to the server at HOST and PORT, or at UNIX_SOCKET. Exits with 0 when it is ready, otherwise with 1.`,
  async run(args, { environment, report }) {
    readArguments(args, { options: {}, words: [] });
    // Secrets don't matter here, and a container's health check may not have them.
    const { HOST, PORT, UNIX_SOCKET: unix } = environment;
    const read = readConfig({ PORT });
    if (!read.ok || (!unix && read.config.port === 0)) {
      report("ws-ticket: PORT must be the port that the server listens on\n");
      return EXIT_CONFIG;
    }
    const { port } = read.config;
    try {
      const host = unix ? "localhost" : `${reachable(HOST || "127.0.0.1")}:${port}`;
      const response = await fetch(`http://${host}/readyz`, {
        ...(unix && { unix }),
        redirect: "manual",
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
      if (response.status === 200) return 0;
      report(`ws-ticket: not ready: ${response.status}\n`);
    } catch {
      report(`ws-ticket: no response from ${unix || `port ${port}`}\n`);
    }
    return 1;
  },
};

/** A host to connect to, for one to listen on. */
function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
