// A chat room's page: one WebSocket, opened again when it is lost; the room itself says what was said before.

const LINES_MAX = 500;
const RETRY_MAX_MS = 15_000;

const element = (id) => document.getElementById(id);
const [log, people, status, text, send] = ["log", "people", "status", "text", "send"].map(element);

let socket;
let [room, name] = [decodeURIComponent(location.hash.slice(1)), ""];
let members = new Map(); // names by id
let retryMs = 500;

element("room").value = room || "tea";

function show(state, words) {
  status.dataset.state = state;
  status.textContent = words;
  text.disabled = send.disabled = state !== "open";
}

function connect() {
  const url = new URL(`/rooms/${encodeURIComponent(room)}`, location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("name", name);
  show("wait", "connecting …");
  socket = new WebSocket(url);
  socket.onopen = () => {
    retryMs = 500;
    show("open", `here as ${name}`);
    text.focus();
  };
  socket.onmessage = (event) => handle(JSON.parse(event.data));
  socket.onclose = () => {
    show("lost", "connection lost, trying again …");
    members.clear();
    showPeople();
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
  };
}

function handle(line) {
  switch (line.kind) {
    case "history":
      log.replaceChildren();
      return line.lines.reverse().forEach(([, earlier]) => handle(earlier));
    case "say":
      return addLine(line.name === name ? "say mine" : "say", span("name", line.name), span("text", line.text));
    case "snapshot":
      members = new Map(line.members.map(({ id, meta }) => [id, meta]));
      return showPeople();
    case "join":
      members.set(line.id, line.meta);
      showPeople();
      return addLine("note", `${line.meta} is here`);
    case "leave":
      members.delete(line.id);
      showPeople();
      return addLine("note", `${line.meta} has left`);
  }
}

function addLine(className, ...parts) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const line = document.createElement("li");
  line.className = className;
  line.append(...parts);
  log.append(line);
  while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function showPeople() {
  people.replaceChildren(...[...members.values()].map((who) => {
    const item = document.createElement("li");
    item.textContent = who;
    item.classList.toggle("me", who === name);
    return item;
  }));
}

function span(className, content) {
  const part = document.createElement("span");
  part.className = className;
  part.textContent = content;
  return part;
}

element("join").addEventListener("submit", (event) => {
  event.preventDefault();
  [room, name] = [element("room").value.trim(), element("name").value.trim()];
  if (room === "" || name === "") return;
  location.hash = encodeURIComponent(room);
  element("title").textContent = document.title = room;
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
