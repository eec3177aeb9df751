import type { ChatClient, Conversation, Drafts } from "../../client/mod.ts";
import { createAnnouncer } from "./announcer.ts";
import { createComposer } from "./composer.ts";
import { element, setText } from "./dom.ts";
import { createLog } from "./log.ts";
import { createNickname } from "./nickname.ts";
import { createTyping } from "./typing.ts";

export interface Thread {
  readonly root: HTMLElement;
  /** Something changed: the conversation, who the other one is. */
  update(): void;
  /** Shows what is to be known about the whole chat; `""` for nothing. */
  notify(notice: string): void;
  focus(): void;
  dispose(): void;
}

/** A conversation on the page: its messages, and the form to write more. */
export function createThread(options: {
  client: ChatClient;
  conversation: Conversation;
  /** Where half-written text is kept. */
  drafts: Drafts;
  /** What the other one is called now. */
  otherName(): string;
  /** Shown while there are no messages. */
  invitation: Node;
  /** Whether the writer is asked for a name. */
  asksName: boolean;
  /** Whether it begins now, so that all of it is news. */
  isNew?: boolean;
}): Thread {
  const { client, conversation, drafts, otherName, invitation } = options;
  const { peer } = conversation;
  const stop = new AbortController();
  const announcer = createAnnouncer();
  const nickname = options.asksName
    ? createNickname(conversation, { otherName, onDone: () => composer.focus() })
    : undefined;
  const end = nickname ? [nickname.root] : [];
  const log = createLog({ conversation, otherName, invitation, end, onView: markRead });
  const composer = createComposer({
    draft: drafts.get(peer),
    onInput(draft) {
      drafts.set(peer, draft);
      if (draft !== "") conversation.typing();
    },
    onSend: (content) => conversation.send(content, { nickname: nickname?.value() }),
  });
  const typing = createTyping(client, { peer, otherName, announce: announcer.say });
  log.root.append(typing.root);
  const note = element("p", { class: "note", role: "status" });
  if (options.isNew) announcer.update([], otherName());
  const root = element(
    "div",
    { class: "thread" },
    ...[note, log.root, announcer.root, composer.root],
  );

  function update(): void {
    nickname?.update();
    log.update();
    // Only visitors begin a chat.
    composer.root.hidden = client.side === "user" && conversation.isDeleted;
    if (conversation.isLoaded || options.isNew)
      announcer.update(conversation.messages, otherName());
    markRead();
  }

  function markRead(): void {
    // In a frame that isn't shown, nobody reads.
    const isSeen = document.visibilityState === "visible" && root.clientHeight > 0;
    if (!log.isAtEnd || !isSeen) return;
    if (client.state.status === "open") conversation.markRead();
  }

  document.addEventListener("visibilitychange", markRead, { signal: stop.signal });
  const stopState = client.on("state", update);
  const stopChanges = client.on("change", (changed) => {
    if (changed === conversation) update();
  });

  return {
    root,
    update,
    notify: (notice) => setText(note, notice),
    focus: composer.focus,
    dispose() {
      stop.abort();
      log.dispose();
      typing.dispose();
      stopState();
      stopChanges();
      conversation.close();
    },
  };
}
