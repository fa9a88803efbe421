// Tidegate in the browser: loaders of the page, forms that need no reload, sockets and event streams that come back.
// Load it with `async`, or it waits for the end of a page that streams: <script type="module" async src="/__tidegate/client.js">

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
    for (const hear of this.#hears) hear(this);
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
    this.detached = true; // the page's own stream has no say any more
    this.set({ status: "connecting", error: undefined });
    const { page: pattern, params, search } = { ...page, ...this.where };
    try {
      const response = await fetch("/__loaders", {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/x-ndjson" },
        body: JSON.stringify({ page: pattern, loader: this.name, params, search }),
        signal: abort.signal,
      });
      if (!response.ok) {
        const text = await response.text();
        let message = text.trim();
        try { message = JSON.parse(text).error.message; } catch {}
        return mine() && this.fail(response.status, message);
      }
      for await (const line of lines(response.body)) {
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

/** A loader of this page by its name; of another with `{ page, params, search }`, which is first asked by `reload()`. */
export function loader(name, where) {
  const key = where ? JSON.stringify([name, where]) : name;
  if (!loaders.has(key)) {
    loaders.set(key, new Loader(name, where));
    if (pageDone && !where) loaders.get(key).fail(0, "the page has no such loader");
  }
  return loaders.get(key);
}

// What the page brings: each of its scripts pushes marks.
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

function take(...all) {
  clearTimeout(beatTimer);
  for (const [kind, ...rest] of all) marks[kind]?.(...rest);
  // A browser does not tell a page that its connection is dead: silence does.
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
take(...early);

// <b data-slot="stock.level">: filled with a part of a loader's value.
function fill({ name, value, status }) {
  for (const slot of document.querySelectorAll(`[data-slot="${name}"],[data-slot^="${name}."]`)) {
    const part = slot.dataset.slot.slice(name.length + 1).split(".").filter(Boolean).reduce((at, key) => at?.[key], value);
    if (part != null) slot.textContent = part;
  }
  for (const slot of document.querySelectorAll(`[data-loader="${name}"]`)) slot.dataset.status = status;
}
function parsed() {
  for (const it of loaders.values()) if (!it.where) fill(it);
  broken();
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", parsed);
else parsed();

const enhanced = new WeakMap();

/** As `<form method="post" data-enhance>`: it is sent by fetch, and `hear` is told the outcome. */
export function enhance(form, hear) {
  enhanced.set(form, hear);
}
// One listener for all forms, those too that are still to come: a page that streams has no end to wait for.
document.addEventListener("submit", (event) => {
  const form = event.target; // whose fields may be called `method` or `reset`
  if (form.getAttribute("method")?.toLowerCase() !== "post" || event.defaultPrevented || !("enhance" in form.dataset || enhanced.has(form))) return;
  event.preventDefault();
  if (form.ariaBusy !== "true") send(form, event.submitter);
});

// Errors go to `[data-error=field]`, stale loaders are reloaded, `tidegate:outcome` is dispatched.
async function send(form, submitter) {
  const data = new FormData(form, submitter);
  const simple = ![...data.values()].some((value) => value instanceof File);
  form.ariaBusy = "true";
  let detail;
  try {
    const response = await fetch(submitter?.getAttribute("formaction") || form.getAttribute("action") || location.href, {
      method: "POST",
      headers: { accept: "application/json" },
      body: simple ? new URLSearchParams(data) : data,
    });
    if (response.redirected) return location.assign(response.url); // a guard's: to where one signs in
    const text = await response.text();
    try { detail = JSON.parse(text); } catch { detail = { outcome: "error", status: response.status, message: text.trim() }; }
  } catch (error) {
    detail = { outcome: "error", status: 0, message: String(error) };
  }
  form.ariaBusy = "false";
  const errors = { "": detail.outcome === "success" ? "" : detail.message, ...detail.errors };
  for (const place of form.querySelectorAll("[data-error]")) place.textContent = errors[place.dataset.error] ?? "";
  for (const field of form.elements) field.name && field.setAttribute("aria-invalid", field.name in errors);
  if (detail.outcome === "success") {
    HTMLFormElement.prototype.reset.call(form);
    detail.stale.forEach((name) => loader(name).reload());
  }
  enhanced.get(form)?.(detail);
  const goesOn = form.dispatchEvent(new CustomEvent("tidegate:outcome", { bubbles: true, cancelable: true, detail }));
  if (detail.outcome === "redirect" && goesOn) location.assign(detail.location);
}

const wait = (tries) => Math.random() * Math.min(30000, 500 * 2 ** tries);

/** A WebSocket that comes back, but after 1000 and 4000 to 4999. */
export function socket(url, { protocols, queue = 100, id, since, onmessage, onstatus, onoverflow } = {}) {
  let ws, timer, tries = 0, ended = false;
  const unsent = [];
  const tell = (status, detail) => onstatus?.(status, detail);
  function open() {
    const target = new URL(url, location.href);
    target.protocol = target.protocol.replace("http", "ws");
    if (since != null) target.searchParams.set("since", since);
    tell("connecting");
    ws = new WebSocket(target, protocols);
    ws.onopen = () => {
      tries = 0;
      tell("open");
      while (unsent.length) ws.send(unsent.shift());
    };
    ws.onmessage = (event) => {
      since = id?.(event.data) ?? since;
      onmessage?.(event.data);
    };
    ws.onclose = ({ code, reason }) => {
      ended ||= code === 1000 || (code >= 4000 && code <= 4999);
      tell(ended ? "closed" : "waiting", { code, reason });
      if (!ended) timer = setTimeout(open, wait(tries++));
    };
  }
  open();
  return {
    /** Whether it was sent, or waits to be. */
    send(message) {
      if (ws.readyState === 1) ws.send(message);
      else if (ended || unsent.length >= queue) return onoverflow?.(message), false;
      else unsent.push(message);
      return true;
    },
    close(code = 1000, reason = "") {
      ended = true;
      clearTimeout(timer);
      ws.close(code, reason);
    },
  };
}

/** An event stream that comes back to where it was; a refusal (4xx) ends it. */
export function events(url, { lastEventId = "", onevent, onstatus } = {}) {
  const abort = new AbortController();
  (async () => {
    for (let tries = 0; !abort.signal.aborted; tries++) {
      let detail;
      try {
        onstatus?.("connecting");
        const headers = { accept: "text/event-stream", ...(lastEventId && { "last-event-id": lastEventId }) };
        const response = await fetch(url, { headers, signal: abort.signal });
        detail = { status: response.status };
        if (response.status === 204 || (response.status >= 400 && response.status < 500 && response.status !== 429)) break;
        if (response.ok) {
          onstatus?.("open");
          let event = { type: "message", data: [] };
          for await (const ended of lines(response.body)) {
            const line = ended.replace(/\r$/, "");
            const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
            if (field === "data") event.data.push(value);
            else if (field === "event") event.type = value;
            else if (field === "id") lastEventId = value;
            else if (!line) {
              tries = 0;
              if (event.data.length) onevent?.({ type: event.type, data: event.data.join("\n"), lastEventId });
              event = { type: "message", data: [] };
            }
          }
        }
      } catch (error) {
        detail = { message: String(error) };
      }
      if (abort.signal.aborted) break;
      onstatus?.("waiting", detail);
      await new Promise((resolve) => {
        setTimeout(resolve, wait(tries));
        abort.signal.addEventListener("abort", resolve);
      });
    }
    onstatus?.("closed");
  })();
  return { close: () => abort.abort() };
}

async function* lines(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const all = (rest + value).split("\n");
      rest = all.pop();
      yield* all;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
