import { expect, test } from "bun:test";
import fc from "fast-check";
import { MAX_UNANSWERED, MAX_UNANSWERED_MESSAGES } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { fakeClock } from "../support/clock.ts";
import { repeats } from "../support/repeat.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Frame, TestSocket } from "../support/socket.ts";
import { createTab, frameTo, idOf, type Tab, type Who } from "../support/tab.ts";

const USERS = 2;
const VISITORS = 2;
/** Users who are written to and never come. */
const GHOSTS = MAX_UNANSWERED + 2;
/** Tabs of each person. */
const TABS = 2;

/** One of the chats there are, and from which side it is looked at. Users from `USERS` on are ghosts. */
interface At {
  readonly user: number;
  readonly visitor: number;
  readonly side: "user" | "visitor";
}

type Step =
  /** Several messages at once, from tabs wherever there are open ones, while a tab comes back. */
  | {
      readonly kind: "talk";
      readonly sends: readonly (At & { tab: number })[];
      readonly back: number | undefined;
    }
  /** One of the messages before, sent again. */
  | { readonly kind: "resend"; readonly which: number; readonly tab: number }
  | { readonly kind: "leave" | "resume"; readonly tab: number }
  | ({ readonly kind: "read" | "readByFrame" | "remove" } & At)
  | ({ readonly kind: "block" | "unblock" } & Omit<At, "side">);

const user = fc.nat(USERS - 1);
const visitor = fc.nat(VISITORS - 1);
const side = fc.constantFrom("user", "visitor");
const tab = fc.nat((USERS + VISITORS) * TABS - 1);
const at = { user, visitor, side };
const ghost = fc.integer({ min: USERS, max: USERS + GHOSTS - 1 });
const anyUser = fc.nat(USERS + GHOSTS - 1);
const toGhost = { user: ghost, side: fc.constant("visitor") };
const anybody = fc.oneof({ weight: 3, arbitrary: user }, { weight: 1, arbitrary: ghost });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("talk"),
        sends: fc.array(
          fc.oneof(
            { weight: 5, arbitrary: fc.record({ ...at, tab: fc.nat(TABS - 1) }) },
            { weight: 1, arbitrary: fc.record({ ...at, ...toGhost, tab: fc.nat(TABS - 1) }) },
          ),
          { minLength: 1, maxLength: 6 },
        ),
        back: fc.option(tab, { nil: undefined }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("talk"),
        // One visitor writes to many: the limit is near.
        sends: fc
          .record({ visitor, users: fc.uniqueArray(anyUser, { minLength: 3, maxLength: 12 }) })
          .map(({ visitor, users }) =>
            users.map((user, n) => ({ user, visitor, side: "visitor", tab: n % TABS })),
          ),
        back: fc.constant(undefined),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("talk"),
        // One visitor writes to one user: that limit is near, too.
        sends: fc
          .record({ visitor, user: anybody, count: fc.integer({ min: 5, max: 15 }) })
          .map(({ visitor, user, count }) =>
            Array.from({ length: count }, (_, n) => {
              return { user, visitor, side: "visitor", tab: n % TABS };
            }),
          ),
        back: fc.constant(undefined),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("resend"), which: fc.nat(), tab: fc.nat() }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom("leave", "resume"), tab }) },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constantFrom("read", "readByFrame", "remove"),
        ...{ ...at, user: anybody },
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constantFrom("block", "unblock"), user, visitor }),
    },
  ) as fc.Arbitrary<Step>,
  { minLength: 1, maxLength: 25, size: "max" },
);

/** What a chat is, in the simplest words. */
interface ModelChat {
  messages: { readonly id: string; readonly content: string; readonly from: At["side"] }[];
  isAnswered: boolean;
  readUpTo: { user: string; visitor: string };
  unread: { user: number; visitor: number };
}

interface Sent extends At {
  readonly ref: string;
  readonly id: string;
}

type Refused = "blocked" | "not_found" | "too_many_messages" | "too_many_recipients";

type Outcome = Sent & { readonly type: string; readonly code?: string };

/** The server, and what should be true of it. */
class World {
  readonly people: Who[] = [];
  readonly tabs: Tab[] = [];
  /** What each tab should have seen, by peer. */
  readonly expected: Map<string, string[]>[] = [];
  /** What each tab's present socket should have heard of reading. */
  readonly receipts: string[][] = [];
  readonly chats = new Map<string, ModelChat>();
  readonly blocked = new Set<string>();
  /** By visitor, the users who have never answered, and how much was written to them. */
  readonly unanswered = Array.from({ length: VISITORS }, () => new Map<number, number>());
  readonly sent: Sent[] = [];
  private count = 0;
  private readonly server: TestServer;

