import { createGate, redisTicketStore, upstashTransport } from "ws-ticket";

const transport = upstashTransport({
  url: process.env.UPSTASH_REDIS_REST_URL!,
  token: process.env.UPSTASH_REDIS_REST_TOKEN!,
});
const gate = createGate({
  users: { secret: process.env.JWT_SECRET! },
  store: redisTicketStore(transport),
});

export default { fetch: (request: Request) => gate.fetch(request) };
