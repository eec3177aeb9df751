/** One abuser, in a process of its own: runs one attack after the other, as it is told over IPC. */
import { type Abuser, ATTACKS, type Tally } from "./attacks.ts";
import { clientAt } from "./client.ts";

export interface AbuserJob {
  readonly attack: string;
  readonly origins: readonly string[];
  /** A number of its own, for its name and its address. */
  readonly number: number;
  readonly seconds: number;
}

export type AbuserOutcome = Tally | { readonly fault: string };

process.on("message", async ({ attack, origins, number, seconds }: AbuserJob) => {
  const address = `203.0.113.${number}`;
  const clients = origins.map((origin) => clientAt(origin, address));
  const abuser: Abuser = {
    clients: clients as unknown as Abuser["clients"],
    ...{ address, seconds, name: `abuser ${number}` },
    async flood(atOnce, attempt) {
      const endMs = performance.now() + seconds * 1000;
      let attempts = 0;
      let through = 0;
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          while (performance.now() < endMs) {
            const n = attempts++;
            const client = clients[n % clients.length] as Abuser["clients"][0];
            // A refusal, or a connection that was ended.
            if (await attempt(n, client).catch(() => false)) through++;
          }
        }),
      );
      return { attempts, through };
    },
  };
  const outcome: AbuserOutcome = await (ATTACKS[attack] as (typeof ATTACKS)[string])
    .run(abuser)
    .catch((error: Error) => ({ fault: error.message }));
  process.send?.(outcome);
});
