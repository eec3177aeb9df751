// Preloaded: a process on a machine where the optional package isn't installed.
Bun.plugin({
  name: "without-prom-client",
  setup(build) {
    build.module("prom-client", () => {
      throw new Error("Cannot find package 'prom-client'");
    });
  },
});
