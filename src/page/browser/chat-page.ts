import { BASE } from "./base.ts";
import { startChat } from "./chat.ts";

startChat({ url: BASE || undefined });
