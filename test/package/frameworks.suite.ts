import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createTestServer } from "../../src/testing.ts";
import { type Browser, collectComplaints, launchBrowser } from "../support/browser.ts";
import { openSocket } from "../support/socket.ts";
import { createProject, type Project } from "./project.ts";

/** Connects with what stands in the page's fragment, says hello, and gives what it gets to \`show\`. */
const LIVE = `
import { connect } from "ws-ticket/client";
export function follow(show) {
  const { url, token } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const connection = connect({ url, getToken: token, paths: { socket: "/live" } });
  connection.on("state", ({ status }) => show(status));
  connection.on("open", () => connection.send("hello"));
  connection.on("message", show);
  return connection.dispose;
}
`;

const page = (script: string) => `<!doctype html>
<link rel="icon" href="data:," />
<div id="app"></div>
<script type="module" src="${script}"></script>
`;

/** Pages that show the newest event while they are mounted; a button takes it away, and brings it back. */
const FILES = {
  "live.js": LIVE,
  "react.html": page("/start-react.js"),
  "start-react.js": `
    import { createElement as h, StrictMode, useEffect, useState } from "react";
    import { createRoot } from "react-dom/client";
    import { follow } from "./live.js";
    function Live() {
      const [text, setText] = useState("");
      useEffect(() => follow(setText), []);
      return h("p", null, text);
    }
    function App() {
      const [isThere, setThere] = useState(true);
      const toggle = () => setThere(!isThere);
      return h("div", null, h("button", { onClick: toggle }, "Toggle"), isThere && h(Live));
    }
    createRoot(document.getElementById("app")).render(h(StrictMode, null, h(App)));
  `,
  "chat.html": page("/start-chat.js"),
  "start-chat.js": `
    import { createElement as h, StrictMode, useEffect, useState, useSyncExternalStore } from "react";
    import { createRoot } from "react-dom/client";
    import { createChatClient, createChatList } from "ws-ticket/client";
    const { url, token, peer } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    function useChat() {
      const [chat, setChat] = useState();
      useEffect(() => {
        const client = createChatClient({ url, getToken: token });
        const list = createChatList(client);
        setChat({ client, list });
        return () => {
          list.dispose();
          client.dispose();
        };
      }, []);
      return chat;
    }
    function Chat() {
      const chat = useChat();
      return chat ? h(Open, chat) : null;
    }
    function Open({ client, list }) {
      const [conversation] = useState(() => client.conversation(peer));
      const messages = useSyncExternalStore(
        (changed) => client.on("change", changed),
        () => conversation.messages,
      );
      const chats = useSyncExternalStore((changed) => list.on("change", changed), () => list.chats);
      return h("p", null, chats.length + " chats: " + messages.map(({ content }) => content).join(" "));
    }
    function App() {
      const [isThere, setThere] = useState(true);
      const toggle = () => setThere(!isThere);
      return h("div", null, h("button", { onClick: toggle }, "Toggle"), isThere && h(Chat));
    }
    createRoot(document.getElementById("app")).render(h(StrictMode, null, h(App)));
  `,
  "vue.html": page("/start-vue.js"),
  "start-vue.js": `
    import { createApp } from "vue";
    import App from "./App.vue";
    createApp(App).mount("#app");
  `,
  "App.vue": `
    <script setup>
    import { ref } from "vue";
    import Live from "./Live.vue";
    const isThere = ref(true);
    </script>
    <template><button @click="isThere = !isThere">Toggle</button><Live v-if="isThere" /></template>
  `,
  "Live.vue": `
    <script setup>
    import { onMounted, onUnmounted, ref } from "vue";
    import { follow } from "./live.js";
    const text = ref("");
    let dispose;
    onMounted(() => { dispose = follow((next) => (text.value = next)); });
    onUnmounted(() => dispose());
    </script>
    <template><p>{{ text }}</p></template>
  `,
  "svelte.html": page("/start-svelte.js"),
  "start-svelte.js": `
    import { mount } from "svelte";
    import App from "./App.svelte";
    mount(App, { target: document.getElementById("app") });
  `,
  "App.svelte": `
    <script>
    import Live from "./Live.svelte";
    let isThere = $state(true);
    </script>
    <button onclick={() => (isThere = !isThere)}>Toggle</button>
    {#if isThere}<Live />{/if}
  `,
  "Live.svelte": `
    <script>
    import { follow } from "./live.js";
    let text = $state("");
    $effect(() => follow((next) => (text = next)));
    </script>
    <p>{text}</p>
  `,
  "vite.config.js": `
    import { svelte } from "@sveltejs/vite-plugin-svelte";
    import vue from "@vitejs/plugin-vue";
    export default { plugins: [vue(), svelte()], server: { host: "127.0.0.1", port: 0 } };
  `,
  "ssr.js": `
    import { createElement as h, useEffect, useState } from "react";
    import { renderToString } from "react-dom/server";
    import { connect, createChatClient } from "ws-ticket/client";
    function Live() {
      const [text] = useState("none yet");
      useEffect(() => connect().dispose, []);
      return h("p", null, text);
    }
    console.log(renderToString(h(Live)));
    for (const create of [connect, createChatClient]) {
      try { create(); } catch (error) { console.log(String(error)); }
    }
  `,
};

