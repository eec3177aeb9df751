/** What was found out about one setting. */
export interface Report {
  /** `fault`: the server can't work like this; `warn`: it can, and something is open or will surprise. */
  readonly level: "ok" | "warn" | "fault";
  /** The setting, or what of it. */
  readonly subject: string;
  /** What is there, for the eyes of whoever set it. Never a secret. */
  readonly found: string;
  /** What it means, and what to do: a fixed sentence, which the log may say, too. */
  readonly note?: string;
}

export function good(subject: string, found: string): Report {
  return { level: "ok", subject, found };
}

export function warning(subject: string, found: string, note: string): Report {
  return { level: "warn", subject, found, note };
}

export function fault(subject: string, found: string, note: string): Report {
  return { level: "fault", subject, found, note };
}

/** Why something can't be reached, by the code that the log has for it. */
const REASONS: Readonly<Record<string, string>> = {
  wrong_password: "The password or the user is wrong",
  not_permitted: "The user isn't permitted to do this",
  connection_refused: "Nothing listens on that port, or a firewall refuses",
  unknown_host: "No such host name",
  bad_certificate:
    "The certificate isn't trusted: expired, of another host, or of an authority that NODE_EXTRA_CA_CERTS has to name",
  out_of_memory: "It is out of memory",
  read_only: "It can't be written to",
  DeadlineError: "It doesn't respond in time",
};

/** The sentence for a code of `faultCode`. */
export function reasonOf(code: string): string {
  return Object.hasOwn(REASONS, code) ? (REASONS[code] as string) : "It can't be used";
}
