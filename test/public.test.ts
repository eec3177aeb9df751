import { describe, expect, test } from "bun:test";
import { dirname, join } from "node:path";
import build from "../src/tsconfig.json" with { type: "json" };
import config from "../tsconfig.json" with { type: "json" };
import manifest from "../package.json" with { type: "json" };

const SOURCE = join(import.meta.dir, "../src");

/** Every exported name of every entry: other programs are written against them. */
const SURFACE: Record<string, { values: string[]; types: string[] }> = {
  "mod.ts": {
    values: [
      ...["CLOSE", "REFUSALS", "createGate", "createLog", "memoryTicketStore", "redisTicketStore"],
      ...["refusalResponse", "signToken", "systemClock", "upstashTransport"],
    ],
    types: [
      ...["Admission", "Clock", "Close", "ConnectionInfo", "Gate", "GateOptions", "Identified"],
      ...[
        "Identity",
        "IssuedTicket",
        "JwksOptions",
        "KeySet",
        "Log",
        "LogEvent",
        "LogFields",
        "LogLevel",
        "ProveUser",
      ],
      ...[
        "PublicKeyOptions",
        "RedisReply",
        "RedisTransport",
        "SecretOptions",
        "Refusal",
        "RefusalCode",
        "Revocation",
      ],
      ...["RevocationFeed", "TicketRecord", "TicketStore", "TokenOptions", "UserCredential"],
      "TokenFault",
      "UserOptions",
    ],
  },
  "bun.ts": {
    values: [
      ...["FRAME_ERRORS", "createChat", "createSockets", "nativeRedisTransport", "openRedis"],
      ...["serve", "sqliteChatHistory"],
    ],
    types: [
      ...[
        "AppendError",
        "Appended",
        "Chat",
        "ChatEvent",
        "ChatHistory",
        "ChatOptions",
        "ChatService",
        "ChatSummary",
        "Draft",
      ],
      "FrameErrorCode",
      ...["Message", "MessagePage", "MessageType", "RedisSettings", "Retention", "RunningServer"],
      ...["ServeOptions", "SharedRedis", "Side", "Socket", "SocketData", "SocketHandlers"],
      ...["SocketLimits", "Sockets", "StopOptions"],
    ],
  },
  "client/mod.ts": {
    values: [
      ...["Failure", "connect", "createChatClient", "createChatList", "createDrafts"],
      "createOutbox",
    ],
    types: [
      ...["ChatClient", "ChatClientEvents", "ChatClientOptions", "ChatList", "ChatListEvents"],
      ...["ChatPage", "ChatSummary"],
      ...["ClientSocket", "ConnectOptions", "Connection", "ConnectionEvents", "ConnectionState"],
      ...["Conversation", "ConversationMessage", "Drafts", "Outbox", "Paths", "StorageOptions"],
      ...["TextStorage", "Unsent"],
      ...["FrameErrorCode", "Hint", "Message", "MessagePage", "MessageType", "Runtime"],
      ...["ServerFrame", "Side", "TokenSource"],
    ],
  },
  "testing.ts": {
    values: ["createTestClock", "createTestServer"],
    types: [
      ...["ConnectOptions", "TestClock", "TestServer", "TestServerOptions", "TestSocket"],
      "TestStore",
    ],
  },
};

test("the package's entries are built from these files, and are these files to the tests", () => {
  const { "./package.json": itself, ...entries } = manifest.exports;
  expect(itself).toBe("./package.json");
  expect(Object.values(entries)).toEqual(
    Object.keys(SURFACE).map((entry) => ({
      types: `./dist/${entry.replace(".ts", ".d.ts")}`,
      default: `./dist/${entry.replace(".ts", ".js")}`,
    })),
  );
  expect(build.files.toSorted()).toEqual(Object.keys(SURFACE).toSorted());
  const paths = Object.keys(entries).map((entry, at) => [
    join("ws-ticket", entry).replace(/\/$/, ""),
    [`./src/${Object.keys(SURFACE)[at]}`],
  ]);
  expect(Object.entries(config.compilerOptions.paths)).toEqual(paths as [string, string[]][]);
});

interface Exported {
  readonly name: string;
  readonly isType: boolean;
  /** The file that declares it. */
  readonly file: string;
}

/** What an entry exports, by lists of names or by declarations of its own. */
async function exportsOf(entry: string): Promise<Exported[]> {
  const text = await Bun.file(join(SOURCE, entry)).text();
  const lists = text.matchAll(/export (type )?\{([^}]*)\} from "([^"]+)";/g);
  const declared = text.matchAll(
    /^export (?:async )?(const|function|class|interface|type) (\w+)/gm,
  );
  const own = [...declared].map(([, kind, name = ""]) => ({
    name,
    isType: kind === "interface" || kind === "type",
    file: entry,
  }));
  const listed = [...lists].flatMap(([, allTypes, names = "", from = ""]) =>
    names
      .split(",")
      .map((name) => name.trim())
      .filter(Boolean)
      .map((name) => ({
        name: name.replace(/^type /, ""),
        isType: Boolean(allTypes) || name.startsWith("type "),
        file: join(dirname(entry), from),
      })),
  );
  return [...listed, ...own];
}

/** The docstring of a declaration, if there is one right before it. */
function docOf(text: string, name: string): string | undefined {
  const declaration = String.raw`export (?:declare )?(?:async )?(?:const|function|class|interface|type) ${name}\b`;
  return new RegExp(String.raw`/\*\*((?:(?!\*/)[\s\S])*)\*/\n${declaration}`).exec(text)?.[1];
}

describe.each(Object.keys(SURFACE))("%s", (entry) => {
  test("exports exactly the pinned names", async () => {
    const found = await exportsOf(entry);
    const names = (types: boolean) =>
      found.flatMap(({ name, isType }) => (isType === types ? [name] : [])).sort();
    expect(names(false)).toEqual([...(SURFACE[entry]?.values ?? [])].sort());
    expect(names(true)).toEqual([...(SURFACE[entry]?.types ?? [])].sort());
    // A name in the list is no proof that there is a value behind it.
    const module = await import(join(SOURCE, entry));
    expect(Object.keys(module).sort()).toEqual(names(false));
  });

  test("has a docstring at every name, and an example at every function", async () => {
    const missing: string[] = [];
    for (const { name, file } of await exportsOf(entry)) {
      const text = await Bun.file(join(SOURCE, file)).text();
      const doc = docOf(text, name);
      const isFunction = new RegExp(String.raw`export (?:async )?function ${name}\b`).test(text);
      if (!doc) missing.push(`${name} has no docstring`);
      else if (isFunction && !/@example|```ts/.test(doc)) missing.push(`${name} has no example`);
    }
    expect(missing).toEqual([]);
  });
});
