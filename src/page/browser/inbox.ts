import { createChatClient, createDrafts, createOutbox } from "../../client/mod.ts";
import { describeFailure, describeRefusal } from "./describe.ts";
import { byId, setTitle } from "./dom.ts";
import { text, translatePage } from "./language.ts";
import { showInbox } from "./panes.ts";
import { INBOX_URL, readSession, type Session } from "./session.ts";
import { createSignIn } from "./sign-in.ts";

translatePage();
void readSession().then(
  (session) => (session ? open(session) : askToSignIn("")),
  (failure) => askToSignIn(describeRefusal(failure)),
);

function askToSignIn(problem: string): void {
  setTitle(text("inbox"), 0);
  const form = createSignIn({
    problem,
    onSession(session) {
      form.root.remove();
      open(session);
    },
  });
  byId("main").append(form.root);
  form.focus();
}

function open({ user, name = user }: Session): void {
  const outbox = createOutbox({ owner: user });
  const drafts = createDrafts({ owner: user });
  const client = createChatClient({ url: INBOX_URL, getToken: () => undefined, outbox });
  const inbox = showInbox(client, { user, name, drafts, onSignOut: signOut });

  function end(problem: string): void {
    inbox.dispose();
    client.dispose();
    askToSignIn(problem);
  }

  async function signOut(): Promise<void> {
    // The server ends the socket, too; that it does so now is no news.
    stopWatching();
    const problem = await client.signOut().then(
      () => "",
      () => text("signedOutHere"),
    );
    end(problem);
    // Nobody else who uses this tab reads it, or sees whom it was for.
    history.replaceState(null, "", INBOX_URL);
    outbox.clear();
    drafts.clear();
  }

  const stopWatching = client.on("state", (state) => {
    // There is no coming back without signing in again.
    if (state.status !== "closed") return;
    const { failure } = state;
    if (failure.code === 401 || failure.code === 4500) end(describeFailure(failure));
  });
}
