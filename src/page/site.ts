export { chat, home, inbox } from "./views.tsx";
export { files } from "./files.ts";
