import { expect, test } from "bun:test";
import { HANDSHAKE } from "../support/raw.ts";
import { describeWith } from "../support/require.ts";
import { getAnswer } from "../support/writing.ts";
import { FRONTS, HAS_IPV6 } from "./front.ts";
import { deploy, sendFrom } from "./scene.ts";

/** Where requests come from: another address than the proxy's. */
const CLIENT = "127.0.0.9";
const CLIENTS = HAS_IPV6 ? [CLIENT, "::1"] : [CLIENT];

const upgradeLines = Object.entries(HANDSHAKE).map(([name, value]) => `${name}: ${value}`);

for (const name of FRONTS) {
  describeWith(name, "openssl")(`behind ${name}, as the README has it,`, () => {
    test("a user and a visitor chat over the proxy's name", async () => {
      await using site = await deploy(name);
      const cookie = await site.visitorCookie();
      expect(cookie).toStartWith("__Host-anonSessionId=");
      await using visitor = await site.openVisitor(cookie);
      await getAnswer(site, visitor, "alice");
      await using user = await site.openUser("alice");
      visitor.send({ type: "ANON_TO_USER", to: "alice", content: "One more", ref: "1" });
      await visitor.next(({ type, ref }) => type === "ACK" && ref === "1");
      expect(await user.next()).toMatchObject({ content: "One more" });
      const page = await site.ask("/api/chats/alice/messages", { cookie });
      expect(page.body.messages).toHaveLength(3);
      expect((await site.ask("/")).headers.get("strict-transport-security")).toBe(
        "max-age=31536000",
      );
    });

    test.each(CLIENTS)(
      "the peer in the log is the client, %s, whatever it writes into X-Forwarded-For",
      async (client) => {
        await using site = await deploy(name);
        const [server] = site.instances;
        const { host } = new URL(site.origin);
        const forged = [`Host: ${host}`, "X-Forwarded-For: 198.51.100.7, 127.0.0.1"];
        const post = ["POST /api/auth/ws-ticket HTTP/1.1", "Content-Length: 0", ...forged];
        expect(await sendFrom(client, site.front, post)).toBe(401);
        expect(await server?.event("refused")).toMatchObject({ peer: client });
        for (const [ticket, status, event] of [
          ["no ticket", 401, "socket_refused"],
          [await site.ticket(), 101, "socket_opened"],
        ] as const) {
          const target = `GET /ws/chat?ticket=${encodeURIComponent(ticket)} HTTP/1.1`;
          const lines = [target, ...forged, ...upgradeLines];
          expect(await sendFrom(client, site.front, lines)).toBe(status);
          expect(await server?.event(event)).toMatchObject({ peer: client });
        }
        // Nothing that the settings are to blame for.
        const { TRUST_PROXY, PUBLIC_URL } = Object.fromEntries(
          server?.events.map(({ variable, note }) => [variable, note]) ?? [],
        );
        expect([TRUST_PROXY, PUBLIC_URL]).toEqual([undefined, undefined]);
      },
    );

    test("neither a ticket nor a token is in the proxy's logs, not even with nothing behind it", async () => {
      await using site = await deploy(name);
      const [server] = site.instances;
      const token = await site.token();
      const tickets = [await site.ticket(), await site.ticket()];
      /** The statuses of requests with a ticket, or with a token in its place, in the URL. */
      const spread = (ticket = "") =>
        Promise.all(
          [
            ...[
              `/ws/chat?ticket=${ticket}`,
              `//ws/chat?ticket=${ticket}`,
              `/ws/%63hat?a&ticket=${ticket}`,
            ],
            ...[`/ws/chat?token=${token}`, `/ws/chat?%74oken=${token};`],
          ].map((target) =>
            sendFrom(CLIENT, site.front, [
              ...[`GET ${target} HTTP/1.1`, "Host: localhost"],
              ...upgradeLines,
            ]),
          ),
        );
      expect(await spread(tickets[0])).toEqual([101, 404, 404, 400, 400]);
      server?.kill("SIGKILL");
      await server?.exited;
      for (const status of await spread(tickets[1])) expect(status).toBeOneOf([502, 503]);
      expect((await site.ask("/api/last")).status).toBeOneOf([502, 503]);
      let log = "";
      // It is written a moment after the response.
      for (; !log.includes("/api/last"); log = await site.front.log()) await Bun.sleep(10);
      expect(log).toContain("/ws/chat");
      for (const secret of [...tickets, token]) expect(log).not.toContain(secret);
    });
  });
}
