import type { ConversationMessage, Outbox, Unsent } from "./conversation.ts";
import { completeRuntime, type Runtime } from "./runtime.ts";

/** As much of a `Storage` as is needed. */
export interface TextStorage {
  /** The text under this key, if there is any. */
  getItem(key: string): string | null;
  /** May throw when there is no room. */
  setItem(key: string, text: string): void;
  /** Removes what is under this key. */
  removeItem(key: string): void;
}

/** Where texts are kept, and whose they are. */
export interface StorageOptions {
  /** The user's id, or any other name for whoever writes: what one has written is never sent as another. */
  readonly owner: string;
  /** Default: the tab's `sessionStorage`. Tabs must not share one, or each writes over what the others have kept. */
  readonly storage?: TextStorage | undefined;
}

/** Half-written texts, by whom they are for. */
export interface Drafts {
  /** The text for `peer`; empty where there is none. */
  get(peer: string): string;
  /** Keeps the text for `peer`; an empty one removes it. */
  set(peer: string, text: string): void;
  /** Forgets all of them, as after a sign-out. */
  clear(): void;
}

/** Longest JSON of unsent messages, in UTF-16 code units: about 60 of the longest. */
const MAX_OUTBOX_LENGTH = 256_000;
/** Longest text of all drafts together, in UTF-16 code units. The oldest go first. */
const MAX_DRAFTS_LENGTH = 64_000;
/** A message that may have been stored is sent again no later, in milliseconds: the server forgets its ref after 48 hours. */
const MAX_AGE_MS = 40 * 3_600_000;

/**
 * Keeps messages that the server hasn't acknowledged: for the `outbox` of `createChatClient`, which sends them
 * after a reload, or when the same person has signed in again, under the same refs, so that none is stored
 * twice. Never throws: what can't be stored lives as long as the page.
 *
 * @example
 * const outbox = createOutbox({ owner: session.userId });
 * const chat = createChatClient({ getToken: () => session.jwt, outbox });
 */
export function createOutbox(
  options: StorageOptions & { runtime?: Partial<Runtime> | undefined },
): Outbox {
  const slot = openSlot("outbox", options);
  const { nowMs } = completeRuntime(options.runtime);
  return {
    load() {
      const found = slot.read();
      const unsent: Unsent[] = Array.isArray(found) ? found.filter(isUnsent) : [];
      return unsent.map((one) => (nowMs() - one.message.atMs < MAX_AGE_MS ? one : refused(one)));
    },
    save(messages) {
      const kept: Unsent[] = [];
      let length = 0;
      for (const { peer, message } of messages) {
        length += JSON.stringify(message).length + peer.length;
        // Those after it would overtake it.
        if (length > MAX_OUTBOX_LENGTH) break;
        kept.push({ peer, message });
      }
      slot.write(kept.length > 0 ? kept : undefined);
    },
    clear: () => slot.write(undefined),
  };
}

/**
 * Keeps half-written texts over a change of chats, a reload and a new sign-in. Never throws.
 *
 * @example
 * const drafts = createDrafts({ owner: session.userId });
 * field.value = drafts.get(peer);
 * field.oninput = () => drafts.set(peer, field.value);
 */
export function createDrafts(options: StorageOptions): Drafts {
  const slot = openSlot("drafts", options);
  const found = slot.read();
  const texts = new Map<string, string>(
    Array.isArray(found) ? found.filter((one) => typeof one?.[1] === "string") : [],
  );

  function write(): void {
    let length = 0;
    for (const text of texts.values()) length += text.length;
    for (const [peer, text] of texts) {
      if (length <= MAX_DRAFTS_LENGTH || texts.size === 1) break;
      texts.delete(peer);
      length -= text.length;
    }
    slot.write(texts.size > 0 ? [...texts] : undefined);
  }

  return {
    get: (peer) => texts.get(peer) ?? "",
    set(peer, text) {
      // The newest last.
      texts.delete(peer);
      if (text !== "") texts.set(peer, text);
      write();
    },
    clear() {
      texts.clear();
      write();
    },
  };
}

/** One value in a storage; none where that is missing, blocked, full or damaged. */
function openSlot(
  name: string,
  { owner, storage }: StorageOptions,
): { read(): unknown; write(value: unknown): void } {
  const key = `ws-ticket:${name}:${owner}`;
  // A browser that blocks cookies throws as soon as its storage is mentioned.
  const place = () => storage ?? (globalThis as { sessionStorage?: TextStorage }).sessionStorage;
  return {
    read() {
      try {
        return JSON.parse(place()?.getItem(key) ?? "null");
      } catch {
        return undefined;
      }
    },
    write(value) {
      try {
        if (value === undefined) place()?.removeItem(key);
        else place()?.setItem(key, JSON.stringify(value));
      } catch {
        // It lives as long as the page.
      }
    },
  };
}

function isUnsent(value: Unsent | null | undefined): value is Unsent {
  const { peer, message }: { peer?: unknown; message?: Partial<ConversationMessage> } = value ?? {};
  return [peer, message?.key, message?.content].every((text) => typeof text === "string");
}

/** What is too old isn't sent by itself any more: the server may have it, and may not recognise it. */
function refused({ peer, message }: Unsent): Unsent {
  return { peer, message: { ...message, status: "failed", error: "too_old" } };
}
