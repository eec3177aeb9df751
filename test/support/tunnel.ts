import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";

/** A way to a port of this machine that can go dark: what is sent into it is lost, without an error at either end. */
export interface Tunnel extends AsyncDisposable {
  readonly port: number;
  /** From now on nothing comes out at either end, no FIN either. */
  stopForwarding(): void;
}

export async function startTunnel(target: number): Promise<Tunnel> {
  const ends = new Set<Socket>();
  let dark = false;
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = createConnection({ port: target, host: "127.0.0.1", allowHalfOpen: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      ends.add(from);
      from.on("data", (chunk) => void (dark || to.write(chunk)));
      from.on("end", () => void (dark || to.end()));
      from.on("error", () => {});
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    stopForwarding() {
      dark = true;
    },
    async [Symbol.asyncDispose]() {
      for (const end of ends) end.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
