"""Tests the settings of a proxy from the guide: TLS, a WebSocket, a feed, a page, a large upload, and
requests around its timeouts."""

import http.client, re, socket, ssl, subprocess, threading, time
from concurrent.futures import ThreadPoolExecutor

UPLOAD_BYTES = 100 << 20
# Idle timeout of the proxy's connections, instead of 60 s. Tidegate's is a quarter longer, as its
# default is.
IDLE, IDLE_OF_TIDEGATE = 1.0, "1250ms"
CLIENTS, ROUNDS = 200, 10
# A debug build computes for a long time on a large form.
SETTINGS = f'[server]\ntrusted = ["127.0.0.1"]\n[app]\ncpu = "30s"\n[limits]\nupload_bytes_max = "256 MiB"\nidle_within = "{IDLE_OF_TIDEGATE}"\n'


def certificate(folder):
    """Writes a self-signed certificate for 127.0.0.1 and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key


def nginx(folder, text, port):
    """Returns the command that runs nginx with the guide's settings on this port."""
    cert, key = certificate(folder)
    text = replaced(text, "listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = replaced(text, "server_name example.org;", "server_name _;")
    text = replaced(text, "/etc/letsencrypt/live/example.org/fullchain.pem", str(cert))
    text = replaced(text, "/etc/letsencrypt/live/example.org/privkey.pem", str(key))
    text = replaced(text, "keepalive_timeout 60s;", f"keepalive_timeout {int(IDLE)}s;")
    whole = f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{ worker_connections 2048; }}\nhttp {{\naccess_log off;\n"
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        whole += f"{name}_temp_path {folder}/{name};\n"
    (folder / "nginx.conf").write_text(whole + text + "}\n")
    return ["nginx", "-p", folder, "-c", folder / "nginx.conf"]


def caddy(folder, text, port):
    """Returns the command that runs Caddy with the guide's settings on this port."""
    cert, key = certificate(folder)
    text = replaced(text, "example.org {", f"https://127.0.0.1:{port} {{\ntls {cert} {key}")
    text = replaced(text, "keepalive 60s", f"keepalive {int(IDLE)}s")
    (folder / "Caddyfile").write_text("{\nadmin off\nauto_https disable_redirects\nskip_install_trust\n}\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]


def replaced(text, old, new):
    assert old in text, f"the settings have no {old!r}"
    return text.replace(old, new)


def faults(port):
    """Tries everything through the proxy; what went wrong."""
    client = Client(port)
    tries = [client.says_who_it_is, client.websocket, client.feed, client.page, client.upload, client.idle]
    found = []
    for attempt in tries:
        try:
            fault = attempt()
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        if fault:
            found.append(f"{attempt.__name__}: {fault}")
    return found


class Client:
    """A client of the proxy."""

    def __init__(self, port):
        self.port, self.host = port, f"127.0.0.1:{port}"
        self.tls = ssl.create_default_context()
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)

    def socket(self):
        return self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 30))

    def says_who_it_is(self):
        """The app sees the client, its scheme and its host, and nothing that the client claims."""
        for claims in ({}, {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "Forwarded": "for=8.8.8.8"}):
            connection = self.connect()
            connection.request("GET", "/client", headers=claims)
            body = connection.getresponse().read().decode()
            connection.close()
            if not body.startswith(f"127.0.0.1:0 https {self.host} {self.host}") or "8.8.8.8" in body or "evil" in body:
                return f"{claims}: {body}"

    def websocket(self):
        """A page of the same origin opens one, and a page of another does not."""
        for origin, status in ((f"https://{self.host}", b" 101 "), (f"http://{self.host}", b" 403 "), ("https://elsewhere.example", b" 403 ")):
            with self.socket() as stream:
                stream.sendall((f"GET /other HTTP/1.1\r\nHost: {self.host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
                answer = read_until(stream, b"\r\n\r\n")
                if status not in answer.split(b"\r\n")[0]:
                    return f"{origin}: {answer}"
                if status == b" 101 ":
                    stream.sendall(b"\x81\x82\0\0\0\0hi")
                    echo = read_until(stream, b"hi")
                    if not echo.endswith(b"\x81\x02hi"):
                        return f"{echo}"

    def feed(self):
        """Its first event comes while it goes on."""
        with self.socket() as stream:
            stream.sendall(f"GET /feed?topic=tea HTTP/1.1\r\nHost: {self.host}\r\nAccept: text/event-stream\r\n\r\n".encode())
            head = read_until(stream, b"data: second")
            if b" 200 " not in head or b"data: second" not in head:
                return f"{head}"

    def page(self):
        """It comes whole, with the values of its loaders."""
        connection = self.connect()
        connection.request("GET", "/values", headers={"Accept": "text/html"})
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200 or "</html>" not in body or "late" not in body:
            return f"{answer.status} {body}"

    def upload(self):
        """A form with a large file reaches its action."""
        def pieces():
            yield head
            for _ in range(UPLOAD_BYTES >> 16):
                yield bytes(1 << 16)
            yield tail
        head = (b'--b\r\ncontent-disposition: form-data; name="__action"\r\n\r\nweigh\r\n'
                b'--b\r\ncontent-disposition: form-data; name="file"; filename="zeros"\r\ncontent-type: application/octet-stream\r\n\r\n')
        tail = b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(head) + UPLOAD_BYTES + len(tail)),
                   "Accept": "application/json", "Origin": f"https://{self.host}"}
        connection = self.connect()
        connection.request("POST", "/page", body=pieces(), headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200 or str(UPLOAD_BYTES) not in body:
            return f"{answer.status} {body}"

    def idle(self):
        """No request is lost, although the proxy's connections to the server are idle for about as long as the proxy keeps them."""
        lost, rounds = [], threading.Barrier(CLIENTS)

        def work(number):
            connection = self.connect()
            for turn in range(ROUNDS):
                rounds.wait(60)
                # Each round rests a little longer: from a tenth below the time-outs to beyond both of them.
                time.sleep(IDLE * (0.9 + 0.5 * turn / ROUNDS) + number * 0.0005)
                try:
                    connection.request("GET", "/calm")
                    answer = connection.getresponse()
                    if answer.read() != b"calm" or answer.status != 200:
                        lost.append(f"{answer.status}")
                except (OSError, http.client.HTTPException) as error:
                    lost.append(repr(error))
                    connection.close()

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(work, range(CLIENTS)))
        if lost:
            return f"lost {len(lost)} of {CLIENTS * ROUNDS} requests, the first by {lost[0]}"


def read_until(stream, end):
    """Reads up to this text, for at most 10 s: a proxy that buffers events sends nothing before that."""
    text, due = b"", time.monotonic() + 10
    while not re.search(re.escape(end), text) and time.monotonic() < due:
        stream.settimeout(max(due - time.monotonic(), 0.1))
        try:
            piece = stream.recv(65536)
        except TimeoutError:
            break
        if not piece:
            break
        text += piece
    return text
