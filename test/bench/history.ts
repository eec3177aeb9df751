/** Histories in this process, to be filled and looked at. */
import { type Appended, type ChatHistory, type Draft, FAILING_MS } from "../../src/chat/history.ts";

/** How often one message is tried. */
const MAX_ATTEMPTS = 10;

/** A visitor's id. */
export function visitorId(number: number): string {
  return String(number).padStart(21, "0") + "A";
}

/** Stores many messages, several at once. */
export async function fill(
  history: ChatHistory,
  { count, atOnce = 500 }: { count: number; atOnce?: number | undefined },
  draft: (number: number) => Draft,
): Promise<void> {
  for (let number = 0; number < count; number += atOnce) {
    const drafts = Array.from({ length: Math.min(atOnce, count - number) }, (_, at) =>
      draft(number + at),
    );
    const stored = await Promise.all(drafts.map((one) => store(history, one)));
    const refused = stored.find(({ ok }) => !ok);
    if (refused) throw new Error(`Not stored: ${JSON.stringify(refused)}`);
  }
}

/** Stores one message, again and again where the machine is too busy to do it in time. */
async function store(history: ChatHistory, draft: Draft): Promise<Appended> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await history.append(draft);
    } catch (error) {
      if (attempt === MAX_ATTEMPTS) throw error;
      await Bun.sleep(FAILING_MS);
    }
  }
}

/** The longest time that the event loop is held up while `work` lasts, in milliseconds. */
export async function longestStallMs(work: Promise<unknown>): Promise<number> {
  let isDone = false;
  work.finally(() => {
    isDone = true;
  });
  let longestMs = 0;
  for (let lastMs = performance.now(); !isDone;) {
    await new Promise((resolve) => setImmediate(resolve));
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
  }
  await work;
  return longestMs;
}
