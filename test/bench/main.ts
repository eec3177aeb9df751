/**
 * `bun run bench [section…]`: what the server costs beside others that do the same job, each figure as a ratio
 * to a control that is measured in turn with it, in the same run on the same machine. Absolute rates say more
 * about the machine than about the server. Each section takes at most three minutes.
 */
import { chats } from "./chats.ts";
import { client } from "./client.ts";
import { type Figure, print } from "./figures.ts";
import { admissions, log, peers, redisAdmissions } from "./gate.ts";
import { housekeeping, redisHousekeeping } from "./housekeeping.ts";
import { growth, latency, messages } from "./messages.ts";
import { memory, start } from "./process-cost.ts";

const SECTIONS: Readonly<Record<string, () => Promise<Figure[]>>> = {
  admission: admissions,
  log,
  peers,
  redis: redisAdmissions,
  memory,
  start,
  messages,
  latency,
  growth,
  chats,
  client,
  housekeeping,
  "redis-housekeeping": redisHousekeeping,
};

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !Object.hasOwn(SECTIONS, name));
if (unknown !== undefined) {
  console.error(`No section ${unknown}: there are ${Object.keys(SECTIONS).join(", ")}`);
  process.exit(2);
}

const figures: Figure[] = [];
for (const [name, measure] of Object.entries(SECTIONS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const measured = await measure();
  // At once, too: a long run may be cut off.
  print(measured);
  figures.push(...measured);
}
if (wanted.length !== 1) print(figures);
