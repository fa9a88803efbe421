// clients.mjs URL: npm's `ws` and `eventsource` against the test app. Prints failures; exits with 1
// if there are any.
import { once } from "node:events";
import { EventSource } from "eventsource";
import WebSocket from "ws";

const base = process.argv[2];
const wrong = [];
const check = (what, got, expected) => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
  if (a !== b) wrong.push(`${what}: ${a}, not ${b}`);
};
const patience = setTimeout(() => {
  console.error(["it took longer than a minute", ...wrong].join("\n"));
  process.exit(1);
}, 60000);

async function open(path, protocols, options) {
  const ws = new WebSocket(base.replace("http", "ws") + path, protocols, options);
  await once(ws, "open");
  return ws;
}
const answer = async (ws, ...message) => {
  ws.send(...message);
  const [data, isBinary] = await once(ws, "message");
  return isBinary ? data : String(data);
};
const closed = async (ws) => (await once(ws, "close")).map(String);

// Messages are echoed unchanged.
for (const options of [{}, { perMessageDeflate: false }, { perMessageDeflate: { threshold: 0 } }]) {
  const ws = await open("/other", [], options);
  check("an extension that the host does not have", ws.extensions, "");
  for (const text of ["", "hello", "\u0000", "grüße, 世界 🌊", "x".repeat(125), "x".repeat(126), "x".repeat(65536)]) {
    check(`text of ${text.length} characters`, await answer(ws, text) === text, true);
  }
  for (const bytes of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    const sent = Buffer.alloc(bytes, "0123456789");
    check(`${bytes} bytes`, Buffer.compare(await answer(ws, sent), sent), 0);
  }
  ws.send("a message ", { fin: false });
  ws.send("in three ", { fin: false });
  check("fragments", await answer(ws, "parts", { fin: true }), "a message in three parts");
  ws.ping("are you there?");
  check("the pong has what the ping had", String((await once(ws, "pong"))[0]), "are you there?");
  await once(ws, "ping"); // a ping of the host, which `ws` answers
  check("the connection goes on after it", await answer(ws, "still here"), "still here");
  ws.close();
  check("a close without a code", await closed(ws), ["1005", ""]);
}

// Subprotocols: the app picks one, or none.
for (const [offered, picked] of [[["v2", "v1"], "v1"], [["v1"], "v1"]]) {
  const ws = await open(`/socket?protocol=${picked}`, offered);
  check(`of ${offered}`, ws.protocol, picked);
  ws.terminate();
}
const none = await open("/socket");
check("no subprotocol", none.protocol, "");
none.terminate();

// Closes: by the client, by the app, by a limit, by a fault of the client.
for (const [code, reason] of [[1000, "done"], [1001, ""], [3000, "x"], [4005, "ä".repeat(61)]]) {
  const ws = await open("/socket");
  ws.close(code, reason);
  check(`the client closes with ${code}`, (await closed(ws))[0], String(code));
}
for (const code of [1000, 1008, 1011, 3999, 4001]) {
  const ws = await open("/socket");
  ws.send(`close ${code}`);
  check(`the app closes with ${code}`, await closed(ws), [String(code), "as asked"]);
}
const large = await open("/other");
large.send(Buffer.alloc((1 << 20) + 1));
check("a message that is too large", (await closed(large))[0], "1009");
const broken = await open("/other");
broken.send(Buffer.from([0xff]), { binary: false });
check("text that is not UTF-8", (await closed(broken))[0], "1007");

// Refused upgrades.
for (const [path, status] of [["/socket?refuse=1", 418], ["/nothing", 404], ["/calm", 200]]) {
  const ws = new WebSocket(base.replace("http", "ws") + path);
  ws.on("error", () => {});
  const [request, response] = await once(ws, "unexpected-response");
  check(path, response.statusCode, status);
  request.destroy();
}

// An event stream of the app resumes from its position: two events each time.
const ids = [];
const fetchNoted = (url, init) => {
  ids.push(init.headers["Last-Event-ID"] ?? null);
  return fetch(url, init);
};
const stream = new EventSource(base + "/web/events", { fetch: fetchNoted });
const events = [];
await new Promise((done) => stream.addEventListener("tick", ({ data, lastEventId }) => {
  events.push([data, lastEventId]);
  if (events.length === 6) done();
}));
stream.close();
check("events", events, [1, 2, 3, 4, 5, 6].map((number) => [`first line of ${number}\nsecond`, String(number)]));
check("where it was", ids.slice(0, 3), [null, "2", "4"]);

// A feed sends its first event, a message and a named event.
const feed = new EventSource(base + "/feed?topic=npm");
const news = [];
const heard = (count) => new Promise((done) => {
  const hear = ({ type, data, lastEventId }) => {
    news.push([type, data, /-\d+$/.test(lastEventId)]);
    if (news.length === count) done();
  };
  for (const type of ["begun", "message", "alert"]) feed.addEventListener(type, hear);
});
const three = heard(3);
await new Promise((done) => { feed.onopen = done; });
for (const query of ["", "?event=alert"]) {
  await fetch(`${base}/publish/npm${query}`, { method: "POST", body: "high\nwater" });
}
await three;
feed.close();
check("a feed", news, [["begun", "first\nsecond", false], ["message", "high\nwater", true], ["alert", "high\nwater", true]]);

// A response that is not an event stream, and a refusal, end the client.
for (const path of ["/calm", "/nothing", "/status/204"]) {
  const refused = new EventSource(base + path);
  await new Promise((done) => { refused.onerror = done; });
  check(`${path} ends it`, refused.readyState, EventSource.CLOSED);
}

clearTimeout(patience);
wrong.forEach((line) => console.error(line));
process.exit(wrong.length ? 1 : 0);
