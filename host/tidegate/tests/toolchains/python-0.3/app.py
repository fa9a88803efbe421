"""The probe in Python for `wasi:http` 0.3."""

import socket

import componentize_py_async_support
import wit_world
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports import wasi_http_types as types


class Handler(exports.Handler):
    async def handle(self, request: types.Request) -> types.Response:
        path = request.get_path_with_query()
        if path == "/echo":
            done = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))[1]
            body, trailers = types.Request.consume_body(request, done)
            return types.Response.new(types.Fields(), body, trailers)[0]
        text = connect() if path == "/connect" else b"hello"
        writer, body = wit_world.byte_stream()
        componentize_py_async_support.spawn(write(writer, text))
        none = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(lambda: Ok(None))[1]
        return types.Response.new(types.Fields(), body, none)[0]


async def write(writer, text: bytes) -> None:
    with writer:
        await writer.write_all(text)


def connect() -> bytes:
    try:
        # `create_connection` would need the codec idna, which the component has only if the app
        # imports it.
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9))
    except OSError:
        return b"refused"
    return b"connected"
