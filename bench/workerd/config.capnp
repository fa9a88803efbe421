# A Durable Object that writes each message to the local disk and sends it back: what `guests/durable` is in Tidegate.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .main), (name = "disk", disk = (writable = true))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const main :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
  durableObjectNamespaces = [(className = "Kept", uniqueKey = "kept", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "KEPT", durableObjectNamespace = "Kept")],
);
