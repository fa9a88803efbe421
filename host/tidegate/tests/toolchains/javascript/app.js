// The probe in JavaScript: a fetch handler, of which componentize-js makes a component.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (pathname === "/echo") return new Response(await request.text());
  if (pathname === "/connect") {
    try {
      await fetch("http://127.0.0.1:9/");
      return new Response("connected");
    } catch {
      return new Response("refused");
    }
  }
  return new Response("hello");
}
