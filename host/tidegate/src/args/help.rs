//! Texts of the help that are longer than a line.

pub(super) const ABOUT: &str = "Tidegate serves WebAssembly components: HTTP, WebSockets and event streams.\n\n\
    The host owns every socket; the app is called with events and answers with effects. So connections\n\
    outlive a trap of the app, use none of its memory while they are idle, and broadcasts bypass it.";

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate new talk --template chat
  tidegate serve app.wasm
  tidegate serve app.wasm --assets web --listen 0.0.0.0:80
  tidegate check app.wasm
  tidegate routes app.wasm --json
  tidegate data rooms

Exit codes: 0 success; 1 the app, the port, the data or the disk failed; 2 wrong arguments or
settings; 130 or 143 after a second SIGINT or SIGTERM.";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  tidegate serve app.wasm                            on http://127.0.0.1:8080
  tidegate serve app.wasm --listen 127.0.0.1:0       on a free port; the first lines show it
  tidegate serve app.wasm --assets web               with files, and web/index.html for other pages
  tidegate serve app.wasm --env TOKEN --dir data::/data::rw --allow-outbound api.example.com
  tidegate serve app.wasm --origin https://example.org --limit message_bytes_max=4MiB
  tidegate serve app.wasm --config tidegate.toml     settings from a file; flags override it

Ctrl-C or SIGTERM drains: the server accepts no new connections, closes WebSockets with 1001, and
finishes requests. A second signal stops it at once.";

pub(super) const NEW_EXAMPLES: &str = "\
Examples:
  tidegate new hello
  tidegate new apps/talk --template chat

The command needs no network, and never overwrites a file.";

pub(super) const DEV_HELP: &str = "\
Examples:
  tidegate dev
  tidegate dev apps/talk --listen 127.0.0.1:3000

Open WebSockets, feeds and rooms stay when the app changes. A page that has
  <script src=\"/__tidegate/dev.js\"></script>
shows build errors, and replaces changed styles in place. With data-reload=\"assets\" it reloads
when another of its files changes; with data-reload it also reloads after each version of the app.
In `tidegate serve` that script is empty.";

pub(super) const CHECK_HELP: &str = "\
Each problem has a code; `tidegate explain TG003` explains it. The exit code is 0 if the app can be
served, 1 if not.";

pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completions zsh > ~/.zfunc/_tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

pub(super) const COMPILE_HELP: &str = "\
Examples:
  tidegate compile app.wasm -o app.tide
  tidegate serve app.tide

The file holds machine code, which runs outside of the sandbox: trust it as much as the tidegate
binary. It is accepted only if it belongs to root or to the user that runs the server, no other user
may write to it, its digest is right, and the same version compiled it for the same kind of
processor. Never serve a compiled file from elsewhere: compile the .wasm yourself.";

pub(super) const TEST_HELP: &str = "\
A script is a list of tests. Each test is a list of steps:
  [[test]]
  name = \"each message reaches all members\"
  steps = [
    { connect = \"ann\", to = \"/rooms/tea?name=Ann\" },
    { expect = \"ann\", json = { kind = \"history\" } },
    { send = \"ann\", text = \"hi\" },
    { expect = \"ann\", contains = \"hi\" },
    { sleep = \"/rooms/tea\" },
    { advance = \"1h\" },
    { reload = true },
    { request = \"GET /health\", status = 200, text = \"ok\" },
  ]

Each test begins with an app without state. Further steps: subscribe, close, disconnect, publish, restart
and fail_next_commit. The exit code is 0 if all tests passed, 1 if not, 2 if a script can't be read.";

pub(super) const CONNECT_EXAMPLES: &str = "\
Examples:
  tidegate connect ws://127.0.0.1:8080/echo
  echo hi | tidegate connect ws://127.0.0.1:8080/echo --protocol v1.echo --header 'authorization: Bearer x'
  tidegate connect ws://127.0.0.1:8080/echo --bench 10000

Messages go to stdout, everything else to stderr. The exit code is 1 if the server closes with a code
other than 1000 or 1001.";

pub(super) const TAIL_HELP: &str = "\
Examples:
  tidegate tail                                   everything, with requests and connections
  tidegate tail --level warn                      only stderr of the app, and errors
  tidegate tail --route '/chat/{room}' --json
  tidegate tail --room chat/tea

The output begins when the command connects: the server keeps no earlier lines, and spends nothing on
this log while no command is connected.";

pub(super) const RELOAD_HELP: &str = "\
New events go to the new version; events in progress finish on the old one. WebSockets, feeds and
rooms stay; the server closes only WebSockets whose route the new version lacks (1012). A file that
can't be served changes nothing. SIGHUP does the same.";
