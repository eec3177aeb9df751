import { readConfig } from "../config.ts";
import { signToken } from "../gate/token.ts";
import { isUserId } from "../wire/ids.ts";
import { type Command, EXIT_CONFIG, readArguments, UsageError } from "./command.ts";

/** Lifetime of a token, in milliseconds. */
const TTL_MS = 3_600_000;

/** `ws-ticket token USER`: a JWT that this configuration's server accepts. */
export const command: Command = {
  usage: `ws-ticket token USER

Prints a JWT for USER that the server accepts for an hour, signed with JWT_SECRET: to try things out. It has
what JWT_ISSUER, JWT_AUDIENCE and USER_CLAIM require.`,
  async run(args, { environment, print, report }) {
    const {
      words: [user],
    } = readArguments(args, { options: {}, words: ["USER"] });
    if (!isUserId(user)) throw new UsageError("USER must be 1 to 255 characters of one line");
    const read = readConfig(environment);
    if (!read.ok) {
      for (const { variable, note } of read.faults) report(`ws-ticket: ${variable} ${note}\n`);
      return EXIT_CONFIG;
    }
    const { keys, issuer, audience, userClaim } = read.config;
    if (!keys || !("secret" in keys)) {
      report("ws-ticket: JWT_SECRET is required: only its owner can sign\n");
      return EXIT_CONFIG;
    }
    const nowMs = Date.now();
    const claims = {
      iat: Math.floor(nowMs / 1000),
      jti: crypto.randomUUID(),
      ...(issuer !== undefined && { iss: issuer }),
      ...(audience !== undefined && { aud: audience[0] }),
      ...(userClaim === "email" && { email_verified: true }),
      [userClaim]: user,
    };
    const { secret } = keys;
    print(await signToken({ secret, user, expiresAtMs: nowMs + TTL_MS, claims }));
    return 0;
  },
};
