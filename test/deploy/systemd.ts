import { join } from "node:path";

/** A systemd of one's own, as the first process of its own namespaces, on a copy of this machine that is thrown away. */
export interface Machine extends AsyncDisposable {
  /** Runs a command in there until it ends. */
  run(...command: readonly string[]): Promise<{ readonly code: number; readonly stdout: string }>;
}

/** How long it may take to start, in milliseconds. */
const BOOT_MS = 20_000;

/**
 * Makes the machine: `$1` is an empty folder for it, `$2` is laid over its root, and `$3` is a group for its processes.
 * Nothing that it writes is on this machine, and of the kernel's settings it may write none.
 */
const BOOT = String.raw`
mkdir -p "$3"; echo $$ > "$3/cgroup.procs"
exec unshare --cgroup --pid --mount --ipc --uts --net --fork --kill-child sh -euc '
  mount --make-rprivate /
  mount -t tmpfs tmpfs "$1"
  mkdir "$1/upper" "$1/work" "$1/root"
  cp -a "$2/." "$1/upper"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
  cd "$1/root"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount --rbind /dev dev
  mount -t sysfs sysfs sys
  mount -t tmpfs tmpfs run
  mount -t tmpfs tmpfs tmp
  if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
  else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
  fi
  mkdir .old
  pivot_root . .old
  umount -l .old
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=test.target --show-status=no
' sh "$@"`;

/** Starts one with these files laid over its root; \`undefined\` where this machine doesn't allow it. */
export async function bootMachine(folder: string, files: string): Promise<Machine | undefined> {
  const target = "[Unit]\nDescription=For tests\nDefaultDependencies=no\n";
  await Bun.write(join(files, "etc/systemd/system/test.target"), target);
  const isOld = await Bun.file("/sys/fs/cgroup/systemd/cgroup.procs").exists();
  const group = join(
    isOld ? "/sys/fs/cgroup/systemd" : "/sys/fs/cgroup",
    `ws-ticket-${process.pid}`,
  );
  const child = Bun.spawn(["sh", "-euc", BOOT, "sh", folder, files, group], {
    stdout: "ignore",
    stderr: "ignore",
  });

  async function run(...command: readonly string[]) {
    const children = Bun.file(`/proc/${child.pid}/task/${child.pid}/children`);
    const first = (await children.text().catch(() => "")).trim();
    if (!first) return { code: -1, stdout: "" };
    const inside = Bun.spawn(
      ["nsenter", "--target", first, "-m", "-p", "-C", "-n", "-u", "-i", ...command],
      { stdout: "pipe", stderr: "ignore" },
    );
    const stdout = await new Response(inside.stdout).text();
    return { code: await inside.exited, stdout: stdout.trim() };
  }
  async function end() {
    child.kill("SIGKILL");
    await child.exited;
    // Its groups are empty a moment later.
    for (let tries = 0; tries < 50; tries++) {
      const removed = Bun.spawnSync([
        "find",
        group,
        "-depth",
        "-type",
        "d",
        "-exec",
        "rmdir",
        "{}",
        "+",
      ]);
      if (removed.exitCode === 0) break;
      await Bun.sleep(50);
    }
  }

  const endMs = performance.now() + BOOT_MS;
  while (performance.now() < endMs && child.exitCode === null) {
    if ((await run("systemctl", "is-system-running")).stdout === "running") {
      return { run, [Symbol.asyncDispose]: end };
    }
    await Bun.sleep(100);
  }
  await end();
  return undefined;
}
