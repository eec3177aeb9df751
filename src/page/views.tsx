/** @jsxImportSource hono/jsx */
import { raw } from "hono/html";
import type { Child } from "hono/jsx";
import type { Config } from "../config.ts";

/** What the pages show of the configuration. */
export type PageOptions = Pick<Config, "demo"> &
  Partial<Pick<Config, "publicUrl" | "allowedOrigins" | "userClaim">>;

/** Where everything is: `/`, or the server's path with a slash at its end. */
interface Place {
  base: string;
}

type Html = ReturnType<typeof Page>;

/** `/`: what this is, and how to call it. */
export function home(options: PageOptions & Place & { origin: string }): Html {
  const { demo, origin, base, allowedOrigins } = options;
  const setBase = `BASE='${origin}${base.slice(0, -1)}'`;
  const upgrade = [
    "curl -i --http1.1 --max-time 1",
    "-H 'Connection: Upgrade'",
    "-H 'Upgrade: websocket'",
    "-H 'Sec-WebSocket-Version: 13'",
    "-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='",
  ];
  const user = [
    setBase,
    demo
      ? `TOKEN=$(curl -s "$BASE/api/demo/token" -H 'Content-Type: application/json' -d '{"name":"alice"}' | cut -d'"' -f4)`
      : "# TOKEN is a JWT of your issuer",
    `TICKET=$(curl -s -X POST "$BASE/api/auth/ws-ticket" -H "Authorization: Bearer $TOKEN" | cut -d'"' -f4)`,
    command(...upgrade, '"$BASE/ws/chat?ticket=$TICKET"'),
  ].join("\n");
  const visitor = [
    setBase,
    `COOKIE=$(curl -s -D - -X POST "$BASE/api/auth/anonymous-session" | grep -i '^set-cookie:' | cut -d' ' -f2 | tr -d ';')`,
    command(
      ...upgrade,
      ...[
        '-H "Cookie: $COOKIE"',
        `-H 'Origin: ${allowedOrigins?.[0] ?? origin}'`,
        '"$BASE/ws/chat"',
      ],
    ),
  ].join("\n");
  const browser = [
    `import { createChatClient } from "${base}client.js";`,
    "",
    `const chat = createChatClient({ ${base === "/" ? "" : `url: "${base}", `}getToken: () => session.jwt });`,
    'chat.on("state", ({ status }) => console.log(status));',
    'chat.conversation(visitorId).send("Hello");',
  ].join("\n");

  return (
    <Page base={base} title="ws-ticket" script="home" className="home">
      <main>
        <header>
          <h1>
            <img src={`${base}assets/icon.svg`} alt="" width={44} height={44} /> ws-ticket
          </h1>
          <p class="lead">
            Authenticated WebSockets without a JWT in the URL. A signed-in user swaps the JWT for a
            ticket that works once, for 30 seconds. A visitor is known by one signed cookie.
          </p>
        </header>
        {demo ? (
          <section class="card" aria-labelledby="try">
            <h2 id="try">Be both sides of a chat</h2>
            <p>
              Nothing is configured, so this is the demo: everything is in memory, and anybody on
              this machine signs in under any name.
            </p>
            <ul class="actions">
              <li>
                <a class="button" href={`${base}inbox#alice`} target="_blank" rel="noopener">
                  Open the inbox as alice
                </a>
              </li>
              <li>
                <a class="button quiet" href={`${base}chat/alice`} target="_blank" rel="noopener">
                  Write to alice as a visitor
                </a>
              </li>
            </ul>
          </section>
        ) : (
          <section class="card" aria-labelledby="try">
            <h2 id="try">The chat</h2>
            <p>
              Visitors write to a user at <code>{base}chat/</code> and the user’s id. The user
              answers in the inbox.
            </p>
            <ul class="actions">
              <li>
                <a class="button" href={`${base}inbox`}>
                  Open the inbox
                </a>
              </li>
            </ul>
          </section>
        )}
        <section aria-labelledby="user">
          <h2 id="user">A user: ticket, then socket</h2>
          <p>
            The JWT travels in a header, never in a URL. The socket answers <code>101</code>; the
            last command once more answers <code>401</code>, because the ticket is spent.
          </p>
          <Code label="Shell, as a user" text={user} />
        </section>
        <section aria-labelledby="visitor">
          <h2 id="visitor">A visitor: cookie, then socket</h2>
          <p>The cookie counts only together with the origin of a page that may use it.</p>
          <Code label="Shell, as a visitor" text={visitor} />
        </section>
        <section aria-labelledby="browser">
          <h2 id="browser">In the browser</h2>
          <p>
            <a href={`${base}client.js`}>client.js</a> gets a ticket for every socket, comes back
            when the connection is lost, and neither loses nor doubles a message. Without{" "}
            <code>getToken</code> it is a visitor’s.
          </p>
          <Code label="Your page’s script" text={browser} />
        </section>
      </main>
    </Page>
  );
}

