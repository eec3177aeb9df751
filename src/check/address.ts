import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson } from "../lib/fetch.ts";
import { faultCode } from "../lib/log.ts";
import { publicPathOf } from "../request/origin.ts";
import { SOCKET_PATH } from "../wire/paths.ts";
import { good, reasonOf, type Report, warning } from "./report.ts";

const SUBJECT = "PUBLIC_URL";
/** Longest response that is read, in bytes. */
const MAX_BYTES = 16 * 1024;

/**
 * Whether the URL that browsers see leads here, with its path. A warning at most: the server may not run yet. Asks
 * where sockets are opened, since a probe is answered at any path.
 */
export async function inspectAddress(url: URL, { clock }: { clock: Clock }): Promise<Report[]> {
  const base = publicPathOf({ publicUrl: url });
  const path = `${base}${SOCKET_PATH}`;
  try {
    const { status, body } = await fetchJson(new URL(path, url), {
      deadlineMs: DEPENDENCY_DEADLINE_MS,
      maxBytes: MAX_BYTES,
      clock,
    });
    const { code } = (body ?? {}) as { code?: unknown };
    if (code === "upgrade_required")
      return [good(SUBJECT, `${url.origin}${base} leads to a server`)];
    const note =
      code === "not_found" && base !== ""
        ? "The server is there, but the proxy takes the path off: forward it as it is"
        : "It leads to something else, or the proxy has no server";
    return [warning(SUBJECT, `${path} answers ${status}`, note)];
  } catch (error) {
    const code = faultCode(error);
    return [warning(SUBJECT, `can't be reached: ${code}`, reasonOf(code))];
  }
}
