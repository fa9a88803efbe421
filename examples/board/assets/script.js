// A board's page: one WebSocket for what happens, one GET for what was drawn before. A point is a pair of 0 to 9999.

const SCALE = 10_000;
const POINTS_MAX = 256;
const MOVE_MS = 33;
const RETRY_MAX_MS = 15_000;

const element = (id) => document.getElementById(id);
const [canvas, pointers, people, status, clear, hint] = ["board", "pointers", "people", "status", "clear", "hint"].map(element);
const pen = canvas.getContext("2d");

let socket;
let me;
let members = new Map(); // colours by id
let strokes = [];
let drawing = null; // the points of the stroke that is being drawn
let clears = 0;
let movedAt = 0;
let retryMs = 500;

if (location.hash.length < 2) location.hash = Math.random().toString(36).slice(2, 8);
const name = decodeURIComponent(location.hash.slice(1));
addEventListener("hashchange", () => location.reload());
element("title").textContent = document.title = name;
const path = `/boards/${encodeURIComponent(name)}`;

function show(state, words) {
  status.dataset.state = state;
  status.textContent = words;
  clear.disabled = state !== "open";
}

function connect() {
  const url = new URL(path, location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.onopen = () => {
    retryMs = 500;
    show("open", "connected");
    load();
  };
  socket.onmessage = (event) => handle(JSON.parse(event.data));
  socket.onclose = () => {
    show("lost", "connection lost, trying again …");
    members.clear();
    strokes = [];
    showPeople();
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
  };
}

// The socket is open, so new strokes arrive by it. One may arrive twice, which looks the same.
async function load() {
  const before = clears;
  const response = await fetch(path);
  const earlier = await response.json();
  if (clears !== before) return load(); // the order of the two is unknown
  strokes = [...earlier, ...strokes];
  drawAll();
}

function handle(told) {
  switch (told.kind) {
    case "snapshot":
      me = told.self;
      members = new Map(told.members.map(({ id, meta }) => [id, meta]));
      return showPeople();
    case "join":
      members.set(told.id, told.meta);
      return showPeople();
    case "leave":
      members.delete(told.id);
      return showPeople();
    case "move":
      return point(told.id, told.at);
    case "stroke":
      return add(told);
    case "clear":
      clears += 1;
      strokes = [];
      return drawAll();
  }
}

function say(act) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(act));
}

function add(stroke) {
  strokes.push(stroke);
  hint.hidden = true;
  draw(stroke);
}

function draw({ points, colour }) {
  if (points.length === 0) return;
  const at = ([x, y]) => [(x * canvas.width) / SCALE, (y * canvas.height) / SCALE];
  pen.strokeStyle = colour;
  pen.lineWidth = canvas.width / 250;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...at(points[0]));
  for (const point of points) pen.lineTo(...at(point));
  pen.stroke();
}

function drawAll() {
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  hint.hidden = strokes.length > 0;
  strokes.forEach(draw);
  if (drawing) draw({ points: drawing, colour: members.get(me) });
}

function showPeople() {
  people.replaceChildren(...[...members].map(([id, colour]) => {
    const item = document.createElement("li");
    item.style.setProperty("--colour", colour);
    item.classList.toggle("me", id === me);
    item.title = id === me ? "you" : "somebody else";
    return item;
  }));
  for (const arrow of [...pointers.children]) if (!members.has(arrow.dataset.id)) arrow.remove();
}

function point(id, [x, y]) {
  if (!members.has(id)) return;
  let arrow = [...pointers.children].find((arrow) => arrow.dataset.id === id);
  if (!arrow) {
    arrow = document.createElement("i");
    arrow.dataset.id = id;
    arrow.style.setProperty("--colour", members.get(id));
    pointers.append(arrow);
  }
  arrow.style.left = `${(x * 100) / SCALE}%`;
  arrow.style.top = `${(y * 100) / SCALE}%`;
}

function pointOf(event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const within = (part) => Math.max(0, Math.min(SCALE - 1, Math.round(part * SCALE)));
  return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
}

function finish() {
  if (!drawing) return;
  const stroke = { kind: "stroke", points: drawing };
  drawing = null;
  if (!members.has(me)) return drawAll(); // the connection was lost
  say(stroke);
  add({ ...stroke, colour: members.get(me) });
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !members.has(me)) return;
  canvas.setPointerCapture(event.pointerId);
  drawing = [pointOf(event)];
  draw({ points: drawing, colour: members.get(me) });
});

canvas.addEventListener("pointermove", (event) => {
  const at = pointOf(event);
  if (drawing) {
    drawing.push(at);
    draw({ points: drawing.slice(-2), colour: members.get(me) });
    if (drawing.length >= POINTS_MAX) {
      finish();
      drawing = [at]; // goes on where it was
    }
  }
  if (event.timeStamp - movedAt < MOVE_MS) return;
  movedAt = event.timeStamp;
  say({ kind: "move", at });
});

canvas.addEventListener("pointerup", finish);
canvas.addEventListener("pointercancel", finish);
clear.addEventListener("click", () => {
  say({ kind: "clear" });
  handle({ kind: "clear" });
});
new ResizeObserver(drawAll).observe(canvas);
connect();
