import type { Identity } from "../../src/gate/identity.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketRecord, TicketStore } from "../../src/gate/store.ts";
import { fakeClock } from "./clock.ts";

/** A record as it is stored for a ticket of alice's, unless `identity` says otherwise. */
export function recordOf(hash: string, identity: Partial<Identity> = {}): TicketRecord {
  return {
    hash,
    purpose: "socket",
    expiresAtMs: 1_800_000_000_000,
    identity: {
      kind: "user",
      id: "alice",
      session: "session",
      issuedAtMs: 1_700_000_000_000,
      expiresAtMs: 2 ** 53 - 1,
      ...identity,
    },
  };
}

/** A new hash, as of a new ticket. */
export function newHash(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
}

/** A ticket store that records its calls and can hold back takes. */
export interface WatchedStore extends TicketStore {
  /** Hashes that `take` was called with so far. */
  readonly takes: readonly string[];
  /** What `put` was called with so far. */
  readonly puts: readonly { hash: string; record: TicketRecord; ttlMs: number }[];
  /** Holds back the takes that come from now on. */
  hold(): {
    /** Resolves when the first of them has come. */
    readonly asked: Promise<void>;
    /** Lets them go on, and holds back no more. */
    release(): void;
  };
}

export function watchStore(store: TicketStore): WatchedStore {
  const takes: string[] = [];
  const puts: { hash: string; record: TicketRecord; ttlMs: number }[] = [];
  let onTake: (() => Promise<void>) | undefined;
  return {
    ...store,
    takes,
    puts,
    hold() {
      const asked = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      onTake = () => {
        asked.resolve();
        return released.promise;
      };
      return {
        asked: asked.promise,
        release() {
          onTake = undefined;
          released.resolve();
        },
      };
    },
    put(hash, record, ttlMs) {
      puts.push({ hash, record, ttlMs });
      return store.put(hash, record, ttlMs);
    },
    async take(hash) {
      takes.push(hash);
      await onTake?.();
      return store.take(hash);
    },
  };
}

/** A store whose own clock stands still, so that only what is in the records ends them; it outlives its servers. */
export function lastingStore(): TicketStore {
  return { ...memoryTicketStore({ clock: fakeClock() }), async close() {} };
}
