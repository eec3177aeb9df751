import { sha256Hex } from "../lib/encoding.ts";
import * as close from "../wire/close.ts";
import * as frames from "../wire/frames.ts";
import * as paths from "../wire/paths.ts";
import icon from "./icon.svg" with { type: "text" };
import style from "./style.css" with { type: "text" };

/** A file that pages load. */
export interface SiteFile {
  readonly type: string;
  readonly text: string;
  readonly etag: string;
}

/** What browsers run, each bundled into one file, by the path under which it is served. */
const ENTRIES = {
  "/client.js": "client/mod.ts",
  "/assets/home.js": "page/browser/home.ts",
  "/assets/chat.js": "page/browser/chat.ts",
  "/assets/inbox.js": "page/browser/inbox.ts",
};

/**
 * The browser's half of the source, as text: so it is also inside the compiled binary, where no other file
 * can be read.
 */
async function readSources(): Promise<Record<string, string>> {
  const modules: Record<string, unknown> = {
    "client/address.ts": await import("../client/address.ts", { with: { type: "text" } }),
    "client/api.ts": await import("../client/api.ts", { with: { type: "text" } }),
    "client/chat.ts": await import("../client/chat.ts", { with: { type: "text" } }),
    "client/connect.ts": await import("../client/connect.ts", { with: { type: "text" } }),
    "client/connection.ts": await import("../client/connection.ts", { with: { type: "text" } }),
    "client/conversation.ts": await import("../client/conversation.ts", { with: { type: "text" } }),
    "client/events.ts": await import("../client/events.ts", { with: { type: "text" } }),
    "client/failure.ts": await import("../client/failure.ts", { with: { type: "text" } }),
    "client/list.ts": await import("../client/list.ts", { with: { type: "text" } }),
    "client/mod.ts": await import("../client/mod.ts", { with: { type: "text" } }),
    "client/request.ts": await import("../client/request.ts", { with: { type: "text" } }),
    "client/runtime.ts": await import("../client/runtime.ts", { with: { type: "text" } }),
    "client/storage.ts": await import("../client/storage.ts", { with: { type: "text" } }),
    "page/browser/chat.ts": await import("./browser/chat.ts", { with: { type: "text" } }),
    "page/browser/dom.ts": await import("./browser/dom.ts", { with: { type: "text" } }),
    "page/browser/home.ts": await import("./browser/home.ts", { with: { type: "text" } }),
    "page/browser/inbox.ts": await import("./browser/inbox.ts", { with: { type: "text" } }),
    "page/browser/state.ts": await import("./browser/state.ts", { with: { type: "text" } }),
    "page/browser/thread.ts": await import("./browser/thread.ts", { with: { type: "text" } }),
    "page/browser/words.ts": await import("./browser/words.ts", { with: { type: "text" } }),
  };
  const texts = modules as Record<string, { default: string }>;
  return {
    ...Object.fromEntries(
      Object.entries(texts).map(([path, module]) => [`/src/${path}`, module.default]),
    ),
    "/src/wire/close.ts": sourceOf(close),
    "/src/wire/frames.ts": sourceOf(frames),
    "/src/wire/paths.ts": sourceOf(paths),
  };
}

/**
 * A module of constants, and of functions that use nothing outside themselves, as text. The server runs these
 * modules, too, and a compiled binary has no file both as code and as text.
 */
function sourceOf(module: object): string {
  const lines = Object.entries(module).map(([name, value]) => {
    const source = typeof value === "function" ? String(value) : JSON.stringify(value);
    return `export const ${name} = ${source};`;
  });
  return lines.join("\n");
}

async function makeFiles(): Promise<ReadonlyMap<string, SiteFile>> {
  const sources = await readSources();
  const made = new Map<string, SiteFile>();
  const add = async (path: string, type: string, text: string) =>
    made.set(path, { type, text, etag: `"${(await sha256Hex(text)).slice(0, 32)}"` });
  await add("/assets/style.css", "text/css; charset=utf-8", style);
  await add("/assets/icon.svg", "image/svg+xml", icon);
  for (const [path, entry] of Object.entries(ENTRIES)) {
    const { outputs } = await Bun.build({
      entrypoints: [`/src/${entry}`],
      files: sources,
      target: "browser",
      minify: true,
    });
    await add(path, "text/javascript; charset=utf-8", (await outputs[0]?.text()) ?? "");
  }
  return made;
}

let made: Promise<ReadonlyMap<string, SiteFile>> | undefined;

/** Everything that pages load, by path: bundled at the first request, and kept. */
export function files(): Promise<ReadonlyMap<string, SiteFile>> {
  return (made ??= makeFiles());
}
