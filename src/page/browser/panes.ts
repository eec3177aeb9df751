import type { ChatClient, ChatSummary, Drafts } from "../../client/mod.ts";
import { createAlerts } from "./alerts.ts";
import { byId, element, setText, setTitle } from "./dom.ts";
import { text } from "./language.ts";
import { createList } from "./list.ts";
import { createMenu } from "./menu.ts";
import { type OpenChat, openChat } from "./open-chat.ts";
import { createRoute } from "./route.ts";
import { shareParts, showShare } from "./share.ts";
import { showState } from "./state.ts";

/** Interval between attempts to load the list after a failure, in milliseconds. */
const LIST_RETRY_MS = 3_000;

/** The inbox of somebody who is signed in: the list of chats, and the one that is open. */
export function showInbox(
  client: ChatClient,
  options: { user: string; name: string; drafts: Drafts; onSignOut(): void },
): { dispose(): void } {
  const { user, name, drafts, onSignOut } = options;
  const stopShowingState = showState(client);
  const route = createRoute(follow);
  const alerts = createAlerts(client, {
    isSeen: (peer) => peer === route.peer && document.visibilityState === "visible",
    onOpen: route.open,
  });
  let chats: readonly ChatSummary[] = [];
  let open: OpenChat | undefined;
  /** One request at a time; a change in the meantime causes another one. */
  let isLoading = false;
  let isStale = false;

  async function refresh(): Promise<void> {
    if (client.state.status !== "open") return;
    isStale = isLoading;
    if (isLoading) return;
    isLoading = true;
    try {
      ({ chats } = await client.chats());
      setText(problem, "");
      update();
    } catch {
      if (client.state.status === "open") {
        setText(problem, text("listFailed"));
        setTimeout(refresh, LIST_RETRY_MS);
      }
    }
    isLoading = false;
    if (isStale) void refresh();
  }

  const list = createList({ onOpen: route.open, onMore() {} });
  const problem = element("p", { class: "problem", role: "alert" });
  const noChats = element(
    "div",
    { class: "empty", hidden: true },
    element("p", {}, text("noChats")),
    ...shareParts(user),
  );
  const noThread = element("p", { class: "empty", hidden: true }, text("chooseChat"));
  const place = element("section", { class: "thread-place", "aria-label": text("chat") }, noThread);
  const panes = element(
    "div",
    { class: "panes" },
    element("nav", { "aria-label": text("chats") }, problem, noChats, list.root),
    place,
  );
  const who = element("span", { class: "who" }, name);
  const menu = createMenu(text("options"), [
    { label: () => text("share"), run: () => void showShare(user) },
    {
      label: () => text("alerts"),
      isOn: () => alerts.isOn,
      run: async () => setText(problem, (await alerts.toggle()) ? "" : text("alertsRefused")),
    },
  ]);
  const leave = element("button", { type: "button", class: "quiet small" }, text("signOut"));
  leave.onclick = onSignOut;

  function update(): void {
    list.update(chats, open?.peer);
    noChats.hidden = chats.length > 0;
    noThread.hidden = open !== undefined || chats.length === 0;
    setTitle(
      text("inbox"),
      chats.reduce((sum, { unread }) => sum + unread, 0),
    );
    open?.update();
  }

  /** Shows what the address says. */
  function follow(): void {
    const { peer } = route;
    const previous = open?.peer;
    if (previous === peer && panes.dataset.view) return;
    open?.dispose();
    open = peer === undefined ? undefined : start(peer);
    panes.dataset.view = document.body.dataset.view = open ? "thread" : "list";
    update();
    if (open) open.focus();
    else if (previous !== undefined) list.focus(previous);
  }

  function start(peer: string): OpenChat {
    const chat = openChat(client, peer, {
      drafts,
      summary: () => chats.find((one) => one.peer === peer),
      onClose: route.close,
    });
    place.append(chat.root);
    return chat;
  }

  client.on("frame", ({ type }) => {
    if (type !== "ACK" && type !== "EXPIRING") void refresh();
  });
  client.on("state", ({ status }) => {
    if (status === "open") void refresh();
  });
  client.on("resumed", refresh);
  byId("bar").append(who, menu.root, leave);
  byId("main").append(panes);
  follow();
  return {
    dispose() {
      open?.dispose();
      alerts.dispose();
      route.dispose();
      stopShowingState();
      delete document.body.dataset.view;
      for (const one of [panes, who, menu.root, leave]) one.remove();
    },
  };
}
