/** @jsxImportSource hono/jsx */
import { raw } from "hono/html";
import type { Child } from "hono/jsx";
import type { Config } from "../config.ts";
import type { Profile } from "../gate/identity.ts";
import { EN } from "./browser/words.ts";
import type { SiteFiles } from "./files.ts";

/** What the pages show of the configuration. */
export type PageOptions = Pick<Config, "demo"> &
  Partial<Pick<Config, "loginUrl" | "embedOrigins" | "publicUrl">>;

/** Where everything is: the path before all others, and the whole path of an asset. */
interface Places extends Pick<SiteFiles, "pathOf"> {
  publicPath: string;
}

type Html = ReturnType<typeof Page>;

/** `/`: for people who come here without a link to somebody. */
export function home({ demo, pathOf, publicPath }: PageOptions & Places): Html {
  return (
    <Page
      title="Chat"
      // The demo is for developers, and in English alone.
      {...(!demo && { script: "plain.js" })}
      pathOf={pathOf}
      publicPath={publicPath}
      className="home"
    >
      <main>
        <h1>
          <img src={pathOf("icon.svg")} alt="" width={44} height={44} /> Chat
        </h1>
        {demo ? (
          <section class="card" aria-labelledby="try">
            <h2 id="try">Be both sides of a chat</h2>
            <p>
              Nothing is configured, so this is the demo: everything is in memory, and anybody on
              this machine signs in under any name.
            </p>
            <ul class="actions">
              <li>
                <a class="button" href={`${publicPath}/inbox#alice`} target="_blank" rel="noopener">
                  Open the inbox as alice
                </a>
              </li>
              <li>
                <a
                  class="button quiet"
                  href={`${publicPath}/chat/alice`}
                  target="_blank"
                  rel="noopener"
                >
                  Write to alice as a visitor
                </a>
              </li>
            </ul>
          </section>
        ) : (
          <section class="card">
            <p data-word="howToWrite">{EN.howToWrite}</p>
            <p data-word="howToAnswer">{EN.howToAnswer}</p>
            <ul class="actions">
              <li>
                <a class="button" href={`${publicPath}/inbox`} data-word="openInbox">
                  {EN.openInbox}
                </a>
              </li>
            </ul>
          </section>
        )}
      </main>
    </Page>
  );
}

/** In place of a page that doesn't exist. */
export function notFound({ pathOf, publicPath }: Places): Html {
  return (
    <Page
      title={EN.notFound}
      script="plain.js"
      pathOf={pathOf}
      publicPath={publicPath}
      className="home"
    >
      <main>
        <h1 data-word="notFound">{EN.notFound}</h1>
        <p data-word="notFoundHint">{EN.notFoundHint}</p>
      </main>
    </Page>
  );
}

/** `/chat/:user`: a visitor writes to that user. With `embed`, in a frame on a page of `host`'s. */
export function chat({
  user,
  profile: { name = user, greeting },
  embed,
  pathOf,
  publicPath,
}: {
  user: string;
  profile: Profile;
  embed?: { host: string; language: string | undefined } | undefined;
} & Places): Html {
  const [before, after] = EN.chatWith.split("{name}");
  return (
    <Page
      title={`Chat with ${name}`}
      script={embed ? "frame.js" : "chat.js"}
      pathOf={pathOf}
      publicPath={publicPath}
      className="app"
      data={{
        user,
        name,
        greeting,
        embed: embed?.host,
        lang: embed?.language,
      }}
    >
      <header class="bar" id="bar">
        <h1 id="title">
          {before}
          <bdi>{name}</bdi>
          {after}
        </h1>
      </header>
      <State />
      <main class="thread-place" id="thread">
        <NoScript />
      </main>
    </Page>
  );
}

/** `/inbox` and `/inbox/:visitor`: a user's chats. */
export function inbox(options: PageOptions & Places): Html {
  const { demo, loginUrl, embedOrigins, pathOf, publicPath } = options;
  const mode = demo ? "demo" : loginUrl ? "login" : "token";
  return (
    <Page
      title="Inbox"
      script="inbox.js"
      pathOf={pathOf}
      publicPath={publicPath}
      className="app"
      data={{
        mode,
        login: loginUrl?.href,
        embeds: embedOrigins && "yes",
      }}
    >
      <header class="bar" id="bar">
        <h1 data-word="inbox">{EN.inbox}</h1>
      </header>
      <State />
      <main id="main">
        <NoScript />
      </main>
    </Page>
  );
}

function Page(
  props: Places & {
    title: string;
    script?: string;
    className: string;
    data?: Record<string, string | undefined>;
    children: Child;
  },
) {
  const { title, script, pathOf, publicPath, className, data = {}, children } = props;
  const dataset = Object.fromEntries(
    Object.entries({ base: publicPath || undefined, ...data }).flatMap(([name, value]) =>
      value === undefined ? [] : [[`data-${name}`, value]],
    ),
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
          <link rel="icon" type="image/svg+xml" href={pathOf("icon.svg")} />
          <link rel="stylesheet" href={pathOf("style.css")} />
          {script && <script type="module" src={pathOf(script)} />}
        </head>
        <body class={className}>{children}</body>
      </html>
    </>
  );
}

/** What is wrong with the connection, and a way to hurry it up. Its texts are the browser's. */
function State() {
  return (
    <div class="state unseen" id="state">
      <p>
        <span role="status" id="state-text" />
        <span id="state-countdown" aria-hidden="true" />
      </p>
      <button type="button" class="quiet small" id="state-retry" hidden />
    </div>
  );
}

function NoScript() {
  return (
    <noscript>
      <p class="empty" data-word="noScript">
        {EN.noScript}
      </p>
    </noscript>
  );
}
