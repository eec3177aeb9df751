import { join } from "node:path";
import { type Figure, inTurn } from "./figures.ts";
import { type Server, startControl, startLoad, startMain } from "./process.ts";
import { temporaryFolder } from "../support/folder.ts";

/** Idle sockets whose memory is compared. */
const HELD_SOCKETS = 10_000;

/** What an idle socket takes. */
export async function memory(): Promise<Figure[]> {
  const measured = (await bytesPerSocket(await startMain())) / 1024;
  const control = (await bytesPerSocket(await startControl("bare"))) / 1024;
  return [
    {
      figure: `memory of an idle socket (${HELD_SOCKETS}), beyond that of a server that checks nothing`,
      measured,
      control,
      unit: "KB",
      result: measured - control,
      target: { most: 1.5 },
    },
  ];
}

async function bytesPerSocket(server: Server): Promise<number> {
  await using _ = server;
  using load = startLoad();
  const { target } = server;
  await load.run({ target, kind: "admit", count: 1_000 });
  const before = await server.residentBytes();
  await load.run({ target, kind: "hold", count: HELD_SOCKETS });
  return ((await server.residentBytes()) - before) / HELD_SOCKETS;
}

/** How long it takes until the first request is answered. */
export async function start(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  const CHAT_DATABASE = join(directory.path, "chat.sqlite");
  const rounds = await inTurn(25, {
    main: () => startMs(() => startMain({ CHAT_DATABASE })),
    hello: () => startMs(() => startControl("hello")),
  });
  return [
    rounds.figure("start to the first answer, against a Hono hello", {
      measured: "main",
      control: "hello",
      unit: "ms",
      target: { most: 1.2 },
    }),
  ];
}

async function startMs(start: () => Promise<Server>): Promise<number> {
  await using server = await start();
  return server.startMs;
}
