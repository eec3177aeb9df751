import { sha256Hex, utf8 } from "../lib/encoding.ts";
import * as close from "../wire/close.ts";
import * as frames from "../wire/frames.ts";
import * as paths from "../wire/paths.ts";
import * as words from "./browser/words.ts";
import icon from "./icon.svg" with { type: "text" };
import style from "./style.css" with { type: "text" };

/** How a body may be encoded (RFC 9110 section 8.4.1), the smallest first. */
const ENCODINGS = ["br", "gzip"] as const;

/** A file that pages load. */
export interface SiteFile {
  readonly type: string;
  /** By encoding; without one, `identity`. */
  readonly bodies: Readonly<
    Record<(typeof ENCODINGS)[number] | "identity", Uint8Array<ArrayBuffer>>
  >;
  /** Of the content, whatever its encoding. */
  readonly hash: string;
  /** Whether its path has the hash, so that it can be kept for good. */
  readonly isImmutable: boolean;
}

/** Everything that pages load. */
export interface SiteFiles {
  /** By path. */
  readonly served: ReadonlyMap<string, SiteFile>;
  /** The path of an asset, such as `chat.js`. */
  pathOf(name: string): string;
}

/** Characters of a hash in a name, as many as tell all versions of a file apart. */
const HASH_LENGTH = 16;

const TYPES: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** What browsers run, each bundled into one file. */
const SCRIPTS: Readonly<Record<string, string>> = {
  "chat.js": "page/browser/chat-page.ts",
  "frame.js": "page/browser/frame.ts",
  "inbox.js": "page/browser/inbox.ts",
  "plain.js": "page/browser/plain.ts",
};

/** What others import or load by name, at paths that stay. */
const BY_NAME: Readonly<Record<string, string>> = {
  "/client.js": "client/mod.ts",
  "/embed.js": "page/browser/embed.ts",
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
    "page/browser/alerts.ts": await import("./browser/alerts.ts", { with: { type: "text" } }),
    "page/browser/announcer.ts": await import("./browser/announcer.ts", { with: { type: "text" } }),
    "page/browser/base.ts": await import("./browser/base.ts", { with: { type: "text" } }),
    "page/browser/chat-page.ts": await import("./browser/chat-page.ts", { with: { type: "text" } }),
    "page/browser/chat.ts": await import("./browser/chat.ts", { with: { type: "text" } }),
    "page/browser/composer.ts": await import("./browser/composer.ts", { with: { type: "text" } }),
    "page/browser/contrast.ts": await import("./browser/contrast.ts", { with: { type: "text" } }),
    "page/browser/copy.ts": await import("./browser/copy.ts", { with: { type: "text" } }),
    "page/browser/describe.ts": await import("./browser/describe.ts", { with: { type: "text" } }),
    "page/browser/dialog.ts": await import("./browser/dialog.ts", { with: { type: "text" } }),
    "page/browser/dom.ts": await import("./browser/dom.ts", { with: { type: "text" } }),
    "page/browser/embed.ts": await import("./browser/embed.ts", { with: { type: "text" } }),
    "page/browser/embed-messages.ts": await import("./browser/embed-messages.ts", {
      with: { type: "text" },
    }),
    "page/browser/frame.ts": await import("./browser/frame.ts", { with: { type: "text" } }),
    "page/browser/inbox.ts": await import("./browser/inbox.ts", { with: { type: "text" } }),
    "page/browser/language.ts": await import("./browser/language.ts", { with: { type: "text" } }),
    "page/browser/links.ts": await import("./browser/links.ts", { with: { type: "text" } }),
    "page/browser/list.ts": await import("./browser/list.ts", { with: { type: "text" } }),
    "page/browser/log.ts": await import("./browser/log.ts", { with: { type: "text" } }),
    "page/browser/memory.ts": await import("./browser/memory.ts", { with: { type: "text" } }),
    "page/browser/menu.ts": await import("./browser/menu.ts", { with: { type: "text" } }),
    "page/browser/message.ts": await import("./browser/message.ts", { with: { type: "text" } }),
    "page/browser/nickname.ts": await import("./browser/nickname.ts", { with: { type: "text" } }),
    "page/browser/open-chat.ts": await import("./browser/open-chat.ts", { with: { type: "text" } }),
    "page/browser/panes.ts": await import("./browser/panes.ts", { with: { type: "text" } }),
    "page/browser/plain.ts": await import("./browser/plain.ts", { with: { type: "text" } }),
    "page/browser/route.ts": await import("./browser/route.ts", { with: { type: "text" } }),
    "page/browser/session.ts": await import("./browser/session.ts", { with: { type: "text" } }),
    "page/browser/share.ts": await import("./browser/share.ts", { with: { type: "text" } }),
    "page/browser/sign-in.ts": await import("./browser/sign-in.ts", { with: { type: "text" } }),
    "page/browser/state.ts": await import("./browser/state.ts", { with: { type: "text" } }),
    "page/browser/thread.ts": await import("./browser/thread.ts", { with: { type: "text" } }),
    "page/browser/times.ts": await import("./browser/times.ts", { with: { type: "text" } }),
    "page/browser/typing.ts": await import("./browser/typing.ts", { with: { type: "text" } }),
    "page/browser/visitor.ts": await import("./browser/visitor.ts", { with: { type: "text" } }),
  };
  const texts = modules as Record<string, { default: string }>;
  return {
    ...Object.fromEntries(
      Object.entries(texts).map(([path, module]) => [`/src/${path}`, module.default]),
    ),
    "/src/wire/close.ts": sourceOf(close),
    "/src/wire/frames.ts": sourceOf(frames),
    "/src/wire/paths.ts": sourceOf(paths),
    "/src/page/browser/words.ts": sourceOf(words),
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

async function bundle(entry: string, sources: Record<string, string>): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [`/src/${entry}`],
    files: sources,
    target: "browser",
    minify: true,
    // The script that other sites load is no module: what it declares must not be global there.
    format: entry === BY_NAME["/embed.js"] ? "iife" : "esm",
  });
  return (await outputs[0]?.text()) ?? "";
}

