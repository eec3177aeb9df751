import { join } from "node:path";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { signToken } from "../../src/gate/token.ts";
import { openRedis } from "../../src/open.ts";
import { startRedis } from "../support/redis.ts";
import { type Figure, inTurn, quantile } from "./figures.ts";
import { fill, visitorId } from "./history.ts";
import { BENCH_SECRET, type Server, startMain } from "./process.ts";
import { temporaryFolder } from "../support/folder.ts";

const MANY = 100_000;
const FEW = 100;
/** Requests in each round: all of them together cost less than one person may spend in a minute. */
const REQUESTS = 8;
const ROUNDS = 5;

/** Reading, for a user with many chats against one with few. */
export async function chats(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  const path = join(directory.path, "chat.sqlite");
  const history = sqliteChatHistory({ path });
  await fillChats(history);
  await history.close();
  await using sqlite = await startMain({ CHAT_DATABASE: path });
  const inSqlite = await compare("SQLite", sqlite);

  await using redis = await startRedis();
  const opened = await openRedis({ url: redis.url });
  await fillChats(opened.chat);
  await opened.chat.close();
  await opened.store.close();
  await using shared = await startMain({ REDIS_URL: redis.url });
  return [...inSqlite, ...(await compare("Redis", shared))];
}

async function fillChats(history: Parameters<typeof fill>[0]): Promise<void> {
  for (const [user, count] of Object.entries({ many: MANY, few: FEW })) {
    await fill(history, { count }, (number) => ({
      chat: { user, visitor: visitorId(number) },
      from: "visitor",
      content: "Hello",
      ref: "first",
      atMs: Date.now(),
    }));
  }
}

async function compare(store: string, { target: { port } }: Server): Promise<Figure[]> {
  async function reader(user: string): Promise<(path: string) => Promise<Response>> {
    const expiresAtMs = Date.now() + 3_600_000;
    const token = await signToken({ secret: BENCH_SECRET, user, expiresAtMs });
    return async (path) => {
      const headers = { Authorization: `Bearer ${token}` };
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers });
      if (!response.ok) throw new Error(`No page: ${response.status}`);
      return response;
    };
  }

  const timed = (read: (path: string) => Promise<Response>, path: string) => async () => {
    const times: number[] = [];
    while (times.length < REQUESTS) {
      const startedAtMs = performance.now();
      await (await read(path)).text();
      times.push(performance.now() - startedAtMs);
    }
    return quantile(times, 0.5);
  };

  const [many, few] = [await reader("many"), await reader("few")];
  const figures: Figure[] = [];
  const page = async (name: string, ofMany: string, ofFew = ofMany) => {
    const rounds = await inTurn(ROUNDS, { many: timed(many, ofMany), few: timed(few, ofFew) });
    figures.push(
      rounds.figure(`${name} of ${MANY} chats in ${store}, against ${FEW}`, {
        measured: "many",
        control: "few",
        unit: "ms",
        target: { most: 1.5 },
      }),
    );
  };
  /** The id of the last message in a visitor's chat. */
  const idIn = async (read: typeof many, visitor: string) => {
    const { messages } = (await (await read(`/api/chats/${visitor}/messages`)).json()) as {
      messages: { id: string }[];
    };
    return messages[0]?.id;
  };
  await page("first page", "/api/chats");
  await page(
    "page from the middle",
    `/api/chats?before=${await idIn(many, visitorId(MANY / 2))}`,
    `/api/chats?before=${await idIn(few, visitorId(FEW / 2))}`,
  );
  await page("page of messages in one", `/api/chats/${visitorId(FEW / 2)}/messages`);
  return figures;
}
