// Tidegate in the browser: loaders of the page, forms without a reload, sockets and event streams that reconnect.
// Load it with `async`, or it waits until a streamed page ends: <script type="module" async src="/__tidegate/client.js">

const loaders = new Map();
let page = {}, beatTimer, pageDone = false;

class Loader {
  status = "connecting";
  value;
  error;
  #hears = new Set();
  #abort;

  constructor(name, where) {
    this.name = name;
    this.where = where;
  }
  subscribe(hear) {
    this.#hears.add(hear);
    hear(this);
    return () => this.#hears.delete(hear);
  }
  set(change) {
    Object.assign(this, change);
    if (!this.where) fill(this);
    for (const hear of this.#hears) hand(hear, this);
  }
  fail(status, message) {
    this.set({ status: "error", error: { status, message } });
  }
  abort() {
    this.#abort?.abort();
    this.#abort = undefined;
    this.detached = true;
    if (this.status !== "done" && this.status !== "error") this.fail(0, "aborted");
  }
  async reload() {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const mine = () => this.#abort === abort;
    this.detached = true; // the page's own stream no longer counts
    this.set({ status: "connecting", error: undefined });
    const { page: pattern, params, search } = { ...page, ...this.where };
    try {
      const asked = {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/x-ndjson" },
        body: JSON.stringify({ page: pattern, loader: this.name, params, search }),
      };
      const response = await ask("/__loaders", asked, abort.signal);
      if (!response.ok) {
        const text = await response.text();
        let message = text.trim();
        try { message = JSON.parse(text).error.message; } catch {}
        return mine() && this.fail(response.status, message);
      }
      if (kind(response) !== "application/x-ndjson") {
        response.body?.cancel().catch(() => {});
        return mine() && this.fail(0, `the answer is ${kind(response)}, not a stream of values`);
      }
      for await (const line of lines(response)) {
        if (!mine()) return;
        if (!line) continue;
        const frame = JSON.parse(line);
        if ("value" in frame) this.set({ status: "streaming", value: frame.value });
        else if (frame.end) return this.set({ status: "done" });
        else if (frame.timeout) return this.fail(504, "it took too long");
        else return this.fail(frame.error.status, frame.error.message);
      }
      if (mine()) this.fail(0, "the stream broke off");
    } catch (error) {
      if (mine()) this.fail(0, String(error));
    }
  }
}

/** A loader of this page by its name, or of another with `{ page, params, search }`: `reload()` starts that one. */
export function loader(name, where) {
  const key = where ? JSON.stringify([name, where]) : name;
  if (!loaders.has(key)) {
    loaders.set(key, new Loader(name, where));
    if (pageDone && !where) loaders.get(key).fail(0, "the page has no such loader");
  }
  return loaders.get(key);
}

// Values in the page: each of its scripts pushes marks as JSON text. As JavaScript the same text can mean other values (`__proto__`).
const marks = {
  page(about) {
    page = about;
    about.loaders.forEach((name) => loader(name));
  },
  value: (name, value) => own(name)?.set({ status: "streaming", value }),
  end: (name) => own(name)?.set({ status: "done" }),
  error: (name, status, message) => own(name)?.fail(status, message),
  timeout: (name) => own(name)?.fail(504, "it took too long"),
  beat() {},
  done: () => { pageDone = true; },
};
const own = (name) => [loader(name)].find((it) => !it.detached);

function take(text) {
  clearTimeout(beatTimer);
  for (const [kind, ...rest] of JSON.parse(text)) marks[kind]?.(...rest);
  // A browser does not report a dead connection; only silence shows it.
  if (page.beat && !pageDone) beatTimer = setTimeout(broken, 2 * page.beat + 1000);
}
function broken() {
  if (pageDone) return;
  pageDone = true;
  clearTimeout(beatTimer);
  for (const it of loaders.values()) {
    if (!it.where && !it.detached && it.status !== "done" && it.status !== "error") it.fail(0, page.page ? "the stream broke off" : "the page has no such loader");
  }
}
const early = self.__tidegate ?? [];
self.__tidegate = { push: take };
early.forEach(take);

// <b data-slot="stock.level">: filled with a part of a loader's value.
function fill({ name, value, status }) {
  for (const slot of document.querySelectorAll(`[data-slot="${name}"],[data-slot^="${name}."]`)) {
    const part = slot.dataset.slot.slice(name.length + 1).split(".").filter(Boolean).reduce(member, value);
    if (part != null) slot.textContent = part;
  }
  for (const slot of document.querySelectorAll(`[data-loader="${name}"]`)) slot.dataset.status = status;
}
// Only a value's own members are parts, not those of its prototype.
function member(at, key) {
  return at != null && Object.hasOwn(at, key) ? at[key] : undefined;
}
function parsed() {
  for (const it of loaders.values()) if (!it.where) fill(it);
  broken();
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", parsed);
else parsed();

// Forms sent without a reload, each with its pending request, and forms that the browser itself sends.
const enhanced = new WeakMap(), pending = new Map(), leaving = new WeakSet();

/** As `<form method="post" data-enhance>`: it is sent by fetch, and `hear` gets the outcome. */
export function enhance(form, hear) {
  enhanced.set(form, hear);
}
// A field hides the property of its form that has the same name (`method`, `reset`, `getAttribute`): these reach the form's own.
const attribute = (form, name) => Element.prototype.getAttribute.call(form, name);
const places = (form) => Element.prototype.querySelectorAll.call(form, "[data-error]");
const controls = (form) => Object.getOwnPropertyDescriptor(HTMLFormElement.prototype, "elements").get.call(form);
const busy = (form, isBusy) => Element.prototype.setAttribute.call(form, "aria-busy", isBusy);

// One listener for all forms, also later ones: a streamed page has no end to wait for.
document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || leaving.has(form) || !(attribute(form, "data-enhance") != null || enhanced.has(form))) return;
  const given = (name) => submitter?.getAttribute("form" + name) ?? attribute(form, name);
  const action = new URL(given("action") || location.href, document.baseURI);
  const isHere = ["", "_self"].includes((given("target") ?? "").toLowerCase()) && action.origin === location.origin;
  // A form with another method, or for another window or site, is left to the browser.
  if (given("method")?.toLowerCase() !== "post" || !isHere) return;
  event.preventDefault();
  if (!pending.has(form)) send(form, submitter, action);
});
// A page from the back/forward cache gets no answer to its earlier requests.
self.addEventListener?.("pageshow", ({ persisted }) => {
  if (persisted) pending.forEach((abort) => abort.abort(new Error("the page was left before an answer came")));
});

