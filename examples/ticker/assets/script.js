// The ticker's page: two event streams, which the browser opens again by itself when they are lost.

const ROWS_MAX = 100;

const element = (id) => document.getElementById(id);
const [feed, ticks, status, answer] = ["feed", "ticks", "status", "answer"].map(element);
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 6 });

/** Row and last price by name, the one that changed last at the end. */
const rows = new Map();

function show(state, words) {
  status.dataset.state = state;
  status.textContent = words;
}

const prices = new EventSource("/prices");
prices.addEventListener("open", (event) => show("open", event.data ?? "connected"));
prices.addEventListener("error", () => show("lost", "connection lost, trying again …"));
prices.addEventListener("price", (event) => {
  const { name, price } = JSON.parse(event.data);
  const { row = makeRow(name), last } = rows.get(name) ?? {};
  const change = last === undefined ? 0 : price - last;
  row.querySelector(".price").textContent = money.format(price);
  const cell = row.querySelector(".change");
  cell.className = `change ${change > 0 ? "up" : change < 0 ? "down" : ""}`;
  cell.textContent = last === undefined ? "new" : change === 0 ? "–" : `${change > 0 ? "▲" : "▼"} ${money.format(Math.abs(change))}`;
  feed.prepend(row);
  rows.delete(name);
  rows.set(name, { row, last: price });
  if (rows.size > ROWS_MAX) {
    const [oldest, { row }] = rows.entries().next().value;
    rows.delete(oldest);
    row.remove();
  }
});

function makeRow(name) {
  const row = document.createElement("li");
  for (const part of ["name", "price", "change"]) {
    const cell = document.createElement("span");
    cell.className = part;
    row.append(cell);
  }
  row.firstElementChild.textContent = name;
  return row;
}

new EventSource("/ticks").addEventListener("tick", (event) => {
  ticks.textContent = event.data;
});

element("offer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const price = { name: element("name").value, price: Number(element("price").value) };
  try {
    const response = await fetch("/prices", { method: "POST", body: JSON.stringify(price) });
    const words = await response.text();
    answer.textContent = response.ok ? `published as number ${words}` : `not published: ${words}`;
  } catch {
    answer.textContent = "not published: the server can't be reached";
  }
});
