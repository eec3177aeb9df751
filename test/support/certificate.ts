import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A certificate and its key, as PEM. */
export interface TestCertificate {
  readonly key: string;
  readonly cert: string;
}

/** A new certificate that nobody vouches for but itself, for these names (`DNS:localhost`, `IP:127.0.0.1`). Needs openssl. */
export async function certificateFor(...names: string[]): Promise<TestCertificate> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-tls-"));
  const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
  try {
    const made = Bun.spawnSync([
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
      ...["-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=ws-ticket test"],
      ...["-addext", `subjectAltName=${names.join(",")}`],
    ]);
    if (made.exitCode !== 0) throw new Error(`No certificate: ${made.stderr}`);
    return { key: await Bun.file(key).text(), cert: await Bun.file(cert).text() };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
