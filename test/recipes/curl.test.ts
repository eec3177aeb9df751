import { expect, test } from "bun:test";
import { join } from "node:path";
import { describeWith } from "../support/require.ts";
import { startSite } from "../support/site.ts";

const README = join(import.meta.dir, "../../README.md");

/** What bash prints when the commands of the README are pasted into it, for a server at `origin`. */
async function paste(origin: string, token?: string): Promise<string> {
  const readme = await Bun.file(README).text();
  const [, block = ""] = /```sh\n(BASE=.*?)```/s.exec(readme) ?? [];
  const commands = block.replace(/^BASE=.*$/m, `BASE=${origin}`);
  const ours = token === undefined ? commands : commands.replace(/^TOKEN=.*$/m, `TOKEN=${token}`);
  const shell = Bun.spawn(["bash"], { stdin: new Blob([ours]), stderr: "ignore" });
  return new Response(shell.stdout).text();
}

describeWith("curl")("the commands of the README", () => {
  for (const demo of [true, false]) {
    test.concurrent(
      `let a user in once, and a visitor: ${demo ? "in the demo" : "with a token"}`,
      async () => {
        await using site = startSite({ demo });
        const output = await paste(site.origin, demo ? undefined : await site.token("alice"));
        const answers = output.match(/HTTP\/1.1 \d+/g)?.map((line) => line.slice(-3));
        expect(answers).toEqual(["101", "401", "101"]);
        expect(output).toContain("ticket_refused");
      },
    );
  }
});
