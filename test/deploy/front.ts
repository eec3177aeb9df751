import { mkdtemp, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { certificateFor } from "../support/certificate.ts";
import { freePort } from "../support/redis.ts";
import { blockWith, fitted } from "./readme.ts";

export const FRONTS = ["nginx", "caddy", "haproxy"] as const;
export type FrontName = (typeof FRONTS)[number];

/** A real proxy with TLS, as the README has it. */
export interface Front extends AsyncDisposable {
  /** What browsers see. */
  readonly origin: string;
  readonly port: number;
  /** Its certificate, which vouches for itself: as PEM, and where it is. */
  readonly ca: string;
  readonly caPath: string;
  /** Everything that it has logged so far. */
  log(): Promise<string>;
}

/** An address of this machine that isn't loopback, where there is one: so that limits per address apply. */
export const OWN_ADDRESS = Object.values(networkInterfaces())
  .flatMap((some) => some ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

export const HAS_IPV6 = Object.values(networkInterfaces()).some((some) =>
  some?.some(({ family }) => family === "IPv6"),
);

/** Starts one in front of an instance on each of these ports, and waits until it listens. */
export async function startFront(
  name: FrontName,
  {
    to,
    host = "localhost",
    port = freePort(),
  }: { to: readonly number[]; host?: string; port?: number },
): Promise<Front> {
  const folder = await mkdtemp(join(tmpdir(), `ws-ticket-${name}-`));
  const { key, cert } = await certificateFor(
    ...["DNS:localhost", "IP:127.0.0.1", "IP:::1"],
    ...(OWN_ADDRESS ? [`IP:${OWN_ADDRESS}`] : []),
  );
  const files = {
    cert: join(folder, "cert.pem"),
    key: join(folder, "key.pem"),
    both: join(folder, "both.pem"),
  };
  await Bun.write(files.cert, cert);
  await Bun.write(files.key, key);
  await Bun.write(files.both, cert + key);
  const settings = { folder, files, host, port, to };
  const command = await COMMANDS[name](settings);
  const output = join(folder, "output.log");
  const child = Bun.spawn(command, {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder },
    stdout: Bun.file(output),
    stderr: Bun.file(join(folder, "errors.log")),
  });
  const log = async () => {
    const names = await Array.fromAsync(new Bun.Glob("*.log").scan(folder));
    return (await Promise.all(names.map((one) => Bun.file(join(folder, one)).text()))).join("\n");
  };
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error(`${name} didn't start: ${await log()}`);
    await Bun.sleep(10);
  }
  return {
    origin: `https://${host}:${port}`,
    port,
    ca: cert,
    caPath: files.cert,
    log,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 2_000);
      await child.exited;
      clearTimeout(timer);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function listens(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false;
  }
}

interface Settings {
  readonly folder: string;
  readonly files: { readonly cert: string; readonly key: string; readonly both: string };
  readonly host: string;
  readonly port: number;
  readonly to: readonly number[];
}

/** The block with the ports of the instances; the second one is left out where there is none. */
function withInstances(block: string, [first, second]: readonly number[]): string {
  const lines = block.split("\n");
  const kept = second ? lines : lines.filter((line) => !line.includes("127.0.0.1:3001"));
  return fitted(kept.join("\n"), {
    "127.0.0.1:3000": `127.0.0.1:${first}`,
    ...(second && { "127.0.0.1:3001": `127.0.0.1:${second}` }),
  });
}

/** Writes the files, and returns the command. */
const COMMANDS: Record<FrontName, (settings: Settings) => Promise<string[]>> = {
  async nginx({ folder, files, host, port, to }) {
    const site = fitted(withInstances(blockWith("/etc/nginx/conf.d/ws-ticket.conf"), to), {
      ...(HAS_IPV6
        ? { "listen [::]:443": `listen [::]:${port}` }
        : { "listen [::]:443 ssl http2;": "" }),
      "listen 443": `listen ${port}`,
      "chat.example.com;": `${host};`,
      "/etc/ssl/chat.example.com.pem": files.cert,
      "/etc/ssl/chat.example.com.key": files.key,
      "/var/log/nginx/ws-ticket.log": join(folder, "access.log"),
    });
    await Bun.write(join(folder, "site.conf"), site);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    // What Debian's own nginx.conf says, as far as it matters here.
    await Bun.write(
      join(folder, "nginx.conf"),
      `daemon off; pid ${folder}/pid; error_log ${folder}/error.log;
      events { worker_connections 4096; }
      http {
        access_log ${folder}/main.log;
        ${temporary.map((one) => `${one}_temp_path ${folder}/${one};`).join(" ")}
        include site.conf;
      }`,
    );
    return [
      "nginx",
      "-p",
      folder,
      "-e",
      join(folder, "error.log"),
      "-c",
      join(folder, "nginx.conf"),
    ];
  },
  async caddy({ folder, files, host, port, to }) {
    const site = fitted(withInstances(blockWith("/etc/caddy/Caddyfile"), to), {
      "chat.example.com {": `https://${host}:${port} {\n  tls ${files.cert} ${files.key}`,
      // Names of this machine alone, for which nobody else has to be asked.
      "  log default {": `  admin off\n  auto_https off\n  default_sni localhost\n  storage file_system ${folder}\n  log default {`,
    });
    await Bun.write(join(folder, "Caddyfile"), site);
    return ["caddy", "run", "--config", join(folder, "Caddyfile"), "--adapter", "caddyfile"];
  },
  async haproxy({ folder, files, port, to }) {
    const block = fitted(withInstances(blockWith("/etc/haproxy/haproxy.cfg"), to), {
      ":443,[::]:443 v6only": HAS_IPV6 ? `:${port},[::]:${port} v6only` : `:${port}`,
      "/etc/haproxy/chat.example.com.pem": files.both,
    });
    const debian = await Bun.file("/etc/haproxy/haproxy.cfg").text();
    const defaults = debian.slice(debian.indexOf("\ndefaults"));
    const config = `global\n  log stdout format raw local0\n  maxconn 4000\n${defaults}\n${block}`;
    await Bun.write(join(folder, "haproxy.cfg"), config);
    return ["haproxy", "-db", "-f", join(folder, "haproxy.cfg")];
  },
};
