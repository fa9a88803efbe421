// The types of /__tidegate/client.js as an author uses them. `tsc` checks this file; it never runs.
import { enhance, events, loader, socket, type Outcome, type Problem } from "/__tidegate/client.js";

const stock = loader<{ left: number }>("stock");
const stop: () => void = stock.subscribe(({ status, value, error }) => {
  const left: number | undefined = value?.left;
  const problem: Problem | undefined = error;
  const ended: boolean = status === "done" || status === "error";
  console.log(left, problem?.status, ended);
});
stop();
// @ts-expect-error: only the loader itself sets its status
stock.status = "done";
// @ts-expect-error: there is no such status
console.log(stock.status === "ready");
loader("stock", { page: "/products/{id}", params: { id: "7" }, search: "?tab=1" }).reload().then(() => stock.abort());

enhance<string>(document.forms[0]!, (outcome: Outcome<string>) => {
  if (outcome.outcome === "success") console.log(outcome.value.length, outcome.stale);
  else if (outcome.outcome === "deny") console.log(outcome.errors.amount);
  else if (outcome.outcome === "redirect") console.log(outcome.location);
});

// @ts-expect-error: a probe needs an answer
socket("/chat", { probe: { text: "ping" } });
const chat = socket("/chat", { queue: 10, probe: { text: "ping", answer: "pong", every: 5000 }, since: 7, id: (data) => JSON.parse(String(data)).id, onoverflow: (lost) => console.log(lost) });
const isTaken: boolean = chat.send(new Uint8Array(2));
chat.close(1000, isTaken ? "bye" : "");

events("/prices", { lastEventId: "e-7", onevent: ({ type, data, lastEventId }) => console.log(type, data, lastEventId) }).close();
