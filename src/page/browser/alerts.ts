import type { ChatClient } from "../../client/mod.ts";
import { visitorName } from "./describe.ts";
import { recall, remember } from "./memory.ts";

const KEY = "alerts";
/** Of what came in, for what comes twice where two sockets overlap. */
const REMEMBERED = 20;
/** A short, soft tone: hertz, seconds, and how loud from 0 to 1. */
const TONE = { frequency: 660, seconds: 0.25, gain: 0.08 } as const;

/** A sound and a notification for each message that the user doesn't see, for those who want them. */
export interface Alerts {
  readonly isOn: boolean;
  /** Switches them, and resolves to whether the browser lets all of it happen. */
  toggle(): Promise<boolean>;
  dispose(): void;
}

export function createAlerts(
  client: ChatClient,
  options: { isSeen(peer: string): boolean; onOpen(peer: string): void },
): Alerts {
  const { isSeen, onOpen } = options;
  const heard: string[] = [];
  let isOn = recall(KEY) === "on";
  let audio: AudioContext | undefined;

  function play(): void {
    audio ??= new AudioContext();
    const { currentTime } = audio;
    const [tone, volume] = [audio.createOscillator(), audio.createGain()];
    tone.frequency.value = TONE.frequency;
    volume.gain.setValueAtTime(TONE.gain, currentTime);
    volume.gain.exponentialRampToValueAtTime(0.001, currentTime + TONE.seconds);
    tone.connect(volume).connect(audio.destination);
    tone.start();
    tone.stop(currentTime + TONE.seconds);
  }

  function notify(peer: string, title: string, body: string): void {
    if (!hasPermission()) return;
    try {
      const shown = new Notification(title, { body, tag: peer });
      shown.onclick = () => {
        window.focus();
        shown.close();
        onOpen(peer);
      };
    } catch {
      // Browsers on phones have it for service workers only.
    }
  }

  const stop = client.on("frame", (frame) => {
    if (!isOn || frame.type !== "ANON_TO_USER") return;
    const { chatId, id, nickname, content } = frame;
    const key = `${chatId} ${id}`;
    if (heard.includes(key) || isSeen(chatId)) return;
    heard.push(key);
    if (heard.length > REMEMBERED) heard.shift();
    play();
    notify(chatId, visitorName(chatId, nickname), content.slice(0, 100));
  });

  return {
    get isOn() {
      return isOn;
    },
    async toggle() {
      isOn = !isOn;
      remember(KEY, isOn ? "on" : "off");
      if (!isOn) return true;
      // A click may start sound; a message may not, unless a click has.
      play();
      if ("Notification" in globalThis) await Notification.requestPermission();
      return hasPermission();
    },
    dispose() {
      stop();
      void audio?.close();
    },
  };
}

function hasPermission(): boolean {
  return "Notification" in globalThis && Notification.permission === "granted";
}
