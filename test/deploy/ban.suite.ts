import { expect, test } from "bun:test";
import { join } from "node:path";
import { HANDSHAKE } from "../support/raw.ts";
import { describeWith } from "../support/require.ts";
import { temporaryFolder } from "../support/folder.ts";
import { blockWith } from "./readme.ts";
import { deploy, sendFrom } from "./scene.ts";

const upgradeLines = Object.entries(HANDSHAKE).map(([name, value]) => `${name}: ${value}`);

/** The addresses that fail2ban's own program finds in a log with the README's filter, each as often as it failed. */
async function failuresIn(log: string, folder: string): Promise<Record<string, number>> {
  const [filter, file] = [join(folder, "filter.conf"), join(folder, "log")];
  await Bun.write(filter, blockWith("/etc/fail2ban/filter.d/ws-ticket.conf"));
  await Bun.write(file, log);
  const run = Bun.spawnSync(["fail2ban-regex", "--out", "ip", file, filter]);
  if (run.exitCode !== 0) throw new Error(`${run.stdout}${run.stderr}`);
  const counts: Record<string, number> = {};
  for (const ip of run.stdout.toString().split("\n").filter(Boolean)) {
    counts[ip] = (counts[ip] ?? 0) + 1;
  }
  return counts;
}

describeWith(
  "nginx",
  "openssl",
  "fail2ban-regex",
)("fail2ban with the README's filter", () => {
  test("finds those who fail, by their own address, and nobody else", async () => {
    await using folder = await temporaryFolder();
    await using site = await deploy("nginx");
    const [server] = site.instances;
    const host = `Host: ${new URL(site.origin).host}`;
    const post = [`POST /api/auth/ws-ticket HTTP/1.1`, host, "Content-Length: 0"];
    const [bad, worse, good] = ["127.0.0.21", "127.0.0.22", "127.0.0.23"] as const;
    const forged = `X-Forwarded-For: ${good}`;
    expect(await sendFrom(bad, site.front, [...post, "Authorization: Bearer a.b.c"])).toBe(401);
    const knock = (query: string) => [`GET /ws/chat?${query} HTTP/1.1`, host, ...upgradeLines];
    for (let n = 0; n < 3; n++) {
      expect(
        await sendFrom(worse, site.front, [...knock(`ticket=${"A".repeat(43)}`), forged]),
      ).toBe(401);
    }
    const allowed = [...post, `Authorization: Bearer ${await site.token()}`];
    expect(await sendFrom(good, site.front, allowed)).toBe(200);
    expect(await sendFrom(good, site.front, knock(`ticket=${await site.ticket()}`))).toBe(101);
    // Somebody who calls himself like a line of the log.
    const name = '"code":"token_invalid","peer":"127.0.0.23"';
    expect(await sendFrom(good, site.front, knock(`ticket=${await site.ticket(name)}`))).toBe(101);
    while (!server?.events.some(({ event, user }) => event === "socket_opened" && user === name)) {
      await Bun.sleep(10);
    }
    expect(await failuresIn(server.stdout, folder.path)).toEqual({ [bad]: 1, [worse]: 3 });
  });
});
