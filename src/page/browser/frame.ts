import { BASE } from "./base.ts";
import { startChat } from "./chat.ts";
import { textOn } from "./contrast.ts";
import { byId, element } from "./dom.ts";
import type { FrameMessage, HostMessage } from "./embed-messages.ts";
import { text } from "./language.ts";

/** The visitor's chat in a frame on a page of another site. The server has named the one origin that it may be on. */
const { user = "", embed: hostOrigin = "" } = document.documentElement.dataset;

function tell(message: FrameMessage): void {
  parent.postMessage(message, hostOrigin);
}

function onMessage({ type, ...message }: HostMessage): void {
  if (type === "ws-ticket:theme") {
    const { scheme, color } = message as HostMessage & { type: "ws-ticket:theme" };
    const { style } = document.documentElement;
    style.colorScheme = scheme === "light" || scheme === "dark" ? scheme : "";
    // Anything but a colour would make the page's buttons vanish.
    if (!CSS.supports("color", color)) return;
    const onColor = textOn(color, document.documentElement);
    for (const name of ["--accent", "--mine"]) style.setProperty(name, color);
    for (const name of ["--on-accent", "--on-mine", "--on-mine-soft"]) {
      style.setProperty(name, onColor);
    }
  }
  if (type === "ws-ticket:locale") {
    const url = new URL(location.href);
    const { locale } = message as HostMessage & { type: "ws-ticket:locale" };
    if (url.searchParams.get("lang") === locale) return;
    url.searchParams.set("lang", locale);
    location.replace(url);
  }
  if (type === "ws-ticket:open") {
    document.querySelector("textarea")?.focus();
    // What came in while it was closed is read now.
    document.dispatchEvent(new Event("visibilitychange"));
  }
}

addEventListener("message", ({ origin, source, data }) => {
  if (origin === hostOrigin && source === parent && typeof data?.type === "string") onMessage(data);
});
document.addEventListener("keydown", (event) => {
  // While an input method composes, Escape is its own; and a dialog is closed by it first.
  if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
  if (!document.querySelector("dialog[open]")) tell({ type: "ws-ticket:close" });
});

startChat({
  url: `${BASE}/embed`,
  newTab: `${BASE}/chat/${encodeURIComponent(user)}`,
  onUnread: (count) => tell({ type: "ws-ticket:unread", count }),
});
const close = element(
  "button",
  { type: "button", class: "quiet small", id: "close" },
  text("close"),
);
close.onclick = () => tell({ type: "ws-ticket:close" });
byId("bar").append(close);
tell({ type: "ws-ticket:ready" });
