import { afterAll, beforeAll, expect, test } from "bun:test";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startUpstashBridge, type UpstashBridge } from "../support/upstash.ts";
import { type Program, startProgram } from "./program.ts";

describeWith("redis-server")(
  "a function that issues tickets, and a socket server elsewhere",
  () => {
    let redis: TestRedis;
    let bridge: UpstashBridge;
    let signIn: Program;
    let sockets: Program;
    beforeAll(async () => {
      redis = await startRedis();
      bridge = await startUpstashBridge(redis.url);
      const upstash = {
        UPSTASH_REDIS_REST_URL: bridge.url,
        UPSTASH_REDIS_REST_TOKEN: bridge.token,
      };
      [signIn, sockets] = await Promise.all([
        startProgram("serverless-function", { environment: upstash }),
        startProgram("serverless-sockets", { environment: { REDIS_URL: redis.url } }),
      ]);
    });
    afterAll(async () => {
      for (const one of [signIn, sockets, bridge, redis]) await one[Symbol.asyncDispose]();
    });

    test("a ticket of the function opens a socket at the server, once", async () => {
      const ticket = await signIn.ticket("alice");
      await using socket = await sockets.openLive(ticket);
      socket.send("hello");
      expect(await socket.next()).toEqual({ from: "alice", text: "hello" });
      await expect(sockets.openLive(ticket)).rejects.toThrow();
      expect(bridge.requests).not.toContain("GETDEL");
    });

    test("sign-out at the function closes the socket at the server, and no other", async () => {
      const [token, other] = [await signIn.token("bob"), await signIn.token("carol")];
      await using socket = await sockets.openLive(await signIn.ticketFor(token));
      await using otherSocket = await sockets.openLive(await signIn.ticketFor(other));
      const unused = await signIn.ticketFor(token);
      expect(await signIn.signOut(token)).toBe(204);
      expect(await socket.closed).toEqual({ code: 4500, reason: "Signed out" });
      await expect(sockets.openLive(unused)).rejects.toThrow();
      otherSocket.send("still here");
      expect(await otherSocket.next()).toMatchObject({ text: "still here" });
    });

    test("the function issues nothing while Redis is out of reach", async () => {
      bridge.fault = () => new Response(null, { status: 500 });
      const refused = await signIn.mint(await signIn.token("dave"));
      bridge.fault = undefined;
      expect(refused.status).toBe(503);
      expect(await refused.json()).toMatchObject({ code: "store_unavailable" });
    });
  },
);
