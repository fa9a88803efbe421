// The echo's page: one WebSocket, opened again when it is lost, and how long each echo took.

const [log, status, form, text] = ["log", "status", "say", "text"].map((id) => document.getElementById(id));
const url = new URL("/echo", location.href.replace("http", "ws"));
let socket;
let said = [];

function show(state, words) {
  status.dataset.state = state;
  status.textContent = words;
}

function connect() {
  socket = new WebSocket(url, "echo");
  said = [];
  socket.onopen = () => show("open", "connected");
  socket.onmessage = ({ data }) => {
    const took = document.createElement("small");
    took.textContent = `${(performance.now() - said.shift()).toFixed(1)} ms`;
    const line = document.createElement("li");
    line.append(data, took);
    log.append(line);
    line.scrollIntoView();
  };
  socket.onclose = () => {
    show("lost", "connection lost, trying again …");
    setTimeout(connect, 1000);
  };
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN || !text.value) return;
  said.push(performance.now());
  socket.send(text.value);
  text.value = "";
});

connect();
