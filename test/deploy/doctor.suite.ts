import { expect, test } from "bun:test";
import { join } from "node:path";
import { FRONTS, OWN_ADDRESS } from "./front.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { ROOT } from "./folder.ts";
import { temporaryFolder } from "../support/folder.ts";
import { deploy, type Deployment } from "./scene.ts";

/** Limits per address leave loopback out, so that what is judged has another one, where there is any. */
const HOST = OWN_ADDRESS ?? "localhost";

interface Outcome {
  readonly code: number;
  readonly findings: readonly {
    readonly id: string;
    readonly title: string;
    readonly mend: string;
  }[];
  readonly skipped: readonly string[];
  readonly requests: number;
}

/** Runs `ws-ticket doctor` on a deployment. */
async function examine(site: Deployment, ...options: string[]): Promise<Outcome> {
  await using folder = await temporaryFolder();
  await Bun.write(join(folder.path, "jwt"), await site.token());
  const program = [process.execPath, join(ROOT, "src/cli.ts"), "doctor", site.origin];
  const child = Bun.spawn([...program, "--token-file", "jwt", "--json", ...options], {
    cwd: folder.path,
    env: { NODE_EXTRA_CA_CERTS: site.front.caPath },
    stdout: "pipe",
    stderr: "ignore",
  });
  const { findings, checks, requests } = JSON.parse(await new Response(child.stdout).text());
  const skipped = checks.filter(({ outcome }: { outcome: string }) => outcome === "skipped");
  return {
    code: await child.exited,
    findings,
    skipped: skipped.map(({ id }: { id: string }) => id),
    requests,
  };
}

describeWith(
  ...FRONTS,
  "openssl",
  "redis-server",
)("ws-ticket doctor", () => {
  test.concurrent(
    "finds nothing behind the README's proxies, with a quiet socket and a ticket waited for",
    async () => {
      await using redis = await startRedis();
      const examined = await Promise.all(
        FRONTS.map(async (name) => {
          const isShared = name !== "caddy";
          await using site = await deploy(name, {
            ...{ host: HOST, count: isShared ? 2 : 1 },
            environment: {
              // Its own tickets are counted, too.
              TICKETS_PER_MINUTE: "60",
              ...(isShared && { REDIS_URL: redis.url }),
            },
          });
          const count = String(site.instances.length);
          return [name, await examine(site, "--slow", "--instances", count)] as const;
        }),
      );
      for (const [name, outcome] of examined) {
        expect({ name, ...outcome }).toEqual({
          name,
          ...{ code: 0, findings: [], requests: expect.any(Number) },
          // Two of them allow one address more requests than it sends.
          skipped: OWN_ADDRESS && name === "caddy" ? [] : ["limits"],
        });
      }
    },
    180_000,
  );

  // Beside the first one, as both wait on a quiet socket.
  test.concurrent.skipIf(OWN_ADDRESS === undefined)(
    "finds what TRUST_PROXY is missing for",
    async () => {
      await using site = await deploy("nginx", { host: HOST, environment: { TRUST_PROXY: "0" } });
      const { code, findings } = await examine(site);
      expect([code, findings.map(({ id }) => id)]).toEqual([1, ["limits"]]);
      expect(findings[0]?.mend).toContain("TRUST_PROXY");
    },
    180_000,
  );

  test.each([
    ["nginx", "PUBLIC_URL", { environment: { PUBLIC_URL: "" } }],
    ["nginx", "Redis", { count: 2 }],
    ["haproxy", "Redis", { count: 2 }],
  ] as const)(
    "behind %s says that %s is missing",
    async (name, missing, options) => {
      await using site = await deploy(name, { host: HOST, ...options });
      const { code, findings } = await examine(site);
      expect([code, findings[0]?.id]).toEqual([1, "connect"]);
      expect(findings[0]?.mend).toContain(missing);
    },
    60_000,
  );
});
