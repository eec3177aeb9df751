import { createChatClient, createChatList } from "../../src/client/mod.ts";
import { scriptedWorld } from "../support/client.ts";
import { type Figure, inTurn } from "./figures.ts";
import { visitorId } from "./history.ts";

/** Messages in the conversation. */
const SIZES = [50, 1_000, 6_000] as const;
const ROUNDS = 15;
/** Messages in each round. */
const MESSAGES = 50;
/** Longer than this per message, in microseconds, is more than the one copy that a new array of all messages takes. */
const MAX_LONGER_US = 250;
/** Chats in the list. */
const CHATS = 200;

/** What one message costs a page's main thread in the client library, and the network beside a request for the list. */
export async function client(): Promise<Figure[]> {
  const [few, some, many] = await Promise.all(SIZES.map(startReader));
  const rounds = await inTurn(ROUNDS, { few: few!.read, some: some!.read, many: many!.read });
  const compare = (name: "some" | "many", size: number): Figure => ({
    figure: `a message among ${size}, in the browser's client, longer by`,
    ...{ measured: rounds.of(name), control: rounds.of("few"), unit: "µs" },
    result: rounds.of(name) - rounds.of("few"),
    target: { most: MAX_LONGER_US },
  });
  return [compare("some", SIZES[1]), compare("many", SIZES[2]), await bytesOfMessage()];
}

function messageOf(id: number, visitor = visitorId(0)) {
  return {
    ...{ type: "ANON_TO_USER", id: String(id), from: visitor, to: "user", chatId: visitor },
    ...{ content: "x".repeat(200), timestamp: "2026-01-01T00:00:00.000Z" },
  };
}

function startClient(world: ReturnType<typeof scriptedWorld>) {
  return createChatClient({ url: "https://chat.example", getToken: "jwt", runtime: world.runtime });
}

/** A page that shows a conversation with so many messages: it reads all of them at every change. */
async function startReader(size: number): Promise<{ read(): Promise<number> }> {
  const world = scriptedWorld();
  const chat = startClient(world);
  const conversation = chat.conversation(visitorId(0));
  const socket = await world.open(1);
  let last = 0;
  const receive = (count: number) => {
    for (let n = 0; n < count; n++) void socket.sayRaw(JSON.stringify(messageOf(++last)));
  };
  receive(size);
  conversation.markRead();
  let shown = 0;
  chat.on("change", ({ messages }) => (shown = messages.length));
  return {
    async read() {
      const startedAtMs = performance.now();
      receive(MESSAGES);
      const tookMs = performance.now() - startedAtMs;
      if (shown !== last) throw new Error(`Messages shown: ${shown} of ${last}`);
      conversation.markRead();
      await world.settle();
      return (tookMs / MESSAGES) * 1_000;
    },
  };
}

/** Everything that goes over the network for a message to somebody with many chats. */
async function bytesOfMessage(): Promise<Figure> {
  const world = scriptedWorld();
  const chats = Array.from({ length: CHATS }, (_, number) => ({
    ...{ peer: visitorId(number), unread: 1, blocked: false },
    lastMessage: messageOf(CHATS - number, visitorId(number)),
  }));
  const page = JSON.stringify({ chats, more: true });
  world.answer = ({ path }) => (path.startsWith("/api/chats?") ? new Response(page) : undefined);
  const list = createChatList(startClient(world), { runtime: world.runtime });
  const socket = await world.open(1);
  const requests = world.requests.length;
  const frame = JSON.stringify(messageOf(CHATS + 1, visitorId(7)));
  await socket.sayRaw(frame);
  await world.pass(10_000);
  const loaded = world.requests.length - requests;
  if (list.chats[0]?.peer !== visitorId(7)) throw new Error("The list doesn't follow the frame");
  const measured = frame.length + loaded * page.length;
  return {
    figure: `a message to somebody with ${CHATS} chats, against the list`,
    ...{ measured, control: page.length, unit: "bytes", result: measured / page.length },
    target: { most: 0.02 },
  };
}
