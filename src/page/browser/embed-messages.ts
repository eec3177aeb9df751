/** What the frame tells the page around it. Never a credential, never a text of the chat. */
export type FrameMessage =
  /** It can be shown, and takes the settings below. */
  | { readonly type: "ws-ticket:ready" }
  | { readonly type: "ws-ticket:unread"; readonly count: number }
  /** The visitor wants it closed. */
  | { readonly type: "ws-ticket:close" };

/** What the page around tells the frame. */
export type HostMessage =
  | { readonly type: "ws-ticket:theme"; readonly scheme: string; readonly color: string }
  /** A language tag. */
  | { readonly type: "ws-ticket:locale"; readonly locale: string }
  /** It is shown now. */
  | { readonly type: "ws-ticket:open" };
