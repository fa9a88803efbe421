// The lobby's page: one WebSocket, opened again when it is lost.

const LINES_MAX = 500;
const RETRY_MAX_MS = 15_000;

const element = (id) => document.getElementById(id);
const [log, status, text, send] = ["log", "status", "text", "send"].map(element);

let socket;
let name = "";
let retryMs = 500;

function show(state, words) {
  status.dataset.state = state;
  status.textContent = words;
  text.disabled = send.disabled = state !== "open";
}

function connect() {
  const url = new URL("/lobby", location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("name", name);
  show("wait", "connecting …");
  socket = new WebSocket(url);
  socket.onopen = () => {
    retryMs = 500;
    show("open", `here as ${name}`);
    text.focus();
  };
  socket.onmessage = (event) => add(JSON.parse(event.data));
  socket.onclose = () => {
    show("lost", "connection lost, trying again …");
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
  };
}

function add({ kind, name: who, text: said }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const line = document.createElement("li");
  if (kind === "say") {
    line.className = who === name ? "say mine" : "say";
    line.append(span("name", who), span("text", said));
  } else {
    line.className = "note";
    line.textContent = kind === "join" ? `${who} is here` : `${who} has left`;
  }
  log.append(line);
  while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function span(className, content) {
  const part = document.createElement("span");
  part.className = className;
  part.textContent = content;
  return part;
}

element("join").addEventListener("submit", (event) => {
  event.preventDefault();
  name = element("name").value.trim() || "somebody";
  element("join").hidden = true;
  element("say").hidden = false;
  connect();
});

element("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (text.value.trim() === "" || socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  text.value = "";
});