/** A command of several lines. */
function command(...words: string[]): string {
  return words.join(" \\\n  ");
}

/** `/chat/:user`: a visitor writes to that user. */
export function chat({ user, base }: Place & { user: string }): Html {
  return (
    <Page base={base} title={`Chat with ${user}`} script="chat" className="app" data={{ user }}>
      <header class="bar">
        <h1>
          Chat with <bdi>{user}</bdi>
        </h1>
        <State />
      </header>
      <main class="thread-place" id="thread">
        <NoScript />
      </main>
    </Page>
  );
}

/** `/inbox`: a user's chats. */
export function inbox({ demo, base, userClaim = "sub" }: PageOptions & Place): Html {
  return (
    <Page
      base={base}
      title="Inbox"
      script="inbox"
      className="app"
      data={{ mode: demo ? "demo" : "token", claim: userClaim }}
    >
      <header class="bar">
        <h1>Inbox</h1>
        <span class="who" id="who" hidden />
        <State hidden />
        <button type="button" class="quiet small" id="sign-out" hidden>
          Sign out
        </button>
      </header>
      <main id="inbox">
        <NoScript />
        <form class="card sign-in" id="sign-in" autocomplete="off" method="post" hidden>
          {demo ? (
            <>
              <label for="credential">Name</label>
              <input id="credential" autocomplete="off" spellcheck={false} maxlength={255} />
              <p class="hint">This is the demo: any name signs in, without a password.</p>
            </>
          ) : (
            <>
              <label for="credential">JWT</label>
              <textarea id="credential" rows={5} autocomplete="off" spellcheck={false} />
              <p class="hint">
                From your issuer. It stays in this tab’s memory and is gone when you reload.
              </p>
            </>
          )}
          <p class="problem" id="problem" role="alert" />
          <button type="submit">Sign in</button>
        </form>
        <div class="panes" id="panes" data-view="list" hidden>
          <nav aria-label="Chats">
            <p class="problem" id="list-problem" role="alert" />
            <ul id="chats" />
            <div class="empty" id="no-chats" hidden>
              <p>No messages yet.</p>
              <p id="share" hidden>
                Visitors write to you here: <a id="share-link" />
              </p>
            </div>
          </nav>
          <section class="thread-place" id="thread" aria-label="Chat">
            <p class="empty" id="no-thread" hidden>
              Choose a chat to read it.
            </p>
          </section>
        </div>
      </main>
    </Page>
  );
}

function Page(props: {
  base: string;
  title: string;
  script: string;
  className: string;
  data?: Record<string, string>;
  children: Child;
}) {
  const { base, title, script, className, data = {}, children } = props;
  const dataset = Object.fromEntries(
    Object.entries({ base, ...data }).map(([name, value]) => [`data-${name}`, value]),
  );
  return (
    <>
      {raw("<!doctype html>")}
      <html lang="en" {...dataset}>
        <head>
          <meta charset="utf-8" />
          <meta name="viewport" content="width=device-width, initial-scale=1" />
          <meta name="color-scheme" content="light dark" />
          <title>{title}</title>
          <link rel="icon" type="image/svg+xml" href={`${base}assets/icon.svg`} />
          <link rel="stylesheet" href={`${base}assets/style.css`} />
          <script type="module" src={`${base}assets/${script}.js`} />
        </head>
        <body class={className}>{children}</body>
      </html>
    </>
  );
}

/** The connection's state: text for everybody, and a way to hurry it up. */
function State({ hidden = false }: { hidden?: boolean }) {
  return (
    <div class="state" id="state" data-status="connecting" hidden={hidden}>
      <p role="status">
        <span id="state-text">Connecting…</span>
        <span id="state-countdown" aria-hidden="true" />
      </p>
      <button type="button" class="quiet small" id="state-retry" hidden>
        Try now
      </button>
    </div>
  );
}

function NoScript() {
  return (
    <noscript>
      <p class="empty">This page needs JavaScript: the chat runs over a WebSocket.</p>
    </noscript>
  );
}

function Code({ label, text }: { label: string; text: string }) {
  return (
    <div class="code">
      <p class="code-head">{label}</p>
      <pre tabindex={0} role="region" aria-label={label}>
        <code>{text}</code>
      </pre>
    </div>
  );
}
