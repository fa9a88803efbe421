// Part of `tidegate dev`: shows build errors, replaces changed styles in place, and notifies the page
// of new versions of the app. The page loads it by <script src="/__tidegate/dev.js"></script>. With
// data-reload="assets" the page is loaded again when one of its files changes, with data-reload also
// after each version of the app.
// A page has one event stream, while it is visible: browsers open six HTTP/1.1 connections to a host
// for all of their tabs together, and keep those of pages in the back/forward cache. A page that is
// shown again receives the latest news at once, so it misses nothing.
(() => {
  const loaded = Symbol.for("tidegate.dev");
  if (window[loaded]) return;
  window[loaded] = true;

  const reloads = document.currentScript?.dataset.reload;
  let known;
  let overlay;
  let stream;
  let isLeft = false;

  function show(error) {
    overlay?.remove();
    overlay = undefined;
    if (!error) return;
    overlay = document.createElement("tidegate-overlay");
    overlay.attachShadow({ mode: "open" }).innerHTML = `<style>
      :host { position: fixed; inset: 0; z-index: 2147483647; background: rgb(8 14 19 / 85%); overflow: auto; padding: 4vmin; }
      section { max-width: 60rem; margin: auto; background: #14202a; border-top: 4px solid #ef8a72; border-radius: 6px; box-shadow: 0 8px 40px rgb(0 0 0 / 50%); }
      header { display: flex; justify-content: space-between; gap: 1rem; padding: 1rem 1.25rem 0; color: #ef8a72; font: 600 16px/1.4 system-ui, sans-serif; }
      pre { margin: 0; padding: 1rem 1.25rem 1.25rem; color: #e4edf3; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4; }
      button { border: 0; background: none; color: #93a5b3; font: 14px system-ui, sans-serif; cursor: pointer; }
      p { margin: 0; padding: 0 1.25rem 1.25rem; color: #93a5b3; font: 14px/1.4 system-ui, sans-serif; }
    </style><section role="alertdialog" aria-label="This change is not served"><header>This change is not served<button>close (Esc)</button></header><pre></pre>
    <p>The version before it is still there, and so are its connections.</p></section>`;
    overlay.shadowRoot.querySelector("pre").textContent = error;
    overlay.shadowRoot.querySelector("button").onclick = () => show();
    document.body.append(overlay);
  }

  function refreshStyles() {
    for (const old of document.querySelectorAll('link[rel~="stylesheet"]')) {
      const url = new URL(old.href);
      if (url.origin !== location.origin) continue;
      url.searchParams.set("tidegate", Date.now());
      const link = old.cloneNode();
      link.href = url;
      link.onload = link.onerror = () => old.remove();
      old.after(link);
    }
  }

  function take({ data }) {
    const news = JSON.parse(data);
    const before = known ?? news;
    known = news;
    show(news.error);
    const assets = news.run !== before.run || news.assets !== before.assets;
    const stale = reloads === "assets" ? assets : reloads === "" && (assets || news.version !== before.version);
    if (stale) return location.reload();
    if (news.styles !== before.styles) refreshStyles();
    if (news.version !== before.version) dispatchEvent(new CustomEvent("tidegate:version", { detail: news.version }));
  }

  function connect() {
    if (isLeft || document.hidden) {
      stream?.close();
      stream = undefined;
    } else if (!stream) {
      stream = new EventSource("/__tidegate/dev");
      stream.onmessage = take;
    }
  }

  function moved({ type }) {
    isLeft = type === "pagehide";
    connect();
  }

  addEventListener("keydown", (event) => event.key === "Escape" && show());
  addEventListener("pagehide", moved);
  addEventListener("pageshow", moved);
  // This also covers a page that is rendered before it is shown.
  document.addEventListener("visibilitychange", connect);
  // A streamed page gets `pageshow` only when it ends.
  connect();
})();
