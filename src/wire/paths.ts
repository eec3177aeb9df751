/** Where the server's routes are, unless it was configured otherwise. */
export const BASE_PATH = "/api/auth";
/** Below the base path. */
export const TICKET_PATH = "/ws-ticket";
export const VISITOR_PATH = "/anonymous-session";
export const SIGN_OUT_PATH = "/sign-out";

export const SOCKET_PATH = "/ws/chat";
export const CHATS_PATH = "/api/chats";

/** Before the paths above, on the server's own pages that have a cookie of their own. */
export const EMBED_PREFIX = "/embed";
export const INBOX_PREFIX = "/inbox";
/** Where a user's JWT is exchanged for the inbox's cookie. */
export const INBOX_SESSION_PATH = "/inbox/api/session";
