// Types of /__tidegate/client.js, for `declare module` or a copy next to your code.

/** Reason why there is no value: an HTTP status, or 0 if the stream broke off or was aborted. */
export interface Problem {
  status: number;
  message: string;
}

/** State of a loader. Only `done` means that its values are complete. */
export interface Loader<T = unknown> {
  readonly name: string;
  readonly status: "connecting" | "streaming" | "done" | "error";
  readonly value: T | undefined;
  readonly error: Problem | undefined;
  /** Calls `listener` at once and at each change. Call the returned function to unsubscribe. */
  subscribe(hear: (loader: Loader<T>) => void): () => void;
  /** Runs the loader again, over `/__loaders`. */
  reload(): Promise<void>;
  /** Cancels the current run. */
  abort(): void;
}

/** A loader that the present page does not have. */
export interface Where {
  page: string;
  params?: Record<string, string>;
  search?: string;
}

export function loader<T = unknown>(name: string, where?: Where): Loader<T>;

export type Outcome<T = unknown> =
  | { outcome: "success"; value: T; stale: string[] }
  | { outcome: "redirect"; status: number; location: string }
  | { outcome: "deny"; status: number; message: string; errors: Record<string, string> }
  | { outcome: "error"; status: number; message: string };

/**
 * Does the same as `<form data-enhance>`. Prevent the default of `tidegate:outcome` to stay on the
 * page after a redirect. The browser itself sends a form that a guard redirects, or that goes to
 * another site or window.
 */
export function enhance<T = unknown>(form: HTMLFormElement, hear?: (outcome: Outcome<T>) => void): void;

export interface SocketOptions {
  protocols?: string | string[];
  /** Maximum number of messages that wait for a connection, 100 by default. */
  queue?: number;
  /** Returns the position of a message in its stream; the next connection sends it as `?since=`. */
  id?: (data: string | Blob | ArrayBuffer) => string | number | undefined;
  since?: string | number;
  /**
   * A text that is sent after `every` milliseconds (20,000) of silence, and its answer, which
   * `onmessage` does not receive. After two texts without an answer the connection counts as lost.
   * On the server `set_auto_response(text, answer)` answers it without waking the app.
   */
  probe?: { text: string; answer: string; every?: number };
  onmessage?: (data: any) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { code: number; reason: string }) => void;
  onoverflow?: (message: string | ArrayBufferLike | Blob | ArrayBufferView) => void;
}

/**
 * A WebSocket that reconnects, except after 1000 and 4000 to 4999. The waits grow up to 30 seconds,
 * until a connection has lasted for 10 seconds.
 */
export function socket(
  url: string | URL,
  options?: SocketOptions,
): {
  /** False if the queue is full, or the socket closed for good. */
  send(message: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  close(code?: number, reason?: string): void;
};

export interface EventsOptions {
  lastEventId?: string;
  /** An event named `tidegate-gap` means that earlier events are lost: read the state again. */
  onevent?: (event: { type: string; data: string; lastEventId: string }) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { status?: number; message?: string }) => void;
}

/**
 * An event stream that reconnects and resumes. It ends by `close`, by a refusal (other than 408, 425,
 * 429 and 5xx), or by an answer that is not an event stream. The waits grow up to 30 seconds, until a
 * connection has lasted for 10 seconds; `retry:` in the stream sets their minimum. A stream of this
 * host without heartbeats counts as lost.
 */
export function events(url: string | URL, options?: EventsOptions): { close(): void };
