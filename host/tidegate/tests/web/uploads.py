"""uploads.py URL TRIES CLIENT: uploads that are refused before they are read. Prints how often each client saw each status."""

import asyncio
import collections
import http.client
import subprocess
import sys
import tempfile
import urllib.parse

BODY = b"x" * (2 << 20)
PATHS = ["/web/upload", "/web/vault/upload", "/nothing/is/here"]


def by_http_client(url, path):
    at = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
    try:
        connection.request("POST", path, BODY)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def by_curl(url, path):
    with tempfile.NamedTemporaryFile() as file:
        file.write(BODY)
        file.flush()
        # Without Expect, the client sends its body at once.
        curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", "Expect:", "--data-binary", "@" + file.name]
        done = subprocess.run([*curl, url + path], capture_output=True, text=True, check=False)
        return int(done.stdout) if done.returncode == 0 else f"{done.stdout} {done.stderr.strip()}"


async def by_aiohttp(url, path, tries):
    import aiohttp

    async with aiohttp.ClientSession() as session:
        for _ in range(tries):
            try:
                async with session.post(url + path, data=BODY) as answer:
                    await answer.read()
                    yield answer.status
            except Exception as error:
                yield type(error).__name__


async def all_by_aiohttp(url, path, tries):
    return [status async for status in by_aiohttp(url, path, tries)]


def statuses(client, url, path, tries):
    if client == "aiohttp":
        yield from asyncio.run(all_by_aiohttp(url, path, tries))
        return
    one = {"http.client": by_http_client, "curl": by_curl}[client]
    for _ in range(tries):
        try:
            yield one(url, path)
        except Exception as error:
            yield type(error).__name__


def main():
    url, tries, client = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    for path in PATHS:
        for status, count in collections.Counter(statuses(client, url, path, tries)).items():
            print(path, status, count)


main()
