import { textOn } from "./contrast.ts";
import type { FrameMessage, HostMessage } from "./embed-messages.ts";

/**
 * Runs on a page of another site: a button, and at its first click the chat in a frame. Before that the server
 * gets no request, and the browser no cookie. Nothing of it is in reach of the page's styles, and nothing of the
 * page in reach of the frame but the messages below.
 */

const STYLE = `
:host { all: initial; --accent: #4338ca; --on-accent: #fff }
* { box-sizing: border-box; font: 16px/1.4 system-ui, sans-serif }
[hidden] { display: none !important }
.corner { position: fixed; z-index: 2147483647; inset-block-end: 16px; inset-inline-end: 16px;
  display: grid; gap: 12px; justify-items: end; pointer-events: none }
.start { inset-inline: 16px auto; justify-items: start }
.corner > * { pointer-events: auto }
button { min-width: 24px; min-height: 24px; padding: 0; border: 0; background: none; color: inherit; cursor: pointer }
button:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px }
.launcher { position: relative; width: 56px; height: 56px; border-radius: 50%; background: var(--accent);
  color: var(--on-accent); box-shadow: 0 2px 12px #0006; outline: 1px solid transparent }
.launcher svg { width: 28px; vertical-align: middle; fill: none; stroke: currentcolor; stroke-width: 2;
  stroke-linejoin: round }
.badge { position: absolute; inset: -4px -4px auto auto; min-width: 22px; padding: 0 6px; border-radius: 11px;
  background: #b3261e; color: #fff; font: 700 13px/22px system-ui, sans-serif }
.greeting { display: flex; gap: 8px; max-width: min(280px, 80vw); padding: 12px; border-radius: 12px;
  background: #fff; color: #1b1d26; box-shadow: 0 2px 12px #0004; outline: 1px solid transparent }
.greeting button:first-child { text-align: start; overflow-wrap: anywhere }
.panel { width: 380px; height: min(620px, calc(100dvh - 104px)); overflow: hidden; border-radius: 12px;
  background: #fff; color: #1b1d26; box-shadow: 0 4px 24px #0006; outline: 1px solid transparent }
iframe { display: block; width: 100%; height: 100%; border: 0 }
.panel p { padding: 16px; margin: 0 }
@media (max-width: 480px) {
  .panel { position: fixed; inset: 0; width: 100%; height: 100dvh; border-radius: 0 }
  .ready > .panel:not([hidden]) ~ .launcher { display: none }
}
`;
const BUBBLE = "M4 5h16v11H9l-5 4z";
/** Without a sign of life for so long, the frame isn't allowed here or the server is out of reach. */
const READY_WITHIN_MS = 10_000;

const script = document.currentScript as HTMLScriptElement;
const { origin } = new URL(script.src);
/** Where the server is, with a slash at its end. */
const base = new URL(".", script.src).href;

function start(): void {
  const {
    user = "",
    greeting,
    side,
    label = "Chat",
    newTab = "Open chat in a new tab",
  } = script.dataset;
  const path = encodeURIComponent(user);
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" });
  // Unlike a style element, this needs nothing of the page's policy.
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];

  const make = <Name extends keyof HTMLElementTagNameMap>(name: Name, className: string) =>
    Object.assign(document.createElement(name), { className });
  const button = (className: string) =>
    Object.assign(make("button", className), { type: "button" });
  const corner = make("div", side === "left" ? "corner start" : "corner");
  const panel = make("div", "panel");
  panel.hidden = true;
  panel.setAttribute("role", "dialog");
  panel.setAttribute("aria-label", label);
  const launcher = button("launcher");
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", BUBBLE);
  icon.append(shape);
  const badge = make("span", "badge");
  launcher.append(icon, badge);
  const bubble = make("div", "greeting");
  bubble.hidden = !greeting;
  const invitation = button("");
  invitation.textContent = greeting ?? "";
  const dismiss = Object.assign(button(""), { textContent: "×", ariaLabel: "×" });
  bubble.append(invitation, dismiss);
  corner.append(panel, bubble, launcher);
  root.append(corner);
  document.body.append(host);

  let frame: HTMLIFrameElement | undefined;
  let isReady = false;

  function send(message: HostMessage): void {
    if (isReady) frame?.contentWindow?.postMessage(message, origin);
  }

  function sendTheme(): void {
    const { theme = "", color = "" } = script.dataset;
    if (CSS.supports("color", color)) {
      host.style.setProperty("--accent", color);
      host.style.setProperty("--on-accent", textOn(color, host));
    }
    send({ type: "ws-ticket:theme", scheme: theme, color });
  }

  function showUnread(count: number): void {
    badge.hidden = count === 0;
    badge.textContent = String(count);
    launcher.ariaLabel = count === 0 ? label : `${label} (${count})`;
  }

  function showLink(): void {
    const link = Object.assign(make("a", ""), { href: `${base}chat/${path}`, target: "_blank" });
    link.rel = "noopener";
    link.textContent = newTab;
    const line = make("p", "");
    line.append(link);
    panel.replaceChildren(line);
  }

  function open(): void {
    bubble.hidden = true;
    panel.hidden = false;
    launcher.ariaExpanded = "true";
    if (!frame) {
      const { locale = document.documentElement.lang } = script.dataset;
      frame = make("iframe", "");
      frame.title = label;
      const query = new URLSearchParams({ host: location.origin, lang: locale });
      frame.src = `${base}embed/${path}?${query}`;
      panel.append(frame);
      setTimeout(() => isReady || showLink(), READY_WITHIN_MS);
    }
    frame.focus();
    send({ type: "ws-ticket:open" });
  }

  function close(): void {
    if (panel.hidden) return;
    panel.hidden = true;
    launcher.ariaExpanded = "false";
    launcher.focus();
  }

  launcher.onclick = () => (panel.hidden ? open() : close());
  invitation.onclick = open;
  dismiss.onclick = () => {
    bubble.hidden = true;
    launcher.focus();
  };
  document.addEventListener("keydown", ({ key, defaultPrevented }) => {
    if (key === "Escape" && !defaultPrevented) close();
  });
  addEventListener("message", ({ origin: from, source, data }: MessageEvent<FrameMessage>) => {
    if (from !== origin || !frame || source !== frame.contentWindow) return;
    if (data.type === "ws-ticket:ready") {
      isReady = true;
      // It has a button to close it: where it fills the screen, the launcher would only cover it.
      corner.classList.add("ready");
      sendTheme();
      if (!panel.hidden) open();
    }
    if (data.type === "ws-ticket:unread") showUnread(data.count);
    if (data.type === "ws-ticket:close") close();
  });
  new MutationObserver(() => {
    sendTheme();
    const { locale } = script.dataset;
    if (locale) send({ type: "ws-ticket:locale", locale });
  }).observe(script, { attributeFilter: ["data-theme", "data-color", "data-locale"] });

  launcher.ariaExpanded = "false";
  showUnread(0);
  sendTheme();
}

if (document.body) start();
else addEventListener("DOMContentLoaded", start);
