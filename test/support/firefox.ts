import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Longest wait for Firefox to start, and for a condition on a page, in milliseconds. */
const START_MS = 90_000;
const WAIT_MS = 30_000;

/** Firefox without a window, driven over WebDriver BiDi, which it speaks by itself. */
export interface Firefox extends AsyncDisposable {
  /** Opens a tab there. */
  open(url: string): Promise<Tab>;
}

/** A tab, or a frame in one. Expressions run in the page and return JSON. */
export interface Tab {
  evaluate(expression: string): Promise<unknown>;
  /** Waits until an expression is true. */
  until(expression: string): Promise<void>;
  navigate(url: string): Promise<void>;
  /** Clicks what an expression returns, as a person would. */
  click(expression: string): Promise<void>;
  /** Types text, `\uE007` being Enter and `\uE00C` Escape, into what has the focus. */
  type(text: string): Promise<void>;
  /** The first frame in it, once there is one. */
  frame(): Promise<Tab>;
}

interface Reply {
  readonly id: number;
  readonly result?: Record<string, unknown>;
  readonly error?: string;
  readonly message?: string;
}

/** `hosts`: names that are this machine's. Whatever certificates they have is accepted. */
export async function launchFirefox({ hosts }: { hosts: readonly string[] }): Promise<Firefox> {
  const profile = await mkdtemp(join(tmpdir(), "ws-ticket-firefox-"));
  const settings = {
    "network.dns.localDomains": hosts.join(","),
    "browser.shell.checkDefaultBrowser": false,
    "datareporting.policy.dataSubmissionEnabled": false,
    "app.normandy.enabled": false,
    "app.update.disabledForTesting": true,
    "network.captive-portal-service.enabled": false,
    "network.connectivity-service.enabled": false,
    "browser.safebrowsing.update.enabled": false,
    "services.settings.server": "data:,",
    "intl.accept_languages": "en",
  };
  const lines = Object.entries(settings).map(
    ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
  );
  await Bun.write(join(profile, "user.js"), lines.join("\n"));
  const program = Bun.spawn(
    [
      ...["firefox-esr", "--headless", "--no-remote", "--profile", profile],
      ...["--remote-debugging-port", "0"],
    ],
    { stdout: "ignore", stderr: "pipe", env: { ...process.env, HOME: profile } },
  );
  const end = async () => {
    program.kill();
    await program.exited;
    await rm(profile, { recursive: true, force: true });
  };
  try {
    const address = await within(START_MS, listeningAddress(program.stderr));
    const socket = new WebSocket(`${address}/session`);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const waiting = new Map<number, (reply: Reply) => void>();
    socket.onmessage = ({ data }) => {
      const reply: Reply = JSON.parse(String(data));
      waiting.get(reply.id)?.(reply);
      waiting.delete(reply.id);
    };
    let last = 0;
    const call = async (method: string, params: object): Promise<Record<string, unknown>> => {
      const id = ++last;
      const replied = new Promise<Reply>((resolve) => waiting.set(id, resolve));
      socket.send(JSON.stringify({ id, method, params }));
      const { result, error, message } = await within(WAIT_MS, replied);
      if (!result) throw new Error(`${method} failed: ${error} ${message}`);
      return result;
    };
    await call("session.new", { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
    return {
      async open(url) {
        const { context } = await call("browsingContext.create", { type: "tab" });
        const tab = tabOf(call, context as string);
        await tab.navigate(url);
        return tab;
      },
      async [Symbol.asyncDispose]() {
        socket.close();
        await end();
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

type Call = (method: string, params: object) => Promise<Record<string, unknown>>;

function tabOf(call: Call, context: string): Tab {
  async function run(expression: string): Promise<{ value?: unknown; sharedId?: string }> {
    const params = { expression, target: { context }, awaitPromise: true };
    const { type, result, exceptionDetails } = await call("script.evaluate", params);
    if (type === "success") return result as { value?: unknown; sharedId?: string };
    throw new Error((exceptionDetails as { text: string }).text);
  }

  const tab: Tab = {
    async evaluate(expression) {
      const { value } = await run(
        `Promise.resolve(${expression}).then((v) => JSON.stringify(v ?? null))`,
      );
      return JSON.parse(String(value));
    },
    async until(expression) {
      const endMs = performance.now() + WAIT_MS;
      while (!(await tab.evaluate(`Boolean(${expression})`))) {
        if (performance.now() > endMs) throw new Error(`It never came true: ${expression}`);
        await Bun.sleep(100);
      }
    },
    async navigate(url) {
      await call("browsingContext.navigate", { context, url, wait: "complete" });
    },
    async click(expression) {
      const { sharedId } = await run(expression);
      const origin = { type: "element", element: { sharedId } };
      await call("input.performActions", {
        context,
        actions: [
          {
            type: "pointer",
            id: "mouse",
            actions: [
              { type: "pointerMove", x: 0, y: 0, origin },
              { type: "pointerDown", button: 0 },
              { type: "pointerUp", button: 0 },
            ],
          },
        ],
      });
    },
    async type(text) {
      const actions = [...text].flatMap((value) => [
        { type: "keyDown", value },
        { type: "keyUp", value },
      ]);
      const keys = { type: "key", id: "keys", actions };
      await call("input.performActions", { context, actions: [keys] });
    },
    async frame() {
      const endMs = performance.now() + WAIT_MS;
      for (;;) {
        const { contexts } = await call("browsingContext.getTree", { root: context });
        const [own] = contexts as { children: { context: string; url: string }[] }[];
        const [child] = own?.children ?? [];
        if (child && child.url !== "about:blank") return tabOf(call, child.context);
        if (performance.now() > endMs) throw new Error("There is no frame");
        await Bun.sleep(100);
      }
    },
  };
  return tab;
}

/** Where Firefox says that it listens. Goes on reading, so that it never waits for somebody to. */
function listeningAddress(stderr: ReadableStream<Uint8Array>): Promise<string> {
  return new Promise((resolve, reject) => {
    void (async () => {
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of stderr as unknown as AsyncIterable<Uint8Array>) {
        text = (text + decoder.decode(chunk, { stream: true })).slice(-10_000);
        const found = /WebDriver BiDi listening on (ws:\/\/\S+)/.exec(text);
        if (found?.[1]) resolve(found[1]);
      }
      reject(new Error(`Firefox has ended: ${text}`));
    })();
  });
}

function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("Firefox is too slow")), ms);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
