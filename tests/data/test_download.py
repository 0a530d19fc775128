"""Downloads from a real server on this machine, well-behaved and not."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from stg_np import data
from stg_np.data import download as module
from stg_np.data.cifar10 import PARTS
from stg_np.data.download import Remote, download
from stg_np.data.fashion_mnist import FILES
from tests.data.builders import binary_files, cifar_records, fashion_files, python_files, write_archive, write_files
from tests.data.conftest import one_sentence

GOOD = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(GOOD).hexdigest()


class Server:
    """An HTTP server on the loopback address; ``pages`` maps a path to what answers it."""

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.sent: list[int] = []
        self.stopping = Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                page = server.pages.get(self.path)
                if page is None:
                    self.send_error(404)
                else:
                    page(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def send(self, content: bytes, announced: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
        """Answer with ``content``; ``announced`` is the length that the header claims."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content) if announced is None else announced))
            handler.end_headers()
            handler.wfile.write(content)

        return page

    def say_nothing(self) -> Callable[[BaseHTTPRequestHandler], None]:
        """Take the request and never answer."""
        return lambda handler: [self.stopping.wait(5)].clear()

    def busy(self, status: int, wait: str) -> Callable[[BaseHTTPRequestHandler], None]:
        """Ask to come back later."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Retry-After", wait)
            handler.end_headers()

        return page

    def send_on(self, address: str) -> Callable[[BaseHTTPRequestHandler], None]:
        """Say that the file has moved, and send a body that has no end."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", address)
            handler.end_headers()
            self.without_end(handler)

        return page

    def endless(self, first: bytes = b"") -> Callable[[BaseHTTPRequestHandler], None]:
        """Send zeros for as long as they are taken."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(first)
            self.without_end(handler)

        return page

    def without_end(self, handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            while not self.stopping.is_set():
                handler.wfile.write(bytes(1 << 16))

    def in_pieces(self, content: bytes, size: int) -> Callable[[BaseHTTPRequestHandler], None]:
        """Honour Range, but break off after ``size`` bytes, every time."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            begin = int((handler.headers["Range"] or "bytes=0-")[6:-1])
            if begin >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206 if begin else 200)
            if begin:
                handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            handler.send_header("Content-Length", str(len(content) - begin))
            handler.end_headers()
            self.sent.append(min(size, len(content) - begin))  # before the client can have it and look
            handler.wfile.write(content[begin : begin + size])

        return page

    def stall(self, after: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        """Send a little and then nothing more."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            self.send(after, announced=len(GOOD))(handler)
            handler.wfile.flush()
            self.stopping.wait(5)

        return page

    def trickle(self) -> Callable[[BaseHTTPRequestHandler], None]:
        """Send the right bytes, a few at a time."""

        def page(handler: BaseHTTPRequestHandler) -> None:
            self.send(b"", announced=len(GOOD))(handler)
            for start in range(0, len(GOOD), 1000):
                if self.stopping.wait(0.01):
                    return
                try:
                    handler.wfile.write(GOOD[start : start + 1000])
                    handler.wfile.flush()
                except OSError:  # the client has given up, as it should
                    return

        return page


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    running = Server()
    yield running
    running.stop()


def remote(server: Server, path: str, name: str = "file.bin") -> Remote:
    return Remote(server.url + path, name, SHA256)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_good_file_arrives_with_a_progress_bar(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.pages["/good"] = server.send(GOOD)
    path = download([remote(server, "/good")], tmp_path / "new" / "folder", "Test")
    assert path.read_bytes() == GOOD
    assert leftovers(path.parent) == ["file.bin"]
    printed = capfd.readouterr()
    assert "file.bin: 100%" in printed.err
    assert printed.out == ""


def test_a_good_file_that_is_there_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "second.bin").write_bytes(GOOD)
    remotes = [remote(server, "/a", "first.bin"), remote(server, "/b", "second.bin")]
    assert download(remotes, tmp_path, "Test") == tmp_path / "second.bin"
    assert server.asked == []


def test_a_wrong_file_that_is_there_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(GOOD[:1000])
    server.pages["/good"] = server.send(GOOD)
    assert download([remote(server, "/good")], tmp_path, "Test").read_bytes() == GOOD


BAD_PAGES: dict[str, tuple[Callable[[Server], Callable[[BaseHTTPRequestHandler], None]], str]] = {
    "wrong bytes": (lambda server: server.send(GOOD[:-1] + b"?"), "wrong bytes"),
    "an error page": (lambda server: server.send(b"<html>Sorry!</html>"), "wrong bytes"),
    "an empty file": (lambda server: server.send(b""), "wrong bytes"),
    "truncated": (lambda server: server.send(GOOD[:1000], announced=len(GOOD)), "broken off"),
    "too much": (lambda server: server.send(b"", announced=1 << 40), "more than 268,435,456 bytes"),
    "much too long a length": (lambda server: server.send(b"", announced=10**4000), "broken off"),
    "sent on and on": (lambda server: server.send_on("/bad"), "sent on without end"),
    "sent on to a file": (lambda server: server.send_on("file:///etc/passwd"), "broken off"),
    "sent on to nowhere": (lambda server: server.send_on("http://[x"), "sent on to nowhere"),
    "hangs up": (lambda server: lambda handler: handler.connection.close(), "no connection"),
    "not before tomorrow": (lambda server: server.busy(503, "86400"), "HTTP 503"),
    "silent": (lambda server: server.say_nothing(), "no answer for 0.4 s"),
    "stalls half-way": (lambda server: server.stall(GOOD[:100_000]), "no answer for 0.4 s"),
    "404": (lambda server: lambda handler: handler.send_error(404), "HTTP 404"),
    "503": (lambda server: lambda handler: handler.send_error(503), "HTTP 503"),
}


@pytest.mark.parametrize("kind", BAD_PAGES)
def test_a_bad_answer_is_one_sentence_and_leaves_nothing(server: Server, tmp_path: Path, kind: str) -> None:
    make_page, expected = BAD_PAGES[kind]
    server.pages["/bad"] = make_page(server)
    message = one_sentence(lambda: download([remote(server, "/bad")], tmp_path, "Test", timeout=0.4))
    assert f"{server.url}/bad ({expected}" in message
    assert str(tmp_path) in message
    assert "by hand" in message or "in another way" in message
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", BAD_PAGES)
def test_after_a_bad_answer_the_mirror_is_asked(server: Server, tmp_path: Path, kind: str) -> None:
    server.pages["/bad"] = BAD_PAGES[kind][0](server)
    server.pages["/mirror"] = server.send(GOOD)
    remotes = [remote(server, "/bad", "a.bin"), remote(server, "/mirror", "b.bin")]
    path = download(remotes, tmp_path, "Test", timeout=0.4)
    assert path == tmp_path / "b.bin"
    assert path.read_bytes() == GOOD
    assert leftovers(tmp_path) == ["b.bin"]
    assert server.asked[0] == "/bad"
    assert server.asked[-1] == "/mirror"


def test_a_throttled_server_is_left_for_the_mirror(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    server.pages["/slow"] = server.trickle()
    server.pages["/mirror"] = server.send(GOOD)
    remotes = [remote(server, "/slow"), remote(server, "/mirror", "b.bin")]
    assert download(remotes, tmp_path, "Test") == tmp_path / "b.bin"


def test_a_throttled_server_is_waited_for_where_there_is_no_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    server.pages["/slow"] = server.trickle()
    assert download([remote(server, "/slow")], tmp_path, "Test").read_bytes() == GOOD


def test_no_network_is_one_sentence_that_names_every_address(tmp_path: Path) -> None:
    closed = Server()
    closed.stop()  # nobody listens on its port any more
    remotes = [remote(closed, "/a"), remote(closed, "/b")]
    message = one_sentence(lambda: download(remotes, tmp_path, "Test"))
    for address in remotes:
        assert f"{address.url} (no connection)" in message


def test_a_gzipped_download_is_kept_decompressed(server: Server, tmp_path: Path) -> None:
    server.pages["/good.gz"] = server.send(gzip.compress(GOOD, 1))
    gunzip = remote(server, "/good.gz")._replace(gunzip=True)
    assert download([gunzip], tmp_path, "Test").read_bytes() == GOOD


@pytest.mark.parametrize(
    "content",
    [b"<html>Sorry!</html>", gzip.compress(GOOD, mtime=0)[:-9], gzip.compress(b"other", mtime=0), b""],
    ids=["a page", "cut off", "another", "empty"],  # fixed: parallel processes must collect the same names
)
def test_a_wrong_gzipped_download_leaves_nothing(server: Server, tmp_path: Path, content: bytes) -> None:
    server.pages["/bad.gz"] = server.send(content)
    gunzip = remote(server, "/bad.gz")._replace(gunzip=True)
    assert "(wrong bytes)" in one_sentence(lambda: download([gunzip], tmp_path, "Test"))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    def busy_at_first(handler: BaseHTTPRequestHandler) -> None:
        (server.busy(status, "0") if len(server.asked) < 3 else server.send(GOOD))(handler)

    server.pages["/busy"] = busy_at_first
    assert download([remote(server, "/busy")], tmp_path, "Test").read_bytes() == GOOD
    assert len(server.asked) == 3


def test_a_server_is_given_the_time_that_it_asks_for(server: Server, tmp_path: Path) -> None:
    server.pages["/busy"] = lambda handler: (server.busy(503, "1") if len(server.asked) < 2 else server.send(GOOD))(
        handler
    )
    begun = time.monotonic()
    download([remote(server, "/busy")], tmp_path, "Test")
    assert time.monotonic() - begun >= 1


def test_a_transfer_that_breaks_is_continued(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS", 50_000)  # so four breaks of 60,000 bytes each are no four failures
    server.pages["/breaks"] = server.in_pieces(GOOD, 60_000)
    path = download([remote(server, "/breaks")], tmp_path, "Test")
    assert path.read_bytes() == GOOD
    assert sum(server.sent) == len(GOOD)
    assert leftovers(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("here", [GOOD[:100_000], GOOD, GOOD + b"more", b"x" * 1000, b"x" * len(GOOD)])
def test_what_a_killed_process_left_is_continued_or_replaced(server: Server, tmp_path: Path, here: bytes) -> None:
    (tmp_path / ".file.bin.part").write_bytes(here)
    server.pages["/good"] = server.in_pieces(GOOD, len(GOOD))
    assert download([remote(server, "/good")], tmp_path, "Test").read_bytes() == GOOD
    if GOOD.startswith(here):
        assert sum(server.sent) == len(GOOD) - len(here)
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_server_that_cannot_continue_begins_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".file.bin.part").write_bytes(GOOD[:100_000])
    server.pages["/good"] = server.send(GOOD)
    assert download([remote(server, "/good")], tmp_path, "Test").read_bytes() == GOOD


def test_the_mirror_continues_what_the_first_server_began(server: Server, tmp_path: Path) -> None:
    server.pages["/bad"] = server.send(GOOD[:100_000], announced=len(GOOD))
    server.pages["/mirror"] = server.in_pieces(GOOD, len(GOOD))
    assert download([remote(server, "/bad"), remote(server, "/mirror")], tmp_path, "Test").read_bytes() == GOOD
    assert server.sent == [len(GOOD) - 100_000]


def test_the_bytes_of_a_bad_server_do_not_spoil_those_of_the_mirror(server: Server, tmp_path: Path) -> None:
    server.pages["/bad"] = server.send(b"x" * 100_000, announced=len(GOOD))
    server.pages["/mirror"] = server.in_pieces(GOOD, len(GOOD))
    assert download([remote(server, "/bad"), remote(server, "/mirror")], tmp_path, "Test").read_bytes() == GOOD


@pytest.mark.parametrize("gunzip", [False, True])
def test_a_server_that_never_stops_is_left(server: Server, tmp_path: Path, gunzip: bool) -> None:
    server.pages["/endless"] = server.endless()
    endless = remote(server, "/endless")._replace(largest=1_000_000, gunzip=gunzip)
    assert "(more than 1,000,000 bytes)" in one_sentence(lambda: download([endless], tmp_path, "Test"))
    assert leftovers(tmp_path) == []


def test_a_download_that_unfolds_without_end_is_left(server: Server, tmp_path: Path) -> None:
    server.pages["/bomb"] = server.send(gzip.compress(bytes(5_000_000)))
    bomb = remote(server, "/bomb")._replace(largest=1_000_000, gunzip=True)
    assert "(wrong bytes)" in one_sentence(lambda: download([bomb], tmp_path, "Test"))
    assert leftovers(tmp_path) == []


def test_a_file_that_has_moved_is_followed(server: Server, tmp_path: Path) -> None:
    server.pages["/old"] = server.send_on("/new")
    server.pages["/new"] = server.send(GOOD)
    assert download([remote(server, "/old")], tmp_path, "Test").read_bytes() == GOOD


def test_an_interrupt_leaves_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    server.pages["/breaks"] = server.send(GOOD[:1000], announced=len(GOOD))
    with pytest.raises(KeyboardInterrupt):
        download([remote(server, "/breaks")], tmp_path, "Test")
    assert leftovers(tmp_path) == []


def test_two_downloads_at_once_are_one(server: Server, tmp_path: Path) -> None:
    server.pages["/good"] = server.trickle()
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: download([remote(server, "/good")], tmp_path, "Test"), range(2)))
    assert paths == [tmp_path / "file.bin"] * 2
    assert server.asked == ["/good"]


def test_fetching_fashion_mnist(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in fashion_files().items():
        server.pages[f"/second/{name}.gz"] = server.send(gzip.compress(content))
        monkeypatch.setitem(FILES, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(data.fashion_mnist, "MIRRORS", (f"{server.url}/first/", f"{server.url}/second/"))
    fetched = data.fetch("fashion-mnist")
    assert fetched.official
    assert fetched.source == str(home / "fashion-mnist") == data.load("fashion-mnist").source
    asked = len(server.asked)
    assert data.fetch("fashion-mnist").official  # again: verified, not downloaded
    assert len(server.asked) == asked


@pytest.mark.parametrize("official_server_works", [True, False])
def test_fetching_cifar10(
    server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official_server_works: bool
) -> None:
    records = cifar_records()
    archives = (
        write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", binary_files(records)),
        write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", python_files(records)),
    )
    remotes = []
    for archive in archives:
        content = archive.read_bytes()
        server.pages[f"/{archive.name}?download=1"] = server.send(content)
        url = f"{server.url}/{archive.name}?download=1"
        remotes.append(Remote(url, archive.name, hashlib.sha256(content).hexdigest()))
    if not official_server_works:
        del server.pages[f"/{archives[0].name}?download=1"]
    for part, content_of in records.items():
        monkeypatch.setitem(PARTS, part, hashlib.sha256(content_of.tobytes()).hexdigest())
    monkeypatch.setattr(data.cifar10, "REMOTES", tuple(remotes))
    fetched = data.fetch("cifar10")
    assert fetched.official
    assert fetched.source == str(home / "cifar10" / archives[0 if official_server_works else 1].name)
    assert data.load("cifar10").source == fetched.source


def test_fetching_digits_touches_no_network(home: Path) -> None:
    assert data.fetch("digits").official
    assert not home.exists()


@pytest.mark.parametrize("package", ["pooch", "requests"])
def test_without_a_package_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "pooch":
        monkeypatch.delenv("STG_NP_DATA")
    assert f"pip install {package}" in one_sentence(lambda: data.fetch("cifar10"))
    write_files(tmp_path, fashion_files())
    assert data.load("fashion-mnist", tmp_path).shape == (28, 28, 1)  # which needs no network, so no pooch


def test_a_full_disk_is_one_sentence(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    server.pages["/good"] = server.send(GOOD)
    monkeypatch.setattr(data.cifar10, "REMOTES", (remote(server, "/good"),))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        message = one_sentence(lambda: data.fetch("cifar10"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot write" in message
    assert leftovers(home / "cifar10") == []
