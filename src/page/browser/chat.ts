import { createChatClient } from "../../client/mod.ts";
import { byId, setTitle } from "./dom.ts";
import { showState } from "./state.ts";
import { createThread } from "./thread.ts";

const { user = "", base } = document.documentElement.dataset;
const client = createChatClient({ url: base });
const conversation = client.conversation(user);
const thread = createThread({
  client,
  conversation,
  hasNickname: true,
  otherName: () => user,
  invitation: `Write to ${user}. You need no account: a cookie lets you find this chat again for 30 days.`,
});

byId("thread").append(thread.root);
showState(client);
client.on("change", ({ unread }) => setTitle(`Chat with ${user}`, unread));
thread.update();
thread.focus();