async function makeFiles(): Promise<SiteFiles> {
  // Here, and not before a page is served: it takes a twentieth of the time to start.
  const { brotliCompressSync, gzipSync } = await import("node:zlib");
  const sources = await readSources();
  const served = new Map<string, SiteFile>();
  const paths = new Map<string, string>();

  async function fileOf(name: string, text: string, isImmutable: boolean): Promise<SiteFile> {
    const hash = (await sha256Hex(text)).slice(0, HASH_LENGTH);
    const identity = utf8(text);
    const bodies = {
      identity,
      gzip: new Uint8Array(gzipSync(identity, { level: 9 })),
      br: new Uint8Array(brotliCompressSync(identity)),
    };
    return { type: TYPES[name.slice(name.lastIndexOf("."))] ?? "", bodies, hash, isImmutable };
  }
  async function addAsset(name: string, text: string): Promise<void> {
    const file = await fileOf(name, text, true);
    const path = `/assets/${name.replace(".", `-${file.hash}.`)}`;
    served.set(path, file);
    paths.set(name, path);
  }
  await addAsset("style.css", style);
  await addAsset("icon.svg", icon);
  for (const [name, entry] of Object.entries(SCRIPTS)) {
    await addAsset(name, await bundle(entry, sources));
  }
  for (const [path, entry] of Object.entries(BY_NAME)) {
    served.set(path, await fileOf(path, await bundle(entry, sources), false));
  }
  return {
    served,
    pathOf(name) {
      const path = paths.get(name);
      if (path === undefined) throw new Error(`Asset is missing: ${name}`);
      return path;
    },
  };
}

let made: Promise<SiteFiles> | undefined;

/** The files: bundled and compressed at the first request, and kept. */
export function files(): Promise<SiteFiles> {
  return (made ??= makeFiles());
}

/** What is read of an `Accept-Encoding` header, in characters: browsers send 30. */
const MAX_ACCEPTED_LENGTH = 256;

/** The smallest encoding that an `Accept-Encoding` header allows (RFC 9110 section 12.5.3). */
export function encodingOf(accepted: string | undefined): keyof SiteFile["bodies"] {
  const names = (accepted ?? "")
    .slice(0, MAX_ACCEPTED_LENGTH)
    .toLowerCase()
    .split(",")
    .filter((one) => !/;\s*q=0(?:\.0*)?\s*$/.test(one))
    .map((one) => (one.split(";")[0] ?? "").trim());
  return ENCODINGS.find((encoding) => names.includes(encoding)) ?? "identity";
}
