import {
  type ChatClient,
  type ChatPage,
  createChatClient,
  type Failure,
} from "../../client/mod.ts";
import { byId, element, setText, setTitle } from "./dom.ts";
import { showState } from "./state.ts";
import { createThread, type Thread } from "./thread.ts";
import { describeFailure, visitorName, whenOf } from "./words.ts";

/** Interval between attempts to load the list after a failure, in milliseconds. */
const LIST_RETRY_MS = 3_000;

type Summary = ChatPage["chats"][number];

const { mode, claim = "sub", base = "/" } = document.documentElement.dataset;
const form = byId<HTMLFormElement>("sign-in");
const credential = byId<HTMLInputElement>("credential");
const submit = form.querySelector("button") as HTMLButtonElement;

form.onsubmit = async (event) => {
  event.preventDefault();
  const value = credential.value.trim();
  if (value === "") return credential.focus();
  submit.disabled = true;
  setText(byId("problem"), "");
  const problem =
    mode === "demo" ? await signIn(value, demoToken(value)) : await signIn(userOf(value), value);
  submit.disabled = false;
  setText(byId("problem"), problem);
};

credential.value = mode === "demo" ? decodeURIComponent(location.hash.slice(1)) : "";
showSignIn("");

function showSignIn(problem: string): void {
  setTitle("Inbox", 0);
  form.hidden = false;
  byId("panes").hidden = byId("sign-out").hidden = byId("who").hidden = true;
  setText(byId("problem"), problem);
  credential.focus();
}

/** Gets a new demo token each time: tokens end with the server, the name doesn't. */
function demoToken(name: string): () => Promise<string> {
  return async () => {
    const response = await fetch(`${base}api/demo/token`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name }),
    });
    if (!response.ok) throw new Error(`Demo token refused: ${response.status}`);
    return ((await response.json()) as { token: string }).token;
  };
}

/** Whose token it is, for the link that visitors use. The server decides for itself. */
function userOf(token: string): string | undefined {
  try {
    const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes))[claim]);
  } catch {
    return undefined;
  }
}

/** Resolves to what is wrong, or to nothing when the server has let the user in. */
function signIn(
  user: string | undefined,
  getToken: string | (() => Promise<string>),
): Promise<string> {
  const client = createChatClient({ url: base, getToken });
  return new Promise((resolve) => {
    const stopDown = client.on("down", (failure) => {
      client.dispose();
      resolve(describeRefusal(failure));
    });
    const stopState = client.on("state", ({ status }) => {
      if (status !== "open") return;
      stopDown();
      stopState();
      credential.value = "";
      form.hidden = true;
      openInbox(client, user);
      resolve("");
    });
  });
}

function describeRefusal({ code }: Failure): string {
  if (code === 401) return "This JWT isn’t valid, or no longer.";
  if (code === 429) return "Too many attempts. Try again in a minute.";
  return code === 0 ? "The server can’t be reached, or refused the name." : "The server refused.";
}

