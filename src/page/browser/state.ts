import type { ChatClient, ConnectionState } from "../../client/mod.ts";
import { byId, setText } from "./dom.ts";
import { describeFailure } from "./words.ts";

/** Shows whether the page is connected, until the returned function is called. */
export function showState(client: ChatClient): () => void {
  const place = byId("state");
  const text = byId("state-text");
  const countdown = byId("state-countdown");
  const retry = byId("state-retry");
  let wasOpen = false;

  function update(): void {
    const { state } = client;
    wasOpen ||= state.status === "open";
    if (place.dataset.status !== state.status) place.dataset.status = state.status;
    setText(text, describe(state, wasOpen));
    setText(countdown, state.status === "waiting" ? countdownTo(state.untilMs) : "");
    retry.hidden = state.status === "open" || state.status === "connecting";
    setText(retry, state.status === "closed" ? "Connect again" : "Try now");
  }

  const stopListening = client.on("state", update);
  const timer = setInterval(update, 250);
  retry.onclick = () => client.retry();
  place.hidden = false;
  update();
  return () => {
    stopListening();
    clearInterval(timer);
    place.hidden = true;
  };
}

function describe(state: ConnectionState, wasOpen: boolean): string {
  if (state.status === "open") return "Connected";
  if (state.status === "closed") return describeFailure(state.failure);
  if (state.status === "waiting") return "Reconnecting";
  return wasOpen ? "Reconnecting…" : "Connecting…";
}

function countdownTo(untilMs: number): string {
  const seconds = Math.ceil((untilMs - Date.now()) / 1000);
  return seconds > 0 ? ` in ${seconds} s` : "";
}
