// The machine room's load in a page that Preact draws: a loader of another page, asked for by itself.
import { h, render } from "preact";
import { loader } from "/__tidegate/client.js";
import { useLoader } from "./use-loader.js";

/** @type {import("/__tidegate/client.js").Loader<{ second: number, percent: number }>} */
const load = loader("load", { page: "/" });
load.reload();

function Panel() {
  const { status, value, error } = useLoader(load);
  return h("main", { class: status },
    h("meter", { max: 100, high: 80, value: value?.percent ?? 0 }),
    h("p", { id: "percent" }, value ? `${value.percent} %` : "…"),
    h("p", { id: "status" }, error ? `error: ${error.message}` : status),
    status === "error" && h("button", { id: "again", onClick: () => load.reload() }, "Try again"));
}

render(h(Panel, {}), document.body);
