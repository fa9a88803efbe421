// Promises of /__tidegate/client.js about sockets, event streams and loaders, tested in a browser
// whose network and clock the test controls. The value of the last line is a list of failures.
const done = arguments[0];
(async () => {
  const wrong = [];
  const check = (what, got, expected) => {
    const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
    if (a !== b) wrong.push(`${what}: ${a}, not ${b}`);
  };
  const settle = async () => { for (let turn = 0; turn < 50; turn++) await null; };

  let now = 0, timer = 0;
  const timers = new Map();
  self.setTimeout = (run, ms, ...args) => (timers.set(++timer, { at: now + ms, ms, run: () => run(...args) }), timer);
  self.clearTimeout = (id) => timers.delete(id);
  performance.now = () => now;
  // Advances the clock, and runs everything that is due by then.
  const pass = (ms) => {
    const end = now + ms;
    for (;;) {
      const [id, due] = [...timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!due || due.at > end) break;
      timers.delete(id);
      now = due.at;
      due.run();
    }
    now = end;
  };
  const waits = () => [...timers.values()].map(({ ms }) => ms);
  Math.random = () => 1;

  const opened = [];
  self.WebSocket = class {
    constructor(url, protocols) { Object.assign(this, { url: String(url), protocols, readyState: 0, sent: [] }); opened.push(this); }
    open() { this.readyState = 1; this.onopen(); }
    send(message) { this.sent.push(message); }
    close(code, reason) { this.closed = [code, reason]; }
    end(code) { this.readyState = 3; this.onclose({ code, reason: "" }); }
  };
  const { socket, events, loader } = await import("/__tidegate/client.js");

  // A socket reconnects after growing delays, and asks for the messages that it missed.
  const lost = [], heard = [], statuses = [];
  const chat = socket("/chat?a=1", {
    queue: 2, protocols: ["v1"], id: (data) => JSON.parse(data).id, onmessage: (data) => heard.push(data), onoverflow: (message) => lost.push(message),
    onstatus: (status) => statuses.push(status),
  });
  check("messages that fit are queued", ["a", "b", "c"].map((message) => chat.send(message)), [true, true, false]);
  check("a message that does not fit is reported", lost, ["c"]);
  check("where", [opened[0].url, opened[0].protocols], [location.origin.replace("http", "ws") + "/chat?a=1", ["v1"]]);
  opened[0].open();
  check("queued messages are sent first", [chat.send("d"), opened[0].sent], [true, ["a", "b", "d"]]);
  opened[0].onmessage({ data: '{"id":7}' });
  const longer = [];
  for (let turn = 0; turn < 8; turn++) {
    opened.at(-1).open();
    pass(9999);
    opened.at(-1).end(1006);
    longer.push(...waits());
    pass(longer.at(-1));
  }
  check("each delay is longer, though it opens in between", longer, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  check("it sends its position", opened.at(-1).url, location.origin.replace("http", "ws") + "/chat?a=1&since=7");
  opened.at(-1).open();
  pass(10000);
  opened.at(-1).end(1012);
  check("a lasting connection resets the delay", waits(), [500]);
  pass(500);
  const before = opened.length;
  pass(35000);
  check("a connection that does not open is given up", [opened.at(-1).closed, waits()], [[null, null], [1000]]);
  opened.at(-1).onclose?.({ code: 1000, reason: "too late" });
  pass(1000);
  check("its own end has no further effect", opened.length, before + 1);
  for (const code of [1000, 4000, 4999]) {
    const [before, own] = [opened.length, []];
    const other = socket("/other", { onstatus: (status) => own.push(status) });
    opened.at(-1).open();
    opened.at(-1).end(code);
    check(`${code} is the end`, [opened.length - before, own, other.send("x")], [1, ["connecting", "open", "closed"], false]);
  }
  chat.close();
  check("it closes once", [opened[before].closed, statuses[0]], [[1000, ""], "connecting"]);
  opened[before].end(1000);
  check("no timer is left", [statuses.at(-1), waits()], ["closed", []]);
  const waiting = [], idle = socket("/idle", { onstatus: (status) => waiting.push(status) });
  opened.at(-1).end(1006);
  idle.close();
  idle.close();
  check("it closes between two connections", [waiting, waits()], [["connecting", "waiting", "closed"], []]);

  // Silence is detected by a probe that is not answered.
  const texts = [], probes = [];
  const probed = socket("/probed", {
    probe: { text: "ping", answer: "pong", every: 1000 }, onmessage: (text) => texts.push(text), onstatus: (status, detail) => probes.push([status, detail?.reason ?? null]),
  });
  const first = opened.at(-1);
  first.open();
  pass(999);
  check("no probe is sent too early", first.sent, []);
  pass(1);
  first.onmessage({ data: "pong" });
  pass(1000);
  first.onmessage({ data: "hello" });
  pass(999);
  check("the answer to a probe is not a message, and every message shows life", [first.sent, texts], [["ping", "ping"], ["hello"]]);
  pass(2000);
  check("two answers are missing", [first.sent.length, first.closed ?? null, probes.at(-1)[0]], [4, null, "open"]);
  pass(1);
  check("two missing answers end it", [first.closed, probes.at(-1)], [[null, null], ["waiting", "nothing came for too long"]]);
  pass(500);
  check("it reconnects", opened.at(-1) !== first && probes.at(-1)[0], "connecting");
  probed.close();
  opened.at(-1).end(1000);
  const silent = socket("/silent");
  opened.at(-1).open();
  check("without a probe nothing is sent", [waits(), opened.at(-1).sent], [[], []]);
  silent.close();
  opened.at(-1).end(1000);

  // An event stream resumes from its position; a refusal ends it.
  let asked = [], answers = [];
  const never = ({ signal }) => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
  const answerNext = async (url, options) => {
    asked.push([url, options.headers, options.body]);
    const next = answers.shift();
    if (next) options.signal.addEventListener("abort", () => next.abort?.(options.signal.reason));
    return next ?? never(options);
  };
  self.fetch = answerNext;
  let abort;
  const body = (pieces, goesOn) => new ReadableStream({
    start(controller) {
      pieces.forEach((piece) => controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : new Uint8Array(piece)));
      abort = goesOn && ((reason) => controller.error(reason));
      goesOn || controller.close();
    },
  });
  const typed = (type, pieces, headers = {}, goesOn = false) => {
    const response = new Response(body(pieces, goesOn), { headers: { "content-type": type, ...headers } });
    return Object.assign(response, { abort });
  };
  const stream = (...pieces) => typed("text/event-stream; charset=utf-8", pieces);
  const turns = async () => {
    for (let turn = 0; turn < 20; turn++) {
      await new Promise((resolve) => { const channel = new MessageChannel(); channel.port1.onmessage = resolve; channel.port2.postMessage(0); });
      await settle();
    }
  };
  // The events of a stream that arrives in pieces: data, names, and the id of the next request.
  const read = async (...pieces) => {
    [asked, answers] = [[], [stream(...pieces)]];
    const told = [], own = events("/stream", { lastEventId: "0", onevent: ({ type, data }) => told.push(type === "message" ? data : [type, data]) });
    await turns();
    const wait = waits()[0];
    pass(wait);
    await turns();
    own.close();
    await turns();
    return [told, asked[1]?.[1]["last-event-id"] ?? null, wait];
  };
  const rows = [
    [["id: 1\ndata: a\n\n"], [["a"], "1", 500]],
    [["id: 1\ndata: a\n\nid: 2\ndata: b\n"], [["a"], "1", 500]],
    [["id: 1\ndata: a\n\nid: 2\ndata: b"], [["a"], "1", 500]],
    [["id: 1\ndata: a\n\nid: 2\n"], [["a"], "1", 500]],
    [["id: 1\n\n"], [[], "1", 500]],
    [["data: a\nid: 1\n\ndata: b\n\n"], [["a", "b"], "1", 500]],
    [["id: 1\ndata: a\n\nid\ndata: b\n\n"], [["a", "b"], null, 500]],
    [["id: 1\u00002\ndata: a\n\n"], [["a"], "0", 500]],
    [["id: \u00e9\ndata: a\n\n"], [["a"], "\u00c3\u00a9", 500]],
    [["data: a\r\n\r\ndata: b\r\rdata: c\n\n"], [["a", "b", "c"], "0", 500]],
    [["data: a\r", "\n\r", "\ndata: b\r", "data: c\r", "\r"], [["a", "b\nc"], "0", 500]],
    [["data: a\n", "\n", "da", "ta", ": b", "\n\n"], [["a", "b"], "0", 500]],
    [[[0xef, 0xbb, 0xbf], "data: a\n\n"], [["a"], "0", 500]],
    [["\ufeffdata: a\n\n\ufeffdata: b\n\n"], [["a"], "0", 500]],
    [["data: ", [0xf0, 0x9f], [0x8c, 0x8a], "\n\n"], [["\ud83c\udf0a"], "0", 500]],
    [["data: ", [0xff], "\n\n"], [["\ufffd"], "0", 500]],
    [[": a comment\n\ndata: a\n:\ndata: b\n\n"], [["a\nb"], "0", 500]],
    [["data:a\n\ndata:  a\n\ndata:\n\ndata\n\ndata\ndata\n\n"], [["a", " a", "", "", "\n"], "0", 500]],
    [["data: a: b\n\nDATA: c\n\n data: d\n\n"], [["a: b"], "0", 500]],
    [["event: price\ndata: a\n\ndata: b\n\n"], [[["price", "a"], "b"], "0", 500]],
    [["event: price\n\ndata: b\n\nevent:\ndata: c\n\n"], [["b", "c"], "0", 500]],
    [["retry: 7000\n\n"], [[], "0", 7000]],
    [["retry: 7000\nretry: 7x\nretry: -1\nretry:\n"], [[], "0", 7000]],
    [["retry: 99999999999999999999\n\n"], [[], "0", 2147483647]],
    [["data: \u2028a\u0085\n\n"], [["\u2028a\u0085"], "0", 500]],
  ];
  for (const [pieces, expected] of rows) check(JSON.stringify(pieces), await read(...pieces), expected);

  const told = [], ends = [];
  [asked, answers] = [[], [stream("id: e-1\ndata: a\n\nid: e-2\nevent: price\ndata: b\n\ndata: cut o"), new Response("", { status: 503 }), new Response("", { status: 429 }), new Response("", { status: 403 })]];
  events("/prices", { onevent: (event) => told.push(event), onstatus: (status, detail) => ends.push([status, detail?.status ?? null]) });
  const between = [];
  for (let turn = 0; turn < 4; turn++) { await turns(); between.push(...waits()); pass(waits()[0] ?? 0); }
  check("each event, and nothing of a truncated event", told, [
    { type: "message", data: "a", lastEventId: "e-1" }, { type: "price", data: "b", lastEventId: "e-2" }]);
  check("it resumes from its position", asked.map(([, headers]) => headers["last-event-id"] ?? null), [null, "e-2", "e-2", "e-2"]);
  check("each delay is longer", between, [500, 1000, 2000]);
  check("a refusal ends it", ends.filter(([status]) => status !== "connecting"), [["open", null], ["waiting", 200], ["waiting", 503], ["waiting", 429], ["closed", 403]]);

  for (const [answer, message] of [
    [typed("text/html", ["data: a\n\n"]), "the answer is text/html, not an event stream"],
    [typed("text/event-stream-not", ["data: a\n\n"]), "the answer is text/event-stream-not, not an event stream"],
    [new Response(body(["data: a\n\n"])), "the answer is of no type, not an event stream"],
    [new Response(null, { status: 204 }), null],
    [new Response(body(["data: a\n\n"]), { status: 206, headers: { "content-type": "text/event-stream" } }), null],
  ]) {
    answers = [answer];
    const [seen, details] = [[], []];
    events("/other", { onevent: (event) => seen.push(event), onstatus: (status, detail) => details.push([status, detail?.message ?? null]) });
    await turns();
    check(`no stream: ${message ?? answer.status}`, [seen, details, waits()], [[], [["connecting", null], ["closed", message]], []]);
  }

  // An error of a listener is reported, and the stream goes on.
  const reported = [];
  self.reportError = (error) => reported.push(error.message);
  answers = [stream("id: 1\ndata: a\n\nid: 2\ndata: b\n\n")];
  const thrown = events("/throws", { onevent: ({ data }) => { throw new Error(data); } });
  await turns();
  thrown.close();
  await turns();
  check("errors that a listener throws", [reported, waits()], [["a", "b"], []]);
  [asked, answers] = [[], [new Response("", { status: 503 })]];
  const failing = events("/throws", { onstatus: (status) => { throw new Error(status); } });
  await turns();
  pass(500);
  await turns();
  failing.close();
  await turns();
  check("the stream reconnects nevertheless", [asked.length, reported.slice(2)], [2, ["connecting", "waiting", "connecting", "closed"]]);
  const broken = socket("/throws", { onstatus: (status) => { throw new Error(status); } }), count = opened.length;
  opened.at(-1).end(1006);
  pass(500);
  check("a socket reconnects, too", opened.length, count + 1);
  broken.close();
  opened.at(-1).end(1000);

  // A listener may close the stream.
  answers = [stream("data: a\n\ndata: b\n\n")];
  const few = [], short = events("/few", { onevent: ({ data }) => { few.push(data); short.close(); } });
  await turns();
  check("nothing comes after a close", [few, waits()], [["a"], []]);
  let tries = 0;
  const quits = socket("/quits", { onstatus: (status) => { if (status === "connecting" && ++tries === 2) quits.close(); } }), made = opened.length;
  opened.at(-1).end(1006);
  pass(500);
  check("nothing is opened after a close", [opened.length, waits()], [made, []]);

  // Silence: two heartbeats that the host announced are missing, or no answer arrives at all.
  [asked, answers] = [[], [typed("text/event-stream", [":\n\n"], { "tidegate-heartbeat": "1000" }, true), typed("text/event-stream", [":\n\n"], {}, true)]];
  const silence = [], quiet = events("/quiet", { onstatus: (status, detail) => silence.push([status, detail?.message ?? null]) });
  await turns();
  check("it waits for the heartbeats", waits(), [3000]);
  pass(3000);
  await turns();
  check("silence is detected", silence.at(-1), ["waiting", "Error: nothing came for too long"]);
  pass(500);
  await turns();
  check("without heartbeats silence is not detected", [silence.at(-1)[0], waits()], ["open", []]);
  quiet.close();
  await turns();
  check("the end", [silence.at(-1), waits()], [["closed", null], []]);
  answers = [];
  const mute = [], muted = events("/mute", { onstatus: (status, detail) => mute.push([status, detail?.message ?? null]) });
  await turns();
  pass(35000);
  await turns();
  check("an answer that never begins is given up", mute, [["connecting", null], ["waiting", "Error: no answer came in time"]]);
  muted.close();
  await turns();

  // A loader without a page: only the end record says that nothing is missing.
  const runs = [
    ['{"value":1}\n\n{"value":2}\n{"end":{}}\n', ["done", 2, null]],
    ['{"value":1}\n', ["error", 1, { status: 0, message: "the stream broke off" }]],
    ['{"timeout":{}}\n', ["error", null, { status: 504, message: "it took too long" }]],
    ['{"error":{"status":404,"message":"no tea"}}\n', ["error", null, { status: 404, message: "no tea" }]],
  ];
  for (const [index, [text, expected]] of runs.entries()) {
    answers = [typed("application/x-ndjson", [text])];
    const own = loader("stock", { page: "/p/{id}", params: { id: String(index) } });
    await own.reload();
    check(text, [own.status, own.value ?? null, own.error ?? null], expected);
  }
  answers = [typed("text/html", ["<p>1</p>"])];
  const foreign = loader("stock", { page: "/foreign" });
  await foreign.reload();
  check("another type", foreign.error, { status: 0, message: "the answer is text/html, not a stream of values" });
  answers = [typed("application/x-ndjson", ['{"value":1}\n'], { "tidegate-heartbeat": "1000" }, true)];
  const dead = loader("stock", { page: "/dead" }), ran = dead.reload();
  await turns();
  pass(3000);
  await ran;
  check("silence breaks a loader", [dead.status, dead.value, dead.error.message], ["error", 1, "Error: nothing came for too long"]);
  answers = [new Response('{"error":{"status":403,"message":"not you"}}', { status: 403 })];
  const refused = loader("stock", { page: "/refused" });
  await refused.reload();
  check("a refusal", refused.error, { status: 403, message: "not you" });
  check("its request", JSON.parse(asked.at(-4)[2]), { page: "/p/{id}", loader: "stock", params: { id: "3" } });
  const given = loader("stock", { page: "/never" });
  given.reload();
  given.abort();
  check("given up", [given.status, given.error.message], ["error", "aborted"]);
  return wrong;
})().then(done, (error) => done([String(error?.stack ?? error)]));