  constructor(server: TestServer) {
    this.server = server;
  }

  async begin(): Promise<void> {
    for (let n = 0; n < USERS; n++) this.people.push({ user: `user ${n}` });
    for (let n = 0; n < VISITORS; n++) {
      this.people.push({ cookie: await this.server.visitorCookie() });
    }
    const withTabs = [...this.people];
    for (let n = 0; n < GHOSTS; n++) this.people.push({ user: `ghost ${n}` });
    for (const who of withTabs) {
      for (let n = 0; n < TABS; n++) {
        this.tabs.push(createTab(this.server, who));
        this.expected.push(new Map());
        this.receipts.push([]);
      }
    }
    for (const [n] of this.tabs.entries()) await this.resume(n);
  }

  personOf({ side, user, visitor }: At): number {
    if (side === "visitor") return USERS + visitor;
    return user < USERS ? user : VISITORS + user;
  }
  peerOf({ side, ...chat }: At): string {
    const other = side === "user" ? "visitor" : "user";
    return idOf(this.people[this.personOf({ ...chat, side: other })] as Who);
  }
  who(where: At): Who {
    return this.people[this.personOf(where)] as Who;
  }
  key({ user, visitor }: Pick<At, "user" | "visitor">): string {
    return `${user} ${visitor}`;
  }
  path(where: At): string {
    return `/api/chats/${encodeURIComponent(this.peerOf(where))}`;
  }

  /** Tabs of both sides, as places in the list of tabs. */
  tabsOf({ user, visitor }: Pick<At, "user" | "visitor">): number[] {
    const people = [...(user < USERS ? [user] : []), USERS + visitor];
    return people.flatMap((person) => Array.from({ length: TABS }, (_, n) => person * TABS + n));
  }

  /** How the chat is called by whom a tab belongs to. */
  peerFor(tabAt: number, { user, visitor }: Pick<At, "user" | "visitor">): string {
    const isUsers = tabAt < USERS * TABS;
    return this.peerOf({ user, visitor, side: isUsers ? "user" : "visitor" });
  }

  peersOf(tabAt: number): string[] {
    const side = tabAt < USERS * TABS ? "user" : "visitor";
    return this.people.filter((who) => "user" in who !== (side === "user")).map(idOf);
  }

  see(tabAt: number, peer: string, id: string): void {
    const seen = this.expected[tabAt]?.get(peer) ?? [];
    if (!seen.includes(id)) this.expected[tabAt]?.set(peer, [...seen, id]);
  }

  async resume(tabAt: number): Promise<void> {
    const tab = this.tabs[tabAt] as Tab;
    if (tab.socket) return;
    this.receipts[tabAt] = [];
    // What is in the log and newer than what it saw; what is deleted meanwhile it has missed for good.
    for (const where of this.all()) {
      if (!this.tabsOf(where).includes(tabAt)) continue;
      const peer = this.peerFor(tabAt, where);
      const last = Number(this.expected[tabAt]?.get(peer)?.at(-1) ?? 0);
      for (const { id } of this.chats.get(this.key(where))?.messages ?? []) {
        if (Number(id) > last) this.see(tabAt, peer, id);
      }
    }
    await tab.resume(this.peersOf(tabAt));
  }

  all(): Pick<At, "user" | "visitor">[] {
    return Array.from({ length: (USERS + GHOSTS) * VISITORS }, (_, n) => ({
      user: Math.floor(n / VISITORS),
      visitor: n % VISITORS,
    }));
  }

  /** An open tab of a person, if there is one. */
  openTab(person: number, preferred: number): Tab | undefined {
    const own = this.tabs.slice(person * TABS, (person + 1) * TABS);
    const open = own.filter(({ socket }) => socket);
    return open[preferred % Math.max(1, open.length)];
  }

  async talk(sends: readonly (At & { tab: number })[], back: number | undefined): Promise<void> {
    const asked = sends.flatMap((where) => {
      const tab = this.openTab(this.personOf(where), where.tab);
      const ref = `message ${++this.count}`;
      if (!tab) return [];
      (tab.socket as TestSocket).send(frameTo(tab.who, this.peerOf(where), ref, ref));
      return [{ where, ref, socket: tab.socket as TestSocket }];
    });
    const resuming = back === undefined ? undefined : this.resume(back);
    const answers = await Promise.all(
      asked.map(({ ref, socket }) => socket.next((frame) => frame.ref === ref)),
    );
    await resuming;
    const outcomes: Outcome[] = asked.map(({ where, ref }, n) => ({
      ...(answers[n] as Pick<Outcome, "id" | "type" | "code">),
      ...where,
      ref,
    }));
    const stored = outcomes.filter(({ type }) => type === "ACK");
    const refused = outcomes.filter(({ type }) => type !== "ACK");
    // Nothing says when the server came to the refused ones: each was right at some time in between.
    const reasons = refused.map((where) => [this.refusal(where)]);
    for (const { id, ref, type: _, ...where } of stored.sort(
      (a, b) => Number(a.id) - Number(b.id),
    )) {
      expect(this.refusal(where)).toBeUndefined();
      this.store({ ...where, ref, id });
      for (const [n, one] of refused.entries()) reasons[n]?.push(this.refusal(one));
    }
    for (const [n, { code }] of refused.entries()) expect(reasons[n]).toContain(code as Refused);
  }

