// Streams of /__tidegate/client.js over a network that cuts connections, falls silent, leaves them
// half open and refuses them.
// Usage: node cuts.mjs URL CUTS SEED HISTORY
//
// Each client follows topics whose messages are numbered. Each message has the next number, or a
// gap notice precedes it; and a gap notice is right only if more messages were published than the
// topic keeps (HISTORY). The script prints one line of counts. It exits with 1 if a message was
// lost without notice, was repeated, was out of order, or was reported as lost without need.
import net from "node:net";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [base, cutsWanted, seed, history] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const upstream = new URL(base);

// Random numbers that a seed repeats (xorshift).
let state = seed * 2654435761 >>> 0 || 1;
const random = (below) => {
  state ^= state << 13; state >>>= 0; state ^= state >>> 17; state ^= state << 5; state >>>= 0;
  return state % below;
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The network: each connection gets its fate when it is accepted.
const counts = { cuts: 0, refused: 0, silent: 0, halfOpen: 0, storms: 0, events: 0, gaps: 0, drops: 0 };
const open = new Set(), dead = new Set();
let isDown = false, isCalm = true;
const proxy = net.createServer((client) => {
  client.on("error", () => {});
  const chance = random(100);
  if (isDown || (!isCalm && chance < 8)) {
    counts.refused++;
    return client.destroy();
  }
  const server = net.connect(upstream.port, upstream.hostname);
  const fate = isCalm ? "calm" : chance < 11 ? "silent" : chance < 14 ? "halfOpen" : "cut";
  const cut = (count) => {
    if (!open.delete(end)) return;
    counts[count]++;
    if (count === "halfOpen") return dead.add(client), server.destroy(); // the client's side stays open
    random(2) ? client.destroy() : client.end();
    server.destroy();
  };
  const end = (count = "storms") => cut(count);
  open.add(end);
  // The head of an answer has about 300 bytes: some connections break within it, most within
  // events. Silence begins after the head. Earlier silence is detected after 35 seconds, which
  // client.js tests with a clock of its own.
  let left = fate === "calm" ? Infinity : fate !== "cut" ? 600 + random(1500) : random(5) ? 200 + random(1500) : random(300);
  server.on("error", () => {});
  server.on("close", () => fate === "cut" || fate === "calm" ? (open.delete(end), client.destroy()) : 0);
  client.on("close", () => (open.delete(end), dead.delete(client), server.destroy()));
  client.on("data", (bytes) => left > 0 && server.write(bytes));
  server.on("data", (bytes) => {
    if (left <= 0) return;
    client.write(bytes.subarray(0, left));
    left -= bytes.length;
    if (left > 0) return;
    if (fate === "cut") setImmediate(cut, "cuts");
    else if (fate === "halfOpen") cut("halfOpen");
    else if (open.delete(end)) counts.silent++, dead.add(client);
  });
}).listen(0, "127.0.0.1");
await new Promise((resolve) => proxy.on("listening", resolve));
const via = `http://127.0.0.1:${proxy.address().port}`;

// The parts of a page that the client's script needs. Delays between connections are short here;
// client.js tests their lengths.
globalThis.self = globalThis;
globalThis.location = new URL(via);
globalThis.document = { readyState: "complete", querySelectorAll: () => [], addEventListener() {} };
Math.random = () => 0.003;
// Node's WebSocket reports a failed handshake by `error` alone; in browsers `close` follows.
globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("error", () => setTimeout(() => this.onclose?.({ code: 1006, reason: "" })));
  }
};
const file = join(mkdtempSync(join(tmpdir(), "cuts-")), "client.mjs");
writeFileSync(file, await (await fetch(base + "/__tidegate/client.js")).text());
const { events, socket } = await import(file);

const wrong = [], published = {};
async function publish(topic) {
  published[topic] = (published[topic] ?? 0) + 1;
  const answer = await fetch(base + (topic === "tea" ? "/rooms/tea" : `/publish/${topic}`), { method: "POST", body: `${topic} ${published[topic]}` });
  if (!answer.ok) throw new Error(`publish: ${answer.status}`);
}

// Number of the last message that a client has, by topic.
class Record {
  last = {};
  constructor(name, topics) {
    this.name = name;
    for (const topic of topics) this.last[topic] = published[topic] ?? 0;
  }
  gap() {
    counts.gaps++;
    // Topics in which the next message may have a later number, and whether one of them lost
    // messages that were no longer kept.
    this.jumps = new Set(Object.keys(this.last));
    this.isRight = false;
  }
  message(text) {
    const [, topic, number] = /^(\w+) (\d+)$/.exec(text)?.map((part, at) => (at === 2 ? Number(part) : part)) ?? [];
    if (!topic) return this.hasBegun = true;
    const missing = number - 1 - this.last[topic];
    counts.events++;
    if (this.jumps?.delete(topic)) {
      this.isRight ||= missing > history;
      if (!this.jumps.size && !this.isRight) wrong.push(`${this.name}: a gap notice, and ${missing} missed of ${history} that are kept`);
      if (missing < 0) wrong.push(`${this.name}: ${text} after ${this.last[topic]}`);
    } else if (missing !== 0) wrong.push(`${this.name}: ${text} after ${this.last[topic]}, without a notice`);
    this.last[topic] = number;
  }
}