let project: Project;
let browser: Browser;
let vite: Awaited<ReturnType<Project["serve"]>>;
beforeAll(async () => {
  project = await createProject({
    files: FILES,
    packages: [
      ...(["@sveltejs/vite-plugin-svelte", "@vitejs/plugin-vue", "react", "react-dom"] as const),
      ...(["svelte", "vite", "vue"] as const),
    ],
  });
  vite = await project.serve([project.path("node_modules", ".bin", "vite")]);
  browser = await launchBrowser();
}, 300_000);
afterAll(async () => {
  await browser.close();
  for (const one of [vite, project]) await one[Symbol.asyncDispose]();
}, 60_000);

describe.each(["react", "vue", "svelte"])("in a development build with %s", (framework) => {
  test("a component has one socket while it is mounted, none afterwards, and one when it comes back", async () => {
    await using server = await createTestServer({
      handlers: { message: (socket, _, text) => void socket.send(`echo ${text}`) },
      path: "/live",
      origins: [vite.origin],
    });
    const issued = () => server.logLines.filter((line) => line.includes("ticket_issued")).length;
    const context = await browser.newContext();
    const complaints = collectComplaints(context);
    const tab = await context.newPage();
    const fragment = new URLSearchParams({ url: server.url, token: await server.token("alice") });
    await tab.goto(`${vite.origin}/${framework}.html#${fragment}`);
    await tab.getByText("echo hello").waitFor();
    expect([issued(), server.server.socketCount]).toEqual([1, 1]);
    const toggle = tab.getByRole("button", { name: "Toggle" });
    await toggle.click();
    while (server.server.socketCount > 0) await Bun.sleep(5);
    expect(issued()).toBe(1);
    for (let round = 2; round < 5; round++) {
      await toggle.click();
      await tab.getByText("echo hello").waitFor();
      expect([issued(), server.server.socketCount]).toEqual([round, 1]);
      await toggle.click();
      while (server.server.socketCount > 0) await Bun.sleep(5);
    }
    expect(complaints).toEqual([]);
    await context.close();
  }, 60_000);
});

test("React reads a conversation and the list with useSyncExternalStore, mounted twice and made again", async () => {
  await using server = await createTestServer({ origins: [vite.origin] });
  const Origin = vite.origin;
  const session = await fetch(`${server.url}/api/auth/anonymous-session`, {
    method: "POST",
    headers: { Origin },
  });
  const Cookie = session.headers.get("set-cookie")?.split(";")[0] ?? "";
  await using visitor = openSocket(`${server.url.replace("http", "ws")}/ws/chat`, {
    Cookie,
    Origin,
  });
  await visitor.opened;
  const say = (content: string) => visitor.send({ type: "ANON_TO_USER", to: "alice", content });
  say("one");
  const { chatId: peer } = await visitor.next(({ type }) => type === "ANON_TO_USER");
  const context = await browser.newContext();
  const complaints = collectComplaints(context);
  const tab = await context.newPage();
  const token = await server.token("alice");
  const fragment = new URLSearchParams({ url: server.url, token, peer });
  await tab.goto(`${vite.origin}/chat.html#${fragment}`);
  await tab.getByText("1 chats: one", { exact: true }).waitFor();
  say("two");
  await tab.getByText("1 chats: one two", { exact: true }).waitFor();
  for (let round = 0; round < 2; round++) await tab.getByRole("button", { name: "Toggle" }).click();
  await tab.getByText("1 chats: one two", { exact: true }).waitFor();
  while (server.server.socketCount > 2) await Bun.sleep(5);
  say("three");
  await tab.getByText("1 chats: one two three", { exact: true }).waitFor();
  expect(server.server.socketCount).toBe(2);
  expect(complaints).toEqual([]);
  await context.close();
}, 60_000);

test("on a server the client is imported and rendered around, and says what it lacks", async () => {
  const output = await project.run(["node", "ssr.js"]);
  const missing = "TypeError: Option url is required outside a page";
  expect(output.trim().split("\n")).toEqual(["<p>none yet</p>", missing, missing]);
});
