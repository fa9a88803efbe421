"""The probe in Python for `wasi:http` 0.2. The output of componentize-py is served without changes."""

import socket

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = request.path_with_query()
        response = OutgoingResponse(Fields.from_list([]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as out:
            if path == "/echo":
                echo(request, out)
            elif path == "/connect":
                out.blocking_write_and_flush(connect())
            else:
                out.blocking_write_and_flush(b"hello")
        OutgoingBody.finish(body, None)


def echo(request: IncomingRequest, out) -> None:
    with request.consume() as body, body.stream() as stream:
        while True:
            try:
                out.blocking_write_and_flush(stream.blocking_read(4096))
            except Exception:
                return


def connect() -> bytes:
    try:
        # `create_connection` would need the codec idna, which the component has only if the app
        # imports it.
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9))
    except OSError:
        return b"refused"
    return b"connected"
