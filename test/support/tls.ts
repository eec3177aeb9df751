import { type AddressInfo, createConnection } from "node:net";
import { createServer } from "node:tls";
import type { TestCertificate } from "./certificate.ts";

/** A TLS server in front of a plain one, as a proxy that hands everything on as it is. */
export interface TlsFront extends AsyncDisposable {
  readonly port: number;
  /** From now on, what comes in goes to this port. */
  target: number;
}

export async function startTlsFront(
  certificate: TestCertificate,
  { target = 0 } = {},
): Promise<TlsFront> {
  const server = createServer(certificate, (near) => {
    const far = createConnection({ port: front.target, host: "127.0.0.1" });
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
    near.pipe(far).pipe(near);
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const front: TlsFront = {
    port: (server.address() as AddressInfo).port,
    target,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
  return front;
}
