import { Hono } from "hono";
import type { AppEnv } from "../http.ts";

/** The pages: what this is, a visitor's chat, a user's inbox. */
export function createPages(_options: { demo: boolean }): Hono<AppEnv> {
  const pages = new Hono<AppEnv>();
  pages.get("/", (c) => c.text("ws-ticket"));
  return pages;
}