function openInbox(client: ChatClient, user: string | undefined): void {
  const panes = byId("panes");
  const list = byId<HTMLUListElement>("chats");
  const place = byId("thread");
  const stopShowingState = showState(client);
  let chats: readonly Summary[] = [];
  let open: { readonly peer: string; readonly thread: Thread; update(): void } | undefined;
  /** One request at a time; a change in the meantime causes another one. */
  let isLoading = false;
  let isStale = false;
  let isOver = false;

  async function refresh(): Promise<void> {
    if (isOver || client.state.status !== "open") return;
    isStale = isLoading;
    if (isLoading) return;
    isLoading = true;
    try {
      ({ chats } = await client.chats());
      setText(byId("list-problem"), "");
      render();
    } catch {
      if (!isOver && client.state.status === "open") {
        setText(byId("list-problem"), "The chats can’t be loaded now.");
        setTimeout(refresh, LIST_RETRY_MS);
      }
    }
    isLoading = false;
    if (isStale) void refresh();
  }

  function render(): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset.peer;
    list.replaceChildren(...chats.map(row));
    if (focused) list.querySelector<HTMLElement>(`[data-peer="${focused}"]`)?.focus();
    byId("no-chats").hidden = chats.length > 0;
    byId("no-thread").hidden = open !== undefined || chats.length === 0;
    setTitle(
      "Inbox",
      chats.reduce((sum, { unread }) => sum + unread, 0),
    );
    open?.update();
  }

  function row({ peer, unread, nickname, blocked, lastMessage }: Summary): HTMLLIElement {
    const name = visitorName(peer, nickname);
    const isMine = lastMessage.type === "USER_TO_ANON";
    const atMs = Date.parse(lastMessage.timestamp);
    const flags = [
      ...(blocked ? [element("span", { class: "tag" }, "Blocked")] : []),
      ...(unread > 0
        ? [element("span", { class: "badge" }, String(unread), unseen(" unread"))]
        : []),
    ];
    const button = element(
      "button",
      {
        type: "button",
        class: "chat",
        "data-peer": peer,
        "aria-current": String(open?.peer === peer),
      },
      avatar(peer, name),
      element("bdi", { class: "name" }, name),
      element("time", { datetime: lastMessage.timestamp }, whenOf(atMs, Date.now())),
      element(
        "span",
        { class: "preview", dir: "auto" },
        `${isMine ? "You: " : ""}${lastMessage.content}`,
      ),
      element("span", { class: "flags" }, ...flags),
    );
    button.onclick = () => openChat(peer);
    return element("li", {}, button);
  }

  function openChat(peer: string): void {
    if (open?.peer !== peer) {
      closeChat();
      open = createChat(peer);
    }
    panes.dataset.view = "thread";
    byId("no-thread").hidden = true;
    for (const button of list.querySelectorAll<HTMLElement>("[data-peer]")) {
      button.setAttribute("aria-current", String(button.dataset.peer === peer));
    }
    open?.update();
    open?.thread.focus();
  }

  function closeChat(): void {
    const peer = open?.peer;
    open?.thread.dispose();
    open = undefined;
    place.querySelector(".thread-head")?.remove();
    byId("no-thread").hidden = chats.length === 0;
    panes.dataset.view = "list";
    for (const button of list.querySelectorAll<HTMLElement>("[data-peer]")) {
      button.setAttribute("aria-current", "false");
      if (button.dataset.peer === peer) button.focus();
    }
  }

  function createChat(peer: string): NonNullable<typeof open> {
    const summary = () => chats.find((chat) => chat.peer === peer);
    const name = () => visitorName(peer, summary()?.nickname);
    const thread = createThread({
      client,
      conversation: client.conversation(peer),
      hasNickname: false,
      otherName: name,
      invitation: "There are no messages any more.",
    });
    const back = element(
      "button",
      { type: "button", class: "quiet small back", "aria-label": "All chats" },
      "‹",
    );
    const title = element("h2");
    const block = element("button", { type: "button", class: "quiet small" });
    const remove = element("button", { type: "button", class: "quiet small danger" }, "Delete");
    const note = element("p", { class: "note", role: "status" });
    back.onclick = closeChat;
    block.onclick = () =>
      attempt(client.setBlocked(peer, !summary()?.blocked), "That didn’t work. Try again.");
    remove.onclick = async () => {
      if (!(await confirmDelete(name()))) return;
      await attempt(client.remove(peer), "The chat couldn’t be deleted. Try again.", closeChat);
    };

    async function attempt(work: Promise<void>, problem: string, done?: () => void): Promise<void> {
      const failed = await work.then(
        () => "",
        () => problem,
      );
      if (failed === "") done?.();
      await refresh();
      if (failed) setText(note, failed);
    }

    place.append(
      element("header", { class: "thread-head" }, back, title, block, remove, note),
      thread.root,
    );
    return {
      peer,
      thread,
      update() {
        setText(title, name());
        setText(block, summary()?.blocked ? "Unblock" : "Block");
        setText(note, summary()?.blocked ? "Blocked: nothing they write reaches you." : "");
        thread.update();
      },
    };
  }

  function end(problem: string): void {
    if (isOver) return;
    isOver = true;
    closeChat();
    stopShowingState();
    client.dispose();
    list.replaceChildren();
    showSignIn(problem);
  }

  client.on("frame", ({ type }) => {
    if (type !== "ACK" && type !== "EXPIRING") void refresh();
  });
  client.on("state", (state) => {
    if (state.status === "open") void refresh();
    // There is no coming back without signing in again.
    const { failure } = state.status === "closed" ? state : {};
    if (failure?.code === 401 || failure?.code === 4500) end(`${describeFailure(failure)}.`);
  });
  byId("sign-out").onclick = async () => {
    const problem = await client.signOut().then(
      () => "",
      () => "Signed out here only. The server couldn’t be reached.",
    );
    end(problem);
  };
  setText(byId("who"), user ?? "");
  byId("who").hidden = user === undefined;
  byId("sign-out").hidden = panes.hidden = false;
  byId("share").hidden = user === undefined;
  const link = byId<HTMLAnchorElement>("share-link");
  link.href = `${base}chat/${encodeURIComponent(user ?? "")}`;
  setText(link, new URL(link.href).href);
  void refresh();
}

function unseen(text: string): HTMLElement {
  return element("span", { class: "unseen" }, text);
}

/** A mark that distinguishes chats at a glance. */
function avatar(id: string, name: string): HTMLElement {
  const hue = [...id].reduce((sum, char) => sum + char.charCodeAt(0), 0) % 6;
  const [letter = "?"] = name;
  return element("span", { class: "avatar", "data-hue": hue, "aria-hidden": "true" }, letter);
}

function confirmDelete(name: string): Promise<boolean> {
  const cancel = element("button", { type: "button", class: "quiet" }, "Keep it");
  const confirm = element("button", { type: "button", class: "danger" }, "Delete chat");
  const dialog = element(
    "dialog",
    { "aria-labelledby": "delete-title" },
    element("h2", { id: "delete-title" }, `Delete the chat with ${name}?`),
    element("p", {}, "It is gone for both of you, and can’t be brought back."),
    element("div", { class: "actions" }, cancel, confirm),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    cancel.onclick = () => dialog.close();
    confirm.onclick = () => dialog.close("delete");
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue === "delete");
    };
  });
}
