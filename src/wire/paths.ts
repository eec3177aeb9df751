/** Where the server's routes are, unless it was configured otherwise. */
export const BASE_PATH = "/api/auth";
/** Below the base path. */
export const TICKET_PATH = "/ws-ticket";
export const VISITOR_PATH = "/anonymous-session";
export const SIGN_OUT_PATH = "/sign-out";

export const SOCKET_PATH = "/ws/chat";
export const CHATS_PATH = "/api/chats";
