import type { ChatClient, ChatSummary, Drafts } from "../../client/mod.ts";
import { visitorName } from "./describe.ts";
import { confirmDelete } from "./dialog.ts";
import { element, setText } from "./dom.ts";
import { text, type Word } from "./language.ts";
import { createMenu } from "./menu.ts";
import { createThread } from "./thread.ts";

/** The chat that a user has open: its messages, and what can be done with it. */
export interface OpenChat {
  readonly peer: string;
  readonly root: HTMLElement;
  update(): void;
  focus(): void;
  dispose(): void;
}

export function openChat(
  client: ChatClient,
  peer: string,
  options: {
    drafts: Drafts;
    /** What the list says about it. */
    summary(): ChatSummary | undefined;
    /** Back to the list. */
    onClose(): void;
  },
): OpenChat {
  const { drafts, summary, onClose } = options;
  const conversation = client.conversation(peer);
  let nickname: string | undefined;
  /** The latest one that is known, also when the chat is gone from the list. */
  const name = () => visitorName(peer, (nickname = summary()?.nickname ?? nickname));
  const isBlocked = () => summary()?.blocked ?? false;
  const thread = createThread({
    client,
    conversation,
    drafts,
    asksName: false,
    otherName: name,
    invitation: element("p", {}, text("noMessages")),
  });
  const back = element(
    "button",
    { type: "button", class: "quiet small back", "aria-label": text("allChats") },
    "‹",
  );
  const title = element("h2");
  const menu = createMenu(text("options"), [
    {
      label: () => text(isBlocked() ? "unblock" : "block"),
      run: () => attempt(client.setBlocked(peer, !isBlocked()), "failed"),
    },
    {
      label: () => text("delete"),
      isDangerous: true,
      async run() {
        if (!(await confirmDelete(name()))) return;
        if (await attempt(client.remove(peer), "deleteFailed")) onClose();
      },
    },
  ]);
  let problem = "";

  async function attempt(work: Promise<void>, ifFailed: Word): Promise<boolean> {
    problem = await work.then(
      () => "",
      () => text(ifFailed),
    );
    update();
    return problem === "";
  }

  function update(): void {
    setText(title, name());
    const state = isBlocked() ? "blockedNote" : conversation.isDeleted ? "chatGone" : undefined;
    thread.notify(problem || (state ? text(state) : ""));
    thread.update();
  }

  back.onclick = onClose;
  const head = element("header", { class: "thread-head" }, back, title, menu.root);
  const root = element("div", { class: "thread-frame" }, head, thread.root);
  return {
    peer,
    root,
    update,
    focus: thread.focus,
    dispose() {
      thread.dispose();
      root.remove();
    },
  };
}
