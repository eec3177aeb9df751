/** A client's end of a socket, with everything that came over it. */
export interface TestSocket extends AsyncDisposable {
  readonly socket: WebSocket;
  /** Resolves when it is open, rejects when it was refused. */
  readonly opened: Promise<void>;
  readonly closed: Promise<{ code: number; reason: string }>;
  /** Every frame so far, parsed. */
  readonly frames: readonly Frame[];
  /** The first unread frame that matches, already there or still to come. Rejects when the socket closes first. */
  next(matches?: (frame: Frame) => boolean): Promise<Frame>;
  /** Calls `take` with every frame, those that are there already first. */
  onFrame(take: (frame: Frame) => void): void;
  send(frame: unknown): void;
}

// biome-ignore lint: frames are whatever the server sends
export type Frame = Record<string, any>;

/** Opens a socket with headers of one's own, as no browser can. `ca`: trusts this certificate. */
export function openSocket(
  url: string,
  headers: Record<string, string> = {},
  { ca }: { ca?: string | undefined } = {},
): TestSocket {
  const options = { headers, ...(ca !== undefined && { tls: { ca } }) };
  const socket = new WebSocket(url, options as unknown as string[]);
  const opened = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<{ code: number; reason: string }>();
  const frames: Frame[] = [];
  const unread: Frame[] = [];
  const waiting = new Set<{
    matches: (frame: Frame) => boolean;
    resolve: (frame: Frame) => void;
    reject: (error: Error) => void;
  }>();
  let isClosed = false;
  const takers: ((frame: Frame) => void)[] = [];
  opened.promise.catch(() => {});
  socket.onopen = () => opened.resolve();
  socket.onclose = ({ code, reason }) => {
    opened.reject(new Error(`Socket closed before it was open: ${code}`));
    closed.resolve({ code, reason });
    isClosed = true;
    // After those that wait for the close itself.
    setImmediate(() => {
      for (const { reject } of waiting)
        reject(new Error(`Socket closed without the frame: ${code}`));
      waiting.clear();
    });
  };
  socket.onmessage = ({ data }) => {
    const frame: Frame = JSON.parse(data as string);
    frames.push(frame);
    for (const take of takers) take(frame);
    for (const waiter of waiting) {
      if (!waiter.matches(frame)) continue;
      waiting.delete(waiter);
      waiter.resolve(frame);
      return;
    }
    unread.push(frame);
  };
  return {
    socket,
    opened: opened.promise,
    closed: closed.promise,
    frames,
    next(matches = () => true) {
      const at = unread.findIndex(matches);
      if (at >= 0) return Promise.resolve(unread.splice(at, 1)[0] as Frame);
      if (isClosed) return Promise.reject(new Error("Socket is closed"));
      const { promise, resolve, reject } = Promise.withResolvers<Frame>();
      promise.catch(() => {});
      waiting.add({ matches, resolve, reject });
      return promise;
    },
    onFrame(take) {
      for (const frame of frames) take(frame);
      takers.push(take);
    },
    send: (frame) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
    async [Symbol.asyncDispose]() {
      socket.close();
      await closed.promise;
    },
  };
}
