import type { Asking, People } from "./people.ts";
import { visitorIdOf } from "./people.ts";
import type { Frame, TestSocket } from "./socket.ts";

/** Whose tab it is: a user, or a visitor by the cookie. */
export type Who = { readonly user: string } | { readonly cookie: string };

export function idOf(who: Who): string {
  return "user" in who ? who.user : visitorIdOf(who.cookie);
}

/** A frame that writes `content` to a peer. */
export function frameTo(who: Who, to: string, content: string, ref?: string): Frame {
  return { type: "user" in who ? "USER_TO_ANON" : "ANON_TO_USER", to, content, ref };
}

/** A person's open page: what it has seen of each chat, whatever happened to its socket in between. */
export interface Tab {
  readonly who: Who;
  /** The socket, while there is one. */
  readonly socket: TestSocket | undefined;
  /** Every message seen so far in the chat with `peer`, in the order of their ids, each once. */
  messages(peer: string): readonly Frame[];
  /** Opens a socket, and only then asks for what came after the last message that it has seen. */
  resume(peers: readonly string[]): Promise<void>;
  leave(): Promise<void>;
  /** Sends until there is an acknowledgement, whose id comes back. Other errors reject. */
  say(to: string, content: string, ref?: string): Promise<string>;
}

/** Pause before a message that couldn't be kept is sent again, in milliseconds. */
const RESEND_MS = 50;

export function createTab(people: People, who: Who): Tab {
  const asking: Asking = who;
  const chats = new Map<string, Map<string, Frame>>();
  let socket: TestSocket | undefined;

  function take(message: Frame): void {
    const peer = message.from === idOf(who) ? message.to : message.from;
    const seen = chats.get(peer) ?? new Map<string, Frame>();
    chats.set(peer, seen.set(message.id, message));
  }

  function messages(peer: string): Frame[] {
    return [...(chats.get(peer)?.values() ?? [])].sort((a, b) => Number(a.id) - Number(b.id));
  }

  async function catchUp(peer: string, after: string): Promise<void> {
    const path = `/api/chats/${encodeURIComponent(peer)}/messages?limit=200&after=${after}`;
    const { status, body } = await people.ask(path, asking);
    if (status === 404) return;
    for (const message of body.messages) take(message);
    if (body.more) await catchUp(peer, body.messages.at(-1).id);
  }

  return {
    who,
    get socket() {
      return socket;
    },
    messages,
    async resume(peers) {
      const seen = peers.map((peer) => messages(peer).at(-1)?.id ?? "0");
      socket = await ("user" in who ? people.openUser(who.user) : people.openVisitor(who.cookie));
      socket.onFrame((frame) => {
        if (frame.type === "ANON_TO_USER" || frame.type === "USER_TO_ANON") take(frame);
      });
      await Promise.all(peers.map((peer, at) => catchUp(peer, seen[at] as string)));
    },
    async leave() {
      await socket?.[Symbol.asyncDispose]();
      socket = undefined;
    },
    async say(to, content, ref = crypto.randomUUID()) {
      for (;;) {
        const current = socket as TestSocket;
        current.send(frameTo(who, to, content, ref));
        const answer = await current.next((frame) => frame.ref === ref);
        if (answer.type === "ACK") return answer.id;
        if (answer.code !== "unavailable") throw new Error(`Message wasn't kept: ${answer.code}`);
        await Bun.sleep(RESEND_MS);
      }
    },
  };
}
