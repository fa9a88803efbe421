// The hibernation API: the object may go while its sockets stay. A message leaves when the write before it is durable.
import { DurableObject } from "cloudflare:workers";

export default {
  fetch(request, env) {
    return env.KEPT.getByName(new URL(request.url).pathname).fetch(request);
  },
};

export class Kept extends DurableObject {
  fetch() {
    const [client, server] = Object.values(new WebSocketPair());
    this.ctx.acceptWebSocket(server);
    return new Response(null, { status: 101, webSocket: client });
  }

  webSocketMessage(socket, message) {
    this.ctx.storage.put("last", message);
    socket.send(message);
  }
}
