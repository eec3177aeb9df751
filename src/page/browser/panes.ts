import { type ChatClient, createChatList, type Drafts } from "../../client/mod.ts";
import { createAlerts } from "./alerts.ts";
import { byId, element, setText, setTitle } from "./dom.ts";
import { text } from "./language.ts";
import { createList } from "./list.ts";
import { createMenu } from "./menu.ts";
import { type OpenChat, openChat } from "./open-chat.ts";
import { createRoute } from "./route.ts";
import { shareParts, showShare } from "./share.ts";
import { showState } from "./state.ts";

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
  const chats = createChatList(client);
  let open: OpenChat | undefined;

  const list = createList({ onOpen: route.open, onMore: loadMore });
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
  const menu = createMenu(text("menu"), [
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
    const isEmpty = chats.chats.length === 0;
    list.update(chats.chats, open?.peer);
    noChats.hidden = !isEmpty || !chats.isLoaded;
    noThread.hidden = open !== undefined || isEmpty;
    panes.classList.toggle("bare", isEmpty && !open);
    setText(problem, chats.failure ? text("listFailed") : "");
    setTitle(text("inbox"), chats.unread);
    open?.update();
  }

  function loadMore(): void {
    if (chats.hasMore) chats.loadMore().catch(() => setText(problem, text("listFailed")));
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
      summary: () => chats.chats.find((one) => one.peer === peer),
      onClose: route.close,
    });
    place.append(chat.root);
    return chat;
  }

  chats.on("change", update);
  byId("bar").append(who, menu.root, leave);
  byId("main").append(panes);
  follow();
  return {
    dispose() {
      open?.dispose();
      chats.dispose();
      alerts.dispose();
      route.dispose();
      stopShowingState();
      delete document.body.dataset.view;
      for (const one of [panes, who, menu.root, leave]) one.remove();
    },
  };
}