// Errors go to `[data-error=field]`, stale loaders are reloaded, `tidegate:outcome` is dispatched.
async function send(form, submitter, action) {
  const data = new FormData(form, submitter), abort = new AbortController();
  const simple = ![...data.values()].some((value) => value instanceof File);
  // As the browser encodes a form: every line ends with CRLF (WHATWG HTML, form submission). For FormData, fetch does it.
  const encoded = simple ? new URLSearchParams([...data].map((pair) => pair.map((text) => text.replace(/\r\n?|\n/g, "\r\n")))) : data;
  pending.set(form, abort);
  busy(form, true);
  let detail, leaves = false;
  try {
    const init = { method: "POST", headers: { accept: "application/json" }, body: encoded, redirect: "manual", signal: abort.signal };
    const response = await fetch(action, init);
    leaves = response.type === "opaqueredirect";
    if (!leaves) detail = outcome(response.status, await response.text());
  } catch (error) {
    detail = { outcome: "error", status: 0, message: String(error) };
  }
  pending.delete(form);
  busy(form, false);
  if (leaves) return leave(form, submitter);
  const isDone = detail.outcome === "success";
  const errors = new Map([["", isDone ? "" : detail.message], ...Object.entries(detail.errors ?? {})]);
  for (const place of places(form)) place.textContent = errors.get(place.dataset.error) ?? "";
  for (const field of controls(form)) field.name && field.setAttribute("aria-invalid", errors.has(field.name));
  if (isDone) {
    HTMLFormElement.prototype.reset.call(form);
    detail.stale.forEach((name) => loader(name).reload());
  }
  hand(enhanced.get(form), detail);
  const goesOn = EventTarget.prototype.dispatchEvent.call(form, new CustomEvent("tidegate:outcome", { bubbles: true, cancelable: true, detail }));
  if (detail.outcome === "redirect" && goesOn) location.assign(detail.location);
}

