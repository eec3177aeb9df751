import type { ChatClient, ConnectionState } from "../../client/mod.ts";
import { describeFailure } from "./describe.ts";
import { byId, setText } from "./dom.ts";
import { text } from "./language.ts";

/** A connection that is there sooner isn't worth a word. */
const SHOW_AFTER_MS = 1_500;
const TICK_MS = 250;

/** Shows what is wrong with the connection, and nothing while it works, until the returned function is called. */
export function showState(client: ChatClient): () => void {
  const place = byId("state");
  const words = byId("state-text");
  const countdown = byId("state-countdown");
  const retry = byId("state-retry");
  let sinceMs = performance.now();
  let hadProblem = false;
  let wasOpen = false;

  function update(): void {
    const { state } = client;
    const { status } = state;
    wasOpen ||= status === "open";
    if (status === "open" || status === "closed") sinceMs = performance.now();
    const isSlow = performance.now() - sinceMs >= SHOW_AFTER_MS;
    const isProblem = status === "closed" || status === "waiting" || (isSlow && status !== "open");
    hadProblem ||= isProblem;
    if (place.dataset.status !== status) place.dataset.status = status;
    place.classList.toggle("unseen", !hadProblem || status === "open");
    if (!hadProblem) return;
    const seconds = status === "waiting" ? Math.ceil((state.untilMs - Date.now()) / 1000) : 0;
    setText(words, describe(state, wasOpen));
    // Beside the live text, or it would be read out every second.
    setText(countdown, seconds > 0 ? text("reconnectingIn", { n: seconds }) : "");
    words.classList.toggle("unseen", seconds > 0);
    retry.hidden = status === "open" || status === "connecting";
    setText(retry, text(status === "closed" ? "connectAgain" : "tryNow"));
  }

  const stopListening = client.on("state", update);
  const timer = setInterval(update, TICK_MS);
  retry.onclick = () => client.retry();
  update();
  return () => {
    stopListening();
    clearInterval(timer);
    place.classList.add("unseen");
    setText(words, "");
    setText(countdown, "");
    retry.hidden = true;
    delete place.dataset.status;
  };
}

function describe(state: ConnectionState, wasOpen: boolean): string {
  if (state.status === "open") return text("connected");
  if (state.status === "connecting" && !wasOpen) return text("connecting");
  return state.status === "closed" ? describeFailure(state.failure) : text("reconnecting");
}