  /** Why a message can't be stored now. */
  refusal(where: At): Refused | undefined {
    const chat = this.chats.get(this.key(where));
    if (where.side === "user") return chat ? undefined : "not_found";
    if (this.blocked.has(this.key(where))) return "blocked";
    if (chat?.isAnswered) return undefined;
    const unanswered = this.unanswered[where.visitor] as Map<number, number>;
    const written = unanswered.get(where.user);
    if (written === MAX_UNANSWERED_MESSAGES) return "too_many_messages";
    const isNew = written === undefined;
    return isNew && unanswered.size >= MAX_UNANSWERED ? "too_many_recipients" : undefined;
  }

  store({ id, ref, ...where }: Sent): void {
    this.sent.push({ ...where, ref, id });
    const unanswered = this.unanswered[where.visitor] as Map<number, number>;
    const chat = this.chats.get(this.key(where)) ?? {
      ...{ messages: [], readUpTo: { user: "0", visitor: "0" }, unread: { user: 0, visitor: 0 } },
      isAnswered: false,
    };
    this.chats.set(this.key(where), chat);
    if (where.side === "user") {
      chat.isAnswered = true;
      unanswered.delete(where.user);
    } else if (!chat.isAnswered) {
      unanswered.set(where.user, (unanswered.get(where.user) ?? 0) + 1);
    }
    chat.messages.push({ id, content: ref, from: where.side });
    chat.unread[where.side === "user" ? "visitor" : "user"]++;
    for (const tabAt of this.tabsOf(where)) {
      if (this.tabs[tabAt]?.socket) this.see(tabAt, this.peerFor(tabAt, where), id);
    }
  }

  async resend(which: number, preferred: number): Promise<void> {
    const before = this.sent[which % Math.max(1, this.sent.length)];
    const tab = before && this.openTab(this.personOf(before), preferred);
    if (!before || !tab?.socket) return;
    const { ref, id } = before;
    tab.socket.send(frameTo(tab.who, this.peerOf(before), "never to be seen", ref));
    expect(await tab.socket.next((frame) => frame.ref === ref)).toMatchObject({ type: "ACK", id });
  }

  async read(where: At, byFrame: boolean): Promise<void> {
    const chat = this.chats.get(this.key(where));
    const last = chat?.messages.at(-1)?.id;
    const tab = this.openTab(this.personOf(where), 0);
    if (byFrame) {
      if (!tab?.socket) return;
      const chatId = idOf(this.people[USERS + where.visitor] as Who);
      const to = where.side === "visitor" ? this.peerOf(where) : undefined;
      const mark = `mark ${++this.count}`;
      tab.socket.send({ type: "MARK_AS_READ", chatId, to, ref: mark });
      // Frames of a socket are handled in order: with the answer to this one the mark is set.
      const ref = `barrier ${++this.count}`;
      tab.socket.send({ type: "?", ref });
      await tab.socket.next((frame) => frame.ref === ref);
      const errors = tab.socket.frames.flatMap((frame) => (frame.ref === mark ? frame.code : []));
      expect(errors).toEqual(chat ? [] : ["not_found"]);
    } else {
      const asking = { method: "POST", ...this.who(where) };
      const { status, body } = await this.server.ask(`${this.path(where)}/read`, asking);
      expect([status, body.upTo]).toEqual(chat ? [200, last] : [404, undefined]);
    }
    if (!chat || !last || chat.readUpTo[where.side] === last) return;
    chat.readUpTo[where.side] = last;
    chat.unread[where.side] = 0;
    const by = idOf(this.who(where));
    for (const tabAt of this.tabsOf(where)) this.receipts[tabAt]?.push(`${by} ${last}`);
  }

  async remove(where: At): Promise<void> {
    const asking = { method: "DELETE", ...this.who(where) };
    const { status } = await this.server.ask(this.path(where), asking);
    expect(status).toBe(this.chats.delete(this.key(where)) ? 204 : 404);
  }

