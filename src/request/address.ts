import { isLoopback } from "./origin.ts";

/** Some proxies add the port, which changes with every connection: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
const WITH_PORT = /^(?:(\d+(?:\.\d+){3})|\[([\da-f:.]+)\])(?::\d+)?$/i;

/** An IPv4 address as a socket for both families has it. */
const MAPPED_V4 = /^::ffff:(?=\d+(?:\.\d+){3}$)/i;

/**
 * The client's network address: the socket's, or with `trustProxy` proxies in front what the outermost of
 * them saw. Only that entry of `X-Forwarded-For` counts; a client can write anything before it.
 */
export function clientAddress(
  request: Request,
  connection: { readonly socketAddress?: string | undefined },
  trustProxy: number,
): string | undefined {
  // Read only where it counts: finding it out takes as long as a refusal.
  const direct = () => connection.socketAddress?.replace(MAPPED_V4, "");
  if (trustProxy === 0) return direct();
  const hop = lastBut(request.headers.get("x-forwarded-for") ?? "", trustProxy - 1)
    ?.trim()
    .replace(WITH_PORT, "$1$2");
  return hop && /^[\d.a-fA-F:]{2,45}$/.test(hop) ? hop.replace(MAPPED_V4, "") : direct();
}

/**
 * The entry of a list with so many others behind it; `undefined` where there are fewer. Not by splitting: a client can
 * write thousands.
 */
function lastBut(list: string, others: number): string | undefined {
  let end = list.length;
  for (let skipped = 0; skipped < others; skipped++) {
    end = list.slice(0, end).lastIndexOf(",");
    if (end < 0) return undefined;
  }
  return list.slice(list.slice(0, end).lastIndexOf(",") + 1, end);
}

/**
 * The key for limits per address: an IPv4 address, or the /64 network of an IPv6 address (one household has
 * a whole one). `undefined` for loopback: a proxy that speaks for many, or the operator.
 */
export function limitKey(address: string | undefined): string | undefined {
  if (!address || isLoopbackAddress(address)) return undefined;
  const plain = address.replace(MAPPED_V4, "");
  if (/^\d{1,3}(?:\.\d{1,3}){3}$/.test(plain)) return plain;
  const [head = "", tail] = address.toLowerCase().split("::");
  const groups = head.split(":").filter(Boolean);
  const after = tail === undefined ? [] : tail.split(":").filter(Boolean);
  const missing = Math.max(0, 8 - groups.length - after.length);
  return [...groups, ...Array<string>(missing).fill("0"), ...after]
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":");
}

/** Whether an address is this machine's own, in either family. */
export function isLoopbackAddress(address: string): boolean {
  return isLoopback(address.replace(MAPPED_V4, ""));
}
