import { CHATS_PATH, EMBED_PREFIX, INBOX_PREFIX, SOCKET_PATH } from "../wire/paths.ts";

/**
 * Which of the server's own pages a request is from, as its path says: the site's, in a frame on another site,
 * or the inbox. Each has a cookie of its own, and no other cookie of ours is read there.
 */
export type Scope = "site" | "embed" | "inbox";

const PREFIXES = { embed: EMBED_PREFIX, inbox: INBOX_PREFIX } as const;

/** What comes with a scope that is served, beside `site`. */
export interface ScopePolicy {
  /** Default: `site` alone. */
  readonly scopes?: ReadonlySet<Scope> | undefined;
  /** Where the gate's routes are. */
  readonly basePath?: string | undefined;
}

/**
 * The scope of a path, and the path without its prefix where the route is the same in every scope: those of the
 * gate, of the chats and of the sockets.
 */
export function readScope(path: string, policy: ScopePolicy): { scope: Scope; path: string } {
  for (const scope of ["embed", "inbox"] as const) {
    const prefix = PREFIXES[scope];
    if (!path.startsWith(`${prefix}/`) || !policy.scopes?.has(scope)) continue;
    const rest = path.slice(prefix.length);
    const isShared =
      rest === SOCKET_PATH ||
      rest === CHATS_PATH ||
      rest.startsWith(`${CHATS_PATH}/`) ||
      (policy.basePath !== undefined && rest.startsWith(`${policy.basePath}/`));
    return { scope, path: isShared ? rest : path };
  }
  return { scope: "site", path };
}
