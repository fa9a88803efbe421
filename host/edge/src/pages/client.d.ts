// Types of /__tidegate/client.js, for `declare module` or a copy beside your code.

/** Why there is no value: a status of HTTP, or 0 if the stream broke off or was aborted. */
export interface Problem {
  status: number;
  message: string;
}

/** What a loader has brought so far. Only `done` says that nothing is missing. */
export interface Loader<T = unknown> {
  readonly name: string;
  readonly status: "connecting" | "streaming" | "done" | "error";
  readonly value: T | undefined;
  readonly error: Problem | undefined;
  /** Calls at once, and at each change; call what it returns to hear no more. */
  subscribe(hear: (loader: Loader<T>) => void): () => void;
  /** Runs it again by itself, over `/__loaders`. */
  reload(): Promise<void>;
  /** Gives a run up. */
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
 * As `<form data-enhance>`. Prevent the default of `tidegate:outcome` to stay on the page after a redirect. A form that a guard sends
 * elsewhere, or that goes to another site or window, is left to the browser.
 */
export function enhance<T = unknown>(form: HTMLFormElement, hear?: (outcome: Outcome<T>) => void): void;

export interface SocketOptions {
  protocols?: string | string[];
  /** Messages that wait for a connection: 100. */
  queue?: number;
  /** The place of a message in its stream; the next connection asks with `?since=`. */
  id?: (data: string | Blob | ArrayBuffer) => string | number | undefined;
  since?: string | number;
  /**
   * A text that is sent when nothing has come for `every` milliseconds (20,000), and its answer, which `onmessage` does not get. After two
   * without an answer the connection counts as lost. On the server `set_auto_response(text, answer)` answers it without waking the app.
   */
  probe?: { text: string; answer: string; every?: number };
  onmessage?: (data: any) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { code: number; reason: string }) => void;
  onoverflow?: (message: string | ArrayBufferLike | Blob | ArrayBufferView) => void;
}

/**
 * A WebSocket that comes back, but after 1000 and 4000 to 4999. Waits between connections grow to 30 seconds, until one has held for 10
 * seconds.
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
  /** An event named `tidegate-gap` says that events before it are gone for good: read the state anew. */
  onevent?: (event: { type: string; data: string; lastEventId: string }) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { status?: number; message?: string }) => void;
}

/**
 * An event stream that comes back to where it was. It ends by `close`, by a refusal (other than 408, 425, 429 and 5xx), or by an answer that
 * is no event stream. Waits between connections grow to 30 seconds, until one has held for 10 seconds; they are at least what the stream says
 * by `retry:`. A stream of this host whose heartbeats stay away counts as lost.
 */
export function events(url: string | URL, options?: EventsOptions): { close(): void };
