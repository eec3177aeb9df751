import { expect } from "bun:test";
import type { People } from "./people.ts";
import type { Frame, TestSocket } from "./socket.ts";
import { createTab, idOf, type Tab } from "./tab.ts";

/** One visitor and one user, with tabs on both of two servers that share a Redis. */
export interface Scene extends AsyncDisposable {
  readonly here: People;
  readonly there: People;
  /** The visitor's two tabs, one here and one there. */
  readonly visitor: readonly [Tab, Tab];
  /** The user's three tabs: one here, two there. */
  readonly user: readonly [Tab, Tab, Tab];
  readonly sockets: readonly TestSocket[];
}

/** The user of every scene. */
export const USER = "alice";

type Server = People & AsyncDisposable;

export async function setScene(
  servers: readonly [Promise<Server>, Promise<Server>],
): Promise<Scene> {
  const [here, there] = await Promise.all(servers);
  const cookie = await here.visitorCookie();
  await begin(createTab(here, { cookie }));
  const tab = (people: People, who: Tab["who"]) => createTab(people, who);
  const visitor = [tab(here, { cookie }), tab(there, { cookie })] as const;
  const user = [here, there, there].map((people) => tab(people, { user: USER }));
  const tabs = [...visitor, ...user];
  await Promise.all(tabs.map((one) => one.resume([])));
  return {
    ...{ here, there, visitor },
    user: user as unknown as Scene["user"],
    sockets: tabs.map(({ socket }) => socket as TestSocket),
    async [Symbol.asyncDispose]() {
      await Promise.all([here, there].map((one) => one[Symbol.asyncDispose]()));
    },
  };
}

/** Writes first, so that the user can answer; nobody has a socket yet. */
async function begin(visitor: Tab): Promise<void> {
  await visitor.resume([]);
  await visitor.say(USER, "begin");
  // Delivered now, so that it comes over none of the sockets to come.
  await visitor.socket?.next(({ content }) => content === "begin");
  await visitor.leave();
}

/** The messages that came over a socket, in the order in which they came. */
export function cameOver({ frames }: TestSocket): { id: string; content: string }[] {
  return frames.filter(({ content }) => content !== undefined) as never;
}

/** Waits until every socket has this, and then looks at what else they have. */
export async function expectSame({ sockets }: Scene, last: readonly string[], said: string[][]) {
  for (const socket of sockets) {
    for (const content of last) await socket.next((frame) => frame.content === content);
  }
  const [first = []] = sockets.map(cameOver);
  const ids = first.map(({ id }) => Number(id));
  expect(ids).toEqual(ids.toSorted((a, b) => a - b));
  expect(new Set(ids).size).toBe(ids.length);
  for (const socket of sockets) expect(cameOver(socket)).toEqual(first as never);
  for (const one of said) {
    const mine = new Set(one);
    expect(first.map(({ content }) => content).filter((text) => mine.has(text))).toEqual(one);
  }
  expect(first).toHaveLength(said.flat().length);
}

/** The next frame that matches, whoever else waits for it. */
function sees(socket: TestSocket, matches: (frame: Frame) => boolean): Promise<void> {
  const before = socket.frames.length;
  const { promise, resolve } = Promise.withResolvers<void>();
  let count = 0;
  socket.onFrame((frame) => {
    if (count++ >= before && matches(frame)) resolve();
  });
  return promise;
}

/** Both sides write without a pause while something happens, and a little longer; fails unless every message is delivered once and in order. */
export async function talkDuring(
  scene: Scene,
  happens: (sees: (matches: (frame: Frame) => boolean) => Promise<void>) => Promise<void>,
): Promise<void> {
  const [visitor] = scene.visitor;
  const [, user] = scene.user;
  let isOver = false;
  const talk = async (tab: Tab, to: string, name: string) => {
    const said: string[] = [];
    const sayNext = async () => {
      said.push(`${name}${said.length}`);
      await tab.say(to, said.at(-1) as string);
    };
    while (!isOver) await sayNext();
    for (let n = 0; n < 20; n++) await sayNext();
    return said;
  };
  const talking = Promise.all([talk(visitor, USER, "v"), talk(user, idOf(visitor.who), "u")]);
  const last = visitor.socket as TestSocket;
  await last.next(({ content }) => content === "v10");
  await happens((matches) => sees(last, matches));
  isOver = true;
  const said = await talking;
  await expectSame(
    scene,
    said.map((one) => one.at(-1) as string),
    said,
  );
  const path = `/api/chats/${idOf(visitor.who)}/messages?limit=200`;
  const answers = [
    await scene.here.ask(path, { user: USER }),
    await scene.there.ask(path, { user: USER }),
  ];
  expect(answers[0]?.body).toEqual(answers[1]?.body);
}
