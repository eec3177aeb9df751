import { VISITOR_PATH } from "../../wire/paths.ts";

const LOCK = "ws-ticket:visitor";

/**
 * As `fetch`. Becoming a visitor is done by one tab at a time, so that the next one finds the cookie: two that both
 * had none would be two visitors, and one of them would never find its chat again.
 */
export async function fetchAsVisitor(url: string, init: RequestInit): Promise<Response> {
  // Browsers have locks on secure origins only.
  if (!navigator.locks || !url.endsWith(VISITOR_PATH)) return fetch(url, init);
  const { signal } = init;
  try {
    return await navigator.locks.request(LOCK, signal ? { signal } : {}, () => fetch(url, init));
  } catch (error) {
    // Nor have they any where they keep no cookies.
    if ((error as Error).name === "SecurityError") return fetch(url, init);
    throw error;
  }
}
