/** Why a socket ends, as its Close frame says it (RFC 6455 section 7.4). */
export interface Close {
  /** 4000–4499: reconnect; 4500–4999: don't. */
  readonly code: number;
  /** At most 123 bytes. */
  readonly reason: string;
  /** Whether a client should reconnect by itself, with a new credential. */
  readonly reconnects: boolean;
}

/** What a client acts upon beside the range; numbers of their own, so that it needn't carry the table. */
export const MESSAGE_TOO_BIG = 1009;
export const SERVICE_RESTART = 1012;
export const CREDENTIAL_EXPIRED = 4001;
export const NO_HEARTBEAT = 4002;

/**
 * Every reason for which the server ends a socket. 4000–4499: get a new ticket and reconnect; 4500–4999:
 * don't reconnect by yourself.
 */
export const CLOSE = {
  unsupportedData: { code: 1003, reason: "Text only", reconnects: true },
  messageTooBig: { code: MESSAGE_TOO_BIG, reason: "Message too big", reconnects: true },
  internalError: { code: 1011, reason: "Server error", reconnects: true },
  serviceRestart: { code: SERVICE_RESTART, reason: "Server restarts", reconnects: true },
  missedEvents: { code: SERVICE_RESTART, reason: "Server missed events", reconnects: true },
  credentialExpired: { code: CREDENTIAL_EXPIRED, reason: "Credential expired", reconnects: true },
  noHeartbeat: { code: NO_HEARTBEAT, reason: "No heartbeat", reconnects: true },
  slowReader: { code: 4003, reason: "Reads too slowly", reconnects: true },
  signedOut: { code: 4500, reason: "Signed out", reconnects: false },
  flooding: { code: 4501, reason: "Too many messages", reconnects: false },
  badFrames: { code: 4501, reason: "Too many bad frames", reconnects: false },
  tooManySockets: { code: 4502, reason: "Too many sockets", reconnects: false },
} as const satisfies Record<string, Close>;

/** Whether a client should reconnect by itself after a socket ended with `code`, one of a later version's included. */
export function reconnectsAfter(code: number): boolean {
  return code < 4500;
}