const clients = [];
for (let index = 0; index < 8; index++) {
  // The feeds follow one topic, two topics, and a room, whose history is on the disk.
  const [path, ...topics] = [["/feed?topic=a", "a"], ["/feed?topic=a&also=b", "a", "b"], ["/rooms/tea", "tea"], ["/feed?topic=b", "b"]][index % 4];
  const record = new Record(`events ${index} of ${path}`, topics);
  const stream = events(via + path, { onevent: ({ type, data }) => type === "tidegate-gap" ? record.gap() : record.message(data),
    onstatus: (status) => { record.isOpen = status === "open"; } });
  clients.push({ record, close: stream.close });
}
for (let index = 0; index < 4; index++) {
  const record = new Record(`socket ${index}`, ["a"]);
  let epoch, early;
  const one = socket(`${via}/socket?resume=a`, {
    probe: { text: "ping", answer: "pong", every: 150 },
    // A connection sends its position once it follows. Messages published while the app wrote that
    // line have arrived before it. Only then is it known whether there is a gap before that
    // position. The number of a message is its position.
    id(text) {
      const [, ...at] = /^(\S+)-(\d+) (gap|whole)$/.exec(text) ?? /^a (\d+)$/.exec(text);
      if (at.length === 1) return early ? undefined : `${epoch}-${at[0]}`;
      const isFirst = !epoch, last = early.at(-1)?.split(" ")[1];
      epoch = at[0];
      return last || isFirst || at[2] === "gap" ? `${epoch}-${last ?? at[1]}` : undefined;
    },
    onstatus: (status) => { if (status === "connecting") [early, record.isOpen] = [[], false]; },
    onmessage(text) {
      if (/^a \d+$/.test(text)) return early ? early.push(text) : record.message(text);
      if (text.endsWith(" gap")) record.gap();
      record.hasBegun = record.isOpen = true;
      early.forEach((text) => record.message(text));
      early = undefined;
    },
  });
  clients.push({ record, close: one.close });
}
const setUp = socket(`${base}/socket`);
setUp.send("automatic ping pong");
const topics = ["a", "b", "tea"];
const hasAll = ({ record }) => Object.entries(record.last).every(([topic, last]) => last === (published[topic] ?? 0));
async function all(what, is) {
  for (let turn = 0; !clients.every(is); turn++) {
    if (turn === 600) {
      wrong.push(...clients.filter((one) => !is(one)).map(({ record }) => `${what}: not ${record.name}, at ${JSON.stringify(record.last)} of ${JSON.stringify(published)}`));
      return;
    }
    await sleep(50);
  }
}
// In a calm network all clients reconnect and receive the missing messages, and one message more,
// so that a gap shows.
async function settle(breaks = true) {
  isDown = false;
  isCalm = true;
  if (breaks) for (const end of [...open]) end();
  // Silence is detected within this time. A closed WebSocket still waits for the other side to
  // close it.
  await sleep(dead.size ? 2500 : 50);
  for (const client of [...dead]) client.destroy();
  await all("all come back", ({ record }) => record.isOpen);
  for (const topic of topics) await publish(topic);
  await all("all get everything", hasAll);
  isCalm = false;
  // A connection of the calm network would never end.
  for (const end of [...open]) end();
}
// No message is published before each client has a position to resume from: without one, a loss
// could not be detected.
while (!clients.every(({ record }) => record.hasBegun)) await sleep(20);
await settle(false);
const rounds = Math.max(2, Math.ceil(cutsWanted / 400));
for (let round = 0; round < rounds; round++) {
  while (counts.cuts + counts.storms < cutsWanted * (round + 1) / rounds && !wrong.length) {
    // Publishes a burst, or a few messages slowly; sometimes all connections break at once.
    for (let left = 1 + random(12); left > 0; left--) await publish(topics[Math.max(0, random(6) - 3)]);
    if (!random(12)) for (const end of [...open]) end();
    await sleep(random(12));
  }
  await settle();
  // While the network is down, exactly the kept number of messages is published, and then some more
  // than that.
  for (const more of [0, 1 + random(history)]) {
    isDown = true;
    for (const end of [...open]) end();
    await sleep(200);
    const gaps = counts.gaps;
    for (let left = history + more; left > 0; left--) for (const topic of topics) await publish(topic);
    await settle();
    const told = counts.gaps - gaps;
    if (more ? told < clients.length : told > 0) wrong.push(`${told} gap notices of ${clients.length} after ${history + more} messages, of which ${history} are kept`);
    if (more) counts.drops++;
  }
  if (wrong.length) break;
}
clients.forEach(({ close }) => close());
console.log(JSON.stringify({ seed, ...counts }));
wrong.slice(0, 20).forEach((line) => console.error(line));
process.exit(wrong.length ? 1 : 0);
