/** How many there are of each key; keys that have none take no memory. */
export interface Counts<Key> {
  of(key: Key): number;
  /** Returns how many there are now. */
  add(key: Key, change: number): number;
}

export function createCounts<Key>(): Counts<Key> {
  const counts = new Map<Key, number>();
  return {
    of: (key) => counts.get(key) ?? 0,
    add(key, change) {
      const count = (counts.get(key) ?? 0) + change;
      if (count > 0) counts.set(key, count);
      else counts.delete(key);
      return count;
    },
  };
}
