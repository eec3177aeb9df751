/** One abuser, in a process of its own: runs one attack, as it is told over IPC. */
import { type Abuser, ATTACKS, type Attack, type Tally } from "./attacks.ts";
import { type Client, clientAt } from "./client.ts";

export interface AbuserJob {
  /** `control`: as many requests at once as the attack had, all for the cheapest answer that there is. */
  readonly kind: "prepare" | "attack" | "control";
  readonly attack: string;
  readonly origins: readonly string[];
  readonly name: string;
  readonly address: string;
  readonly seconds: number;
  /** Attempts that there must be, on a machine that is slow, too. */
  readonly least: number;
}

export type AbuserOutcome = Tally | { readonly fault: string };

let prepared: ((abuser: Abuser) => Promise<Tally>) | undefined;
/** Attempts that the attack has in progress. */
let mostAtOnce = 1;

process.on("message", async ({ kind, attack: attackName, ...job }: AbuserJob) => {
  const { prepare, run } = ATTACKS[attackName] as Attack;
  const abuser = abuserOf(job);
  try {
    if (kind === "prepare") {
      prepared = prepare ? await prepare(abuser) : run;
      process.send?.({ attempts: 0, through: 0 });
    } else if (kind === "attack") {
      process.send?.(await prepared?.(abuser));
    } else {
      process.send?.(await abuser.flood(mostAtOnce, isAlive));
    }
  } catch (error) {
    process.send?.({ fault: (error as Error).message });
  }
});

async function isAlive(_: number, client: Client): Promise<boolean> {
  return (await client.ask("/healthz")).status === 200;
}

/** How much longer than the time an attack may take to make its attempts. */
const PATIENCE = 10;

function abuserOf({
  origins,
  name,
  address,
  seconds,
  least,
}: Omit<AbuserJob, "kind" | "attack">): Abuser {
  const clients = origins.map((origin) => clientAt(origin, address));
  const startMs = performance.now();
  const isOver = (attempts: number) => {
    const passedMs = performance.now() - startMs;
    return passedMs > seconds * 1000 * (attempts < least ? PATIENCE : 1);
  };
  return {
    clients: clients as unknown as Abuser["clients"],
    ...{ address, seconds, name },
    async flood(atOnce, attempt) {
      mostAtOnce = Math.max(mostAtOnce, atOnce);
      let attempts = 0;
      let through = 0;
      let fault: Error | undefined;
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          while (!isOver(attempts)) {
            const n = attempts++;
            const client = clients[n % clients.length] as Abuser["clients"][0];
            try {
              if (await attempt(n, client)) through++;
            } catch (error) {
              // A refusal, or a connection that was ended.
              if (!isExpected(error as Error)) fault = error as Error;
            }
          }
        }),
      );
      if (fault) throw fault;
      return { attempts, through };
    },
  };
}

/** What a server does to a client that is refused; anything else is a mistake of the attack's, or of the server's. */
function isExpected({ message, name, code }: Error & { code?: string }): boolean {
  return (
    /^(No (ticket|cookie|socket|answer)|Socket (is closed|closed)|Connection ended)/.test(
      message,
    ) || /Connection|socket|ECONN|Failed to connect/.test(`${name} ${code} ${message}`)
  );
}
