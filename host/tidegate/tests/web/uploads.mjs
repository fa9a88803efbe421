// uploads.mjs URL TRIES: the same as uploads.py, with Node's fetch.
const [url, tries] = process.argv.slice(2);
const body = new Uint8Array(2 << 20);
for (const path of ["/web/upload", "/web/vault/upload", "/nothing/is/here"]) {
  const counts = new Map();
  for (let i = 0; i < Number(tries); i++) {
    let seen;
    try {
      const answer = await fetch(url + path, { method: "POST", body });
      await answer.arrayBuffer();
      seen = answer.status;
    } catch (error) {
      seen = error.cause?.code ?? String(error);
    }
    counts.set(seen, (counts.get(seen) ?? 0) + 1);
  }
  for (const [seen, count] of counts) console.log(path, seen, count);
}