// An answer that is not the host's envelope comes from a guard or a proxy.
function outcome(status, text) {
  try {
    const given = JSON.parse(text);
    if (typeof given?.outcome === "string") return given;
  } catch {}
  return { outcome: "error", status, message: text.trim() };
}

// A guard sends the client elsewhere, before any action runs. Only the browser can follow it to other sites, and with
// the method that the status asks for. So the form is sent once more, by the browser.
function leave(form, submitter) {
  leaving.add(form);
  HTMLFormElement.prototype.requestSubmit.call(form, submitter?.form === form ? submitter : null);
  leaving.delete(form);
}

/** Milliseconds in which an answer has to begin, or a WebSocket to open: a little more than the host gives an app. */
const ANSWER_MS = 35000;

/** Milliseconds after which a connection is stable: waits start again. */
const HELD_MS = 10000;

// Random waits between connections, which grow until one is stable.
function pauses() {
  let tries = 0, openedAt;
  return {
    opened: () => { openedAt = performance.now(); },
    next(min = 0) {
      if (openedAt !== undefined && performance.now() - openedAt >= HELD_MS) tries = 0;
      openedAt = undefined;
      // A timer of more than 31 bits would run at once.
      return Math.min(2 ** 31 - 1, Math.max(min, Math.random() * Math.min(30000, 500 * 2 ** tries++)));
    },
  };
}
function sleep(ms, signal) {
  return new Promise((resolve) => {
    const end = () => { clearTimeout(timer); signal.removeEventListener("abort", end); resolve(); };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

/** A WebSocket that reconnects, except after 1000 and 4000 to 4999. */
export function socket(url, { protocols, queue = 100, id, since, probe, onmessage, onstatus, onoverflow } = {}) {
  let ws, timer, ended = false;
  const unsent = [], pause = pauses();
  const tell = (status, detail) => hand(onstatus, status, detail);
  function open() {
    const target = new URL(url, location.href);
    target.protocol = target.protocol.replace("http", "ws");
    if (since != null) target.searchParams.set("since", since);
    tell("connecting");
    if (ended) return; // by that listener
    const own = (ws = new WebSocket(target, protocols));
    let missed = 0;
    const lost = ({ code, reason }) => {
      clearTimeout(timer);
      own.onopen = own.onmessage = own.onclose = null;
      ended ||= code === 1000 || (code >= 4000 && code <= 4999);
      tell(ended ? "closed" : "waiting", { code, reason });
      if (!ended) timer = setTimeout(open, pause.next());
    };
    // Its close event may not come before the browser itself gives the connection up.
    const giveUp = (reason) => { own.close(); lost({ code: 1006, reason }); };
    // A browser hides pings, so only what the app sends, and its answers to the probe, are signs of life.
    const heard = () => {
      missed = 0;
      clearTimeout(timer);
      if (probe) timer = setTimeout(knock, probe.every ?? 20000);
    };
    const knock = () => {
      if (missed++ === 2) return giveUp("nothing came for too long");
      own.send(probe.text);
      timer = setTimeout(knock, probe.every ?? 20000);
    };
    timer = setTimeout(giveUp, ANSWER_MS, "it did not open in time");
    own.onopen = () => {
      pause.opened();
      heard();
      tell("open");
      while (unsent.length) own.send(unsent.shift());
    };
    own.onmessage = (event) => {
      heard();
      if (probe && event.data === probe.answer) return;
      since = id?.(event.data) ?? since;
      onmessage?.(event.data);
    };
    own.onclose = lost;
  }
  open();
  return {
    /** True if it was sent or queued. */
    send(message) {
      if (ws.readyState === 1) ws.send(message);
      else if (ended || unsent.length >= queue) return onoverflow?.(message), false;
      else unsent.push(message);
      return true;
    },
    close(code = 1000, reason = "") {
      if (ended) return;
      ended = true;
      ws.close(code, reason);
      // Between two connections there is no other close event.
      if (!ws.onclose) {
        clearTimeout(timer);
        tell("closed", { code, reason });
      }
    },
  };
}

/** An event stream that resumes; a refusal, or an answer that is no event stream, ends it. */
export function events(url, { lastEventId = "", onevent, onstatus } = {}) {
  const closing = new AbortController(), pause = pauses();
  const tell = (status, detail) => hand(onstatus, status, detail);
  let retry = 0;
  // The text of the stream (WHATWG HTML, section 9.2.6).
  async function read(response) {
    let type = "", data = "", id = lastEventId;
    for await (const line of lines(response)) {
      if (closing.signal.aborted) return; // by a listener, and more has come already
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (!line) {
        // A partial event does not count, nor does its id.
        lastEventId = id;
        if (data) hand(onevent, { type: type || "message", data: data.slice(0, -1), lastEventId });
        type = data = "";
      } else if (field === "data") data += value + "\n";
      else if (field === "event") type = value;
      else if (field === "id") id = value.includes("\0") ? id : value;
      else if (field === "retry" && /^[0-9]+$/.test(value)) retry = Number(value);
    }
  }
  (async () => {
    let detail;
    while (!closing.signal.aborted) {
      detail = undefined;
      try {
        tell("connecting");
        const headers = { accept: "text/event-stream", ...(lastEventId && { "last-event-id": bytes(lastEventId) }) };
        const response = await ask(url, { headers, cache: "no-store" }, closing.signal);
        detail = { status: response.status };
        const isStream = response.status === 200 && kind(response) === "text/event-stream";
        if (isStream) {
          pause.opened();
          tell("open");
          await read(response);
        } else {
          response.body?.cancel().catch(() => {});
          if (response.status === 200) detail.message = `the answer is ${kind(response)}, not an event stream`;
          // Too slow, too early, too many: these and server errors are temporary.
          if (response.status < 500 && ![408, 425, 429].includes(response.status)) break;
        }
      } catch (error) {
        detail = { message: String(error) };
      }
      if (closing.signal.aborted) break;
      tell("waiting", detail);
      await sleep(pause.next(retry), closing.signal);
    }
    tell("closed", closing.signal.aborted ? undefined : detail);
  })();
  return { close: () => closing.abort() };
}

// An exception of a listener is reported, and stops neither other listeners nor the stream.
function hand(hear, ...news) {
  try { hear?.(...news); } catch (error) { (self.reportError ?? console.error)(error); }
}

// A header carries bytes: UTF-8, each as a character.
const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

const kind = (response) => (response.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase() || "of no type";

/** `fetch` whose answer has to begin in time; then it has no limit. */
async function ask(url, init, signal) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error("no answer came in time")), ANSWER_MS);
  try {
    return await fetch(url, { ...init, signal: AbortSignal.any([signal, late.signal]) });
  } finally {
    clearTimeout(timer);
  }
}

// The lines of an answer. If the host announces heartbeats, two missing ones end it: a browser does not report
// a silent connection.
async function* lines(response) {
  const beat = Number(response.headers.get("tidegate-heartbeat"));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", afterReturn = false, timer;
  try {
    for (;;) {
      const silence = new Promise((_, fail) => {
        if (beat) timer = setTimeout(() => fail(new Error("nothing came for too long")), 2 * beat + 1000);
      });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (done) return;
      // CR LF is one end of a line, also where a piece ends between the two.
      const text = afterReturn && value[0] === "\n" ? value.slice(1) : value;
      afterReturn = value ? value.endsWith("\r") : afterReturn;
      const all = (rest + text).split(/\r\n|\r|\n/);
      rest = all.pop();
      yield* all;
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}
