// The page of hello: each form sends the request that it names.

for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const value = form.querySelector("input")?.value ?? "";
    const { method, path } = form.dataset;
    const request = method === "GET" ? [path + encodeURIComponent(value)] : [path, { method, body: value }];
    const output = form.querySelector("output");
    try {
      const answer = await fetch(...request);
      output.dataset.ok = answer.ok;
      output.value = `${answer.status} ${await answer.text()}`;
    } catch (error) {
      output.dataset.ok = false;
      output.value = String(error);
    }
  });
}
