export { chat, home, inbox, notFound } from "./views.tsx";
export { encodingOf, files } from "./files.ts";
