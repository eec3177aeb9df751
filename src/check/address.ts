import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson } from "../lib/fetch.ts";
import { faultCode } from "../lib/log.ts";
import { good, reasonOf, type Report, warning } from "./report.ts";

const SUBJECT = "PUBLIC_URL";
/** Longest response that is read, in bytes. */
const MAX_BYTES = 16 * 1024;

/** Whether the URL that browsers see leads here. A warning at most: the server may not run yet. */
export async function inspectAddress(url: URL, { clock }: { clock: Clock }): Promise<Report[]> {
  try {
    const { status, body } = await fetchJson(new URL("/healthz", url), {
      deadlineMs: DEPENDENCY_DEADLINE_MS,
      maxBytes: MAX_BYTES,
      clock,
    });
    const isOurs = status === 200 && (body as { status?: unknown } | null)?.status === "ok";
    if (isOurs) return [good(SUBJECT, `${url.origin} leads to a server`)];
    return [
      warning(
        SUBJECT,
        `/healthz answers ${status}`,
        "It leads to something else, or the proxy has no server",
      ),
    ];
  } catch (error) {
    const code = faultCode(error);
    return [warning(SUBJECT, `can't be reached: ${code}`, reasonOf(code))];
  }
}
