import { createGate } from "ws-ticket";
import { createChat, serve, sqliteChatHistory } from "ws-ticket/bun";

const gate = createGate({
  users: { secret: process.env.JWT_SECRET! },
  visitors: { secret: process.env.SESSION_SECRET! },
});
const chat = createChat(gate, sqliteChatHistory({ path: "chat.sqlite" }));
const port = Number(process.env.PORT ?? 3000);
const server = serve(gate, chat.handlers, { port, fetch: chat.fetch });
console.log(`Listening on ${server.url}`);
