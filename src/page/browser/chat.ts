import { type ChatClient, createChatClient, createDrafts, createOutbox } from "../../client/mod.ts";
import { createComposer } from "./composer.ts";
import { confirmDelete } from "./dialog.ts";
import { byId, element, setTitle } from "./dom.ts";
import { text, textAround, translatePage } from "./language.ts";
import { createMenu } from "./menu.ts";
import { showState } from "./state.ts";
import { createThread } from "./thread.ts";
import { fetchAsVisitor } from "./visitor.ts";

/** Interval between attempts to find out whether the server knows this browser, in milliseconds. */
const KNOWN_RETRY_MS = 3_000;
/** A handshake that was refused, as browsers report it. */
const REFUSED_HANDSHAKE = 1006;

/**
 * A visitor's chat with the user whom the page is for. Before the first message there is neither a cookie nor a
 * socket.
 */
export function startChat(
  options: {
    /** Where the server's routes are. Default: where the page comes from. */
    url?: string | undefined;
    onUnread?(unread: number): void;
    /** Where the chat works even if this frame may keep no cookies. */
    newTab?: string | undefined;
  } = {},
): void {
  const { url, onUnread, newTab } = options;
  const { user = "", name = user, greeting } = document.documentElement.dataset;
  const place = byId("thread");
  const owner = `visitor:${user}`;
  const outbox = createOutbox({ owner });
  const drafts = createDrafts({ owner });
  let leave = (): void => {};

  /** Whether this browser has a visitor's cookie that the server accepts. */
  async function isKnown(): Promise<boolean> {
    const path = `${url ?? ""}/api/auth/anonymous-session`;
    const response = await fetch(path, { cache: "no-store" });
    if (!response.ok) throw new Error(`Session unknown: ${response.status}`);
    return ((await response.json()) as { known: boolean }).known;
  }

  function show(...parts: Node[]): void {
    leave();
    leave = () => {};
    place.replaceChildren(...parts);
  }

  async function begin(): Promise<void> {
    try {
      if (outbox.load().length > 0 || (await isKnown())) join();
      else invite();
    } catch {
      show(element("p", { class: "empty", role: "alert" }, text("unreachable")));
      setTimeout(begin, KNOWN_RETRY_MS);
    }
  }

  function invitation(): HTMLElement {
    return element(
      "div",
      {},
      element("p", { class: "greeting", dir: "auto" }, greeting ?? text("writeTo", { name })),
      element("p", {}, text("remembered")),
    );
  }

  /** A place to write, for somebody who hasn't yet. */
  function invite(notice: Node = invitation()): void {
    const composer = createComposer({
      draft: drafts.get(user),
      onInput: (draft) => drafts.set(user, draft),
      onSend: join,
    });
    const log = element("div", { class: "log" }, element("div", { class: "empty" }, notice));
    const scroll = element("div", { class: "scroll" }, log);
    show(element("div", { class: "thread" }, scroll, composer.root));
    composer.focus();
  }

  function join(first?: string): void {
    const client = createChatClient({ url, outbox, runtime: { fetch: fetchAsVisitor } });
    const conversation = client.conversation(user);
    const thread = createThread({
      client,
      conversation,
      drafts,
      asksName: true,
      otherName: () => name,
      invitation: invitation(),
      isNew: first !== undefined,
    });
    const menu = createMenu(text("options"), [
      {
        label: () => text("delete"),
        isDangerous: true,
        async run() {
          if (!(await confirmDelete(name))) return;
          const problem = await client.remove(user).then(
            () => "",
            () => text("deleteFailed"),
          );
          thread.notify(problem);
        },
      },
    ]);
    show(thread.root);
    byId("title").after(menu.root);
    const stopState = showState(client);
    client.on("change", ({ unread, messages }) => {
      setTitle(text("chatWith", { name }), unread);
      menu.root.hidden = messages.length === 0;
      onUnread?.(unread);
    });
    leave = () => {
      stopState();
      menu.root.remove();
      thread.dispose();
      client.dispose();
    };
    explainRefusal(client, () => conversation.messages.map(({ content }) => content));
    if (first !== undefined) conversation.send(first);
    thread.update();
    thread.focus();
  }

  /** The server has given a cookie, and refuses who comes without it: this browser doesn't keep cookies. */
  function explainRefusal(client: ChatClient, unsent: () => string[]): void {
    const stop = client.on("state", ({ status }) => {
      if (status === "open") stopDown();
    });
    const stopDown = client.on("down", async ({ code }) => {
      if (code !== REFUSED_HANDSHAKE || (await isKnown().catch(() => true))) return;
      stop();
      drafts.set(user, [...unsent(), drafts.get(user)].join("\n").trim());
      invite(
        element(
          "div",
          { role: "alert" },
          element("p", { class: "problem" }, text("cookiesBlocked")),
          element("p", {}, text("cookiesWhy")),
          ...(newTab === undefined ? [] : [linkTo(newTab)]),
        ),
      );
      // It is in the text field again.
      outbox.clear();
    });
  }

  translatePage();
  byId("title").replaceChildren(...textAround("chatWith", element("bdi", {}, name)));
  setTitle(text("chatWith", { name }), 0);
  void begin();
}

function linkTo(href: string): HTMLElement {
  return element("a", { href, target: "_blank", rel: "noopener" }, text("openInNewTab"));
}