  async block(where: Pick<At, "user" | "visitor">, isBlocked: boolean): Promise<void> {
    const as = { ...where, side: "user" } as const;
    const asking = { method: isBlocked ? "PUT" : "DELETE", ...this.who(as) };
    const { status } = await this.server.ask(`${this.path(as)}/block`, asking);
    const isKnown = this.chats.has(this.key(where)) || this.blocked.has(this.key(where));
    expect(status).toBe(isKnown || !isBlocked ? 204 : 404);
    if (!isKnown) return;
    if (isBlocked) this.blocked.add(this.key(where));
    else this.blocked.delete(this.key(where));
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case "talk":
        return this.talk(step.sends, step.back);
      case "resend":
        return this.resend(step.which, step.tab);
      case "leave":
        await this.settle(step.tab);
        return this.tabs[step.tab]?.leave();
      case "resume":
        return this.resume(step.tab);
      case "read":
      case "readByFrame":
        return this.read(step, step.kind === "readByFrame");
      case "remove":
        return this.remove(step);
      case "block":
      case "unblock":
        return this.block(step, step.kind === "block");
    }
  }

  /** Waits until everything that was published so far has come to a tab. */
  async settle(tabAt: number): Promise<void> {
    const { socket } = this.tabs[tabAt] as Tab;
    if (!socket) return;
    const ref = `settled ${++this.count}`;
    socket.send({ type: "?", ref });
    await socket.next((frame) => frame.ref === ref);
  }

  /** What lists and pages return, against the model. */
  async compare(): Promise<void> {
    for (const [person, who] of this.people.entries()) {
      const side = "user" in who ? "user" : "visitor";
      const { body } = await this.server.ask("/api/chats", who);
      const mine = this.all()
        .map((where) => ({ ...where, side }) as At)
        .filter((where) => this.personOf(where) === person && this.chats.has(this.key(where)))
        .map((where) => {
          const { messages, unread } = this.chats.get(this.key(where)) as ModelChat;
          const last = messages.at(-1);
          return {
            ...{ peer: this.peerOf(where), unread: unread[side] },
            ...(side === "user" && { blocked: this.blocked.has(this.key(where)) }),
            lastMessage: expect.objectContaining({ id: last?.id, content: last?.content }),
          };
        });
      const byPeer = (a: { peer: string }, b: { peer: string }) => a.peer.localeCompare(b.peer);
      expect(body.chats.toSorted(byPeer)).toEqual(mine.sort(byPeer));
      const ids = body.chats.map((chat: Frame) => Number(chat.lastMessage.id));
      expect(ids).toEqual(ids.toSorted((a: number, b: number) => b - a));
    }
    for (const where of this.all()) {
      const chat = this.chats.get(this.key(where));
      if (!chat && where.user > USERS) continue;
      const as = { ...where, side: "user" } as const;
      const { status, body } = await this.server.ask(
        `${this.path(as)}/messages?limit=200`,
        this.who(as),
      );
      expect(status).toBe(chat ? 200 : 404);
      if (!chat) continue;
      expect(body.messages.map(({ id, content }: Frame) => [id, content])).toEqual(
        chat.messages.map(({ id, content }) => [id, content]),
      );
      expect(body.readUpTo).toEqual(chat.readUpTo);
    }
  }

  /** What tabs have seen, against the model: all of it, in order, nothing twice and nothing else. */
  async compareTabs(): Promise<void> {
    for (const [tabAt, tab] of this.tabs.entries()) {
      await this.settle(tabAt);
      for (const peer of this.peersOf(tabAt)) {
        expect(tab.messages(peer).map(({ id }) => id)).toEqual(
          this.expected[tabAt]?.get(peer) ?? [],
        );
      }
      if (!tab.socket) continue;
      const { frames } = tab.socket;
      const ids = frames.flatMap(({ content, id }) => (content === undefined ? [] : [Number(id)]));
      expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
      const receipts = frames.flatMap(({ type, by, upTo }) =>
        type === "READ" ? [`${by} ${upTo}`] : [],
      );
      expect(receipts).toEqual(this.receipts[tabAt] as string[]);
    }
  }
}

test("after random steps, lists, pages and tabs are those of a simple model", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const clock = fakeClock();
      await using server = startServer({
        ...{ clock, history: sqliteChatHistory({ path: ":memory:", clock }) },
        charactersPerMinute: 0,
        limits: { messagesPerSecond: 0 },
      });
      const world = new World(server);
      await world.begin();
      for (const step of all) await world.take(step);
      await world.compareTabs();
      await world.compare();
      await Promise.all(world.tabs.map((one) => one.leave()));
    }),
    // With a counterexample at hand it is made smaller for as long as there is time.
    { numRuns: repeats(12, 300), interruptAfterTimeLimit: 90_000 },
  );
}, 120_000);
