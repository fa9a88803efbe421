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

/** As `<form data-enhance>`. Prevent the default of `tidegate:outcome` to stay on the page after a redirect. */
export function enhance<T = unknown>(form: HTMLFormElement, hear?: (outcome: Outcome<T>) => void): void;

export interface SocketOptions {
  protocols?: string | string[];
  /** Messages that wait for a connection: 100. */
  queue?: number;
  /** The place of a message in its stream; the next connection asks with `?since=`. */
  id?: (data: string | Blob | ArrayBuffer) => string | number | undefined;
  since?: string | number;
  onmessage?: (data: any) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { code: number; reason: string }) => void;
  onoverflow?: (message: string | ArrayBufferLike | Blob | ArrayBufferView) => void;
}

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
  onevent?: (event: { type: string; data: string; lastEventId: string }) => void;
  onstatus?: (status: "connecting" | "open" | "waiting" | "closed", detail?: { status?: number; message?: string }) => void;
}

export function events(url: string | URL, options?: EventsOptions): { close(): void };
