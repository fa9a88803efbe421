// What /__tidegate/client.js promises of sockets, event streams and loaders, tried in a browser with a network and a clock of our own.
// The last line's value is a list of what is wrong.
const done = arguments[0];
(async () => {
  const wrong = [];
  const check = (what, got, expected) => {
    const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
    if (a !== b) wrong.push(`${what}: ${a}, not ${b}`);
  };
  const settle = async () => { for (let turn = 0; turn < 50; turn++) await null; };

  let timers = [];
  const pass = () => { const due = timers; timers = []; due.forEach(({ run }) => run()); };
  self.setTimeout = (run, ms) => timers.push({ run, ms });
  self.clearTimeout = () => { timers = []; };
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

  // A socket comes back, later each time, and asks for what it missed.
  const lost = [], heard = [], statuses = [];
  const chat = socket("/chat?a=1", {
    queue: 2, protocols: ["v1"], id: (data) => JSON.parse(data).id, onmessage: (data) => heard.push(data), onoverflow: (message) => lost.push(message),
    onstatus: (status) => statuses.push(status),
  });
  check("what fits waits", ["a", "b", "c"].map((message) => chat.send(message)), [true, true, false]);
  check("what does not is told", lost, ["c"]);
  check("where", [opened[0].url, opened[0].protocols], [location.origin.replace("http", "ws") + "/chat?a=1", ["v1"]]);
  opened[0].open();
  check("what waited goes first", [chat.send("d"), opened[0].sent], [true, ["a", "b", "d"]]);
  opened[0].onmessage({ data: '{"id":7}' });
  const waits = [];
  for (let turn = 0; turn < 8; turn++) {
    opened.at(-1).end(1006);
    waits.push(timers[0].ms);
    pass();
  }
  check("it waits longer each time", waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  check("it says where it was", opened.at(-1).url, location.origin.replace("http", "ws") + "/chat?a=1&since=7");
  opened.at(-1).open();
  opened.at(-1).end(1012);
  check("a connection that stood begins anew", timers.map(({ ms }) => ms), [500]);
  pass();
  for (const code of [1000, 4000, 4999]) {
    const [before, own] = [opened.length, []];
    const other = socket("/other", { onstatus: (status) => own.push(status) });
    opened.at(-1).open();
    opened.at(-1).end(code);
    check(`${code} is the end`, [opened.length - before, timers.length, own, other.send("x")], [1, 0, ["connecting", "open", "closed"], false]);
  }
  chat.close();
  check("it is closed once", [opened.find((it) => it.closed)?.closed, statuses[0]], [[1000, ""], "connecting"]);

  // An event stream comes back to where it was; a refusal ends it.
  const asked = [];
  let answers = [];
  self.fetch = async (url, options) => { asked.push([url, options.headers, options.body]); return answers.shift() ?? new Promise(() => {}); };
  const stream = (...pieces) => new Response(new ReadableStream({
    start(controller) { pieces.forEach((piece) => controller.enqueue(new TextEncoder().encode(piece))); controller.close(); },
  }));
  const told = [];
  answers = [stream("id: e-1\ndata: a\n\n: a comment\nevent: pri", "ce\r\nid: e-2\r\ndata: b\r\ndata: c\r\n\r\ndata: cut o"), new Response("", { status: 503 }), new Response("", { status: 403 })];
  const ends = [];
  events("/prices", { onevent: (event) => told.push(event), onstatus: (status) => ends.push(status) });
  for (let turn = 0; turn < 4; turn++) { await new Promise((resolve) => { const channel = new MessageChannel(); channel.port1.onmessage = resolve; channel.port2.postMessage(0); }); await settle(); pass(); await settle(); }
  check("each event, and nothing of one that was cut off", told, [
    { type: "message", data: "a", lastEventId: "e-1" }, { type: "price", data: "b\nc", lastEventId: "e-2" }]);
  check("it comes back to where it was", asked.map(([, headers]) => headers["last-event-id"] ?? null), [null, "e-2", "e-2"]);
  check("a refusal ends it", ends, ["connecting", "open", "waiting", "connecting", "waiting", "connecting", "closed"]);

  // A loader by itself: only its end says that nothing is missing.
  const runs = [
    ['{"value":1}\n\n{"value":2}\n{"end":{}}\n', ["done", 2, null]],
    ['{"value":1}\n', ["error", 1, { status: 0, message: "the stream broke off" }]],
    ['{"timeout":{}}\n', ["error", null, { status: 504, message: "it took too long" }]],
    ['{"error":{"status":404,"message":"no tea"}}\n', ["error", null, { status: 404, message: "no tea" }]],
  ];
  for (const [index, [text, expected]] of runs.entries()) {
    answers = [stream(text)];
    const own = loader("stock", { page: "/p/{id}", params: { id: String(index) } });
    await own.reload();
    check(text, [own.status, own.value ?? null, own.error ?? null], expected);
  }
  answers = [new Response('{"error":{"status":403,"message":"not you"}}', { status: 403 })];
  const refused = loader("stock", { page: "/refused" });
  await refused.reload();
  check("a refusal", refused.error, { status: 403, message: "not you" });
  check("what it asks for", JSON.parse(asked.at(-2)[2]), { page: "/p/{id}", loader: "stock", params: { id: "3" } });
  const given = loader("stock", { page: "/never" });
  given.reload();
  given.abort();
  check("given up", [given.status, given.error.message], ["error", "aborted"]);
  return wrong;
})().then(done, (error) => done([String(error?.stack ?? error)]));
