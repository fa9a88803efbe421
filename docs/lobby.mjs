// Takes docs/lobby.png, the picture in the README: `node docs/lobby.mjs` while `scripts/lobby` runs,
// or with the URL of another server. Needs chromium and chromedriver (`scripts/setup tests`).
//
// The page is Ann's. Bob and Cyd are further WebSockets, which the same page opens.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const url = process.argv[2] ?? "http://127.0.0.1:8080/";
const [width, height, scale] = [860, 520, 2];
const talk = [
  ["Bob", "Is this page served by one binary?"],
  ["Ann", "Yes: tidegate serve lobby.wasm"],
  ["Cyd", "And a new version of the app?"],
  ["Ann", "It is swapped in, and our WebSockets stay open."],
  ["Bob", "Nice."],
];

const profile = await mkdtemp(join(tmpdir(), "lobby-"));
const port = 9000 + (process.pid % 1000);
const driver = spawn("chromedriver", [`--port=${port}`], { stdio: "ignore" });
const call = async (method, path, body) => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    body: body && JSON.stringify(body),
  });
  const { value } = await response.json();
  if (!response.ok) throw new Error(value.message);
  return value;
};
const until = async (what, check) => {
  for (let tries = 0; tries < 100; tries++) {
    if (await check().catch(() => false)) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`${what} took too long`);
};

try {
  await until("chromedriver", async () => (await call("GET", "/status")).ready);
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", `--user-data-dir=${profile}`];
  const { sessionId } = await call("POST", "/session", {
    capabilities: { alwaysMatch: { browserName: "chrome", "goog:chromeOptions": { args } } },
  });
  const session = `/session/${sessionId}`;
  const run = (script, ...args) => call("POST", `${session}/execute/sync`, { script, args });
  const count = (text) =>
    run("return document.querySelectorAll('#log li').length && document.getElementById('log').textContent.includes(arguments[0])", text);
  const command = (cmd, params) => call("POST", `${session}/goog/cdp/execute`, { cmd, params });

  await command("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile: false });
  await call("POST", `${session}/url`, { url });
  const submit = "const [form, field, value] = arguments; document.getElementById(field).value = value; document.getElementById(form).requestSubmit()";
  await run(submit, "join", "name", "Ann");
  await until("Ann", () => count("Ann is here"));
  for (const name of ["Bob", "Cyd"]) {
    await run("const url = new URL('/lobby?name=' + arguments[0], location); url.protocol = 'ws:'; (window.others ??= {})[arguments[0]] = new WebSocket(url)", name);
    await until(name, () => count(`${name} is here`));
  }
  for (const [name, text] of talk) {
    if (name === "Ann") await run(submit, "say", "text", text);
    else await run("window.others[arguments[0]].send(arguments[1])", name, text);
    await until(text, () => count(text));
  }
  const { data } = await command("Page.captureScreenshot", { format: "png" });
  await writeFile(new URL("lobby.png", import.meta.url), Buffer.from(data, "base64"));
  await call("DELETE", session);
} finally {
  driver.kill();
  await rm(profile, { recursive: true, force: true });
}
