"""Download with a checksum, mirrors, limits and patience; a partial file never has the final name."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple
from urllib.parse import urljoin

from stg_np.data.base import LARGEST_FILE, DataError, open_plain_or_gzip

TIMEOUT_S = 30.0
PATIENCE_S = 60.0
SLOWEST = 200_000  # bytes per second; below this for PATIENCE_S, the next mirror (if there is one) is tried
TRIES = 3  # of one address, one after another without progress
PROGRESS = 1 << 20  # bytes that count as such
WAIT_S = 1.0  # before the second try; twice as long before the third
MOST_REDIRECTIONS = 5
LONGEST_WAIT_S = 20.0  # what a server may ask for; if it asks for more, the next mirror is tried
CHUNK = 1 << 16
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class Remote(NamedTuple):
    """A file on a server: its address, its name here, and the SHA-256 of what is kept.

    With ``gunzip`` the download is decompressed, and name and SHA-256 belong to the decompressed file. ``largest``:
    bytes that are taken from the server, and that they may unfold to.
    """

    url: str
    filename: str
    sha256: str
    gunzip: bool = False
    largest: int = LARGEST_FILE


class _GivenUp(Exception):
    """This address does not give the file; the message says why."""


class _TryAgain(Exception):
    """It did not this time; ``wait``: after how many seconds it may."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def data_home() -> Path:
    """The folder for downloaded data: ``$STG_NP_DATA``, or ``stg-np`` in the user's cache folder.

    Raises:
        DataError: if the variable is not set and pooch, which knows the platform's folder, is not installed.
    """
    chosen = os.environ.get("STG_NP_DATA")
    return Path(chosen).expanduser() if chosen else Path(_package("pooch").os_cache("stg-np"))


def download(remotes: Sequence[Remote], folder: Path, title: str, *, timeout: float | None = None) -> Path:
    """Get the first of ``remotes`` that can be had into ``folder`` and return its path.

    A file that is already there is verified, and kept if it is good. A new one is written under a temporary name,
    verified, and only then renamed, so an interrupted download leaves nothing that could be mistaken for data. A
    transfer that breaks is continued where it broke, also one whose process was killed; nothing else stays behind.

    Raises:
        DataError: if no address gives the right bytes; it names the addresses, what each answered, and where to
            put the file by hand.
        OSError: if the folder cannot be written to.
    """
    if (path := _already_there(remotes, folder)) is not None:
        return path
    _package("requests")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if (path := _already_there(remotes, folder)) is not None:  # thanks to another process
            return path
        try:
            return _first_that_can_be_had(remotes, folder, title, TIMEOUT_S if timeout is None else timeout)
        finally:
            for remote in remotes:
                for temporary in _temporaries(remote, folder):
                    temporary.unlink(missing_ok=True)


def _first_that_can_be_had(remotes: Sequence[Remote], folder: Path, title: str, timeout: float) -> Path:
    """Ask one address after another."""
    failures = []
    for remote in remotes:
        try:
            return _get(remote, folder, timeout, is_last=remote is remotes[-1])
        except _GivenUp as reason:
            failures.append(f"{remote.url} ({reason})")
    raise DataError(
        f"cannot download {title}: {', '.join(failures)}: try again later, or download the file in another way "
        f"and put it, under its own name, into {folder}"
    )


def _already_there(remotes: Sequence[Remote], folder: Path) -> Path | None:
    """The first of the files that is there with the right bytes."""
    paths = ((folder / remote.filename, remote.sha256) for remote in remotes)
    return next((path for path, sha256 in paths if path.is_file() and _sha256(path) == sha256), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads into the folder, and keep others out."""
    from filelock import FileLock

    lock = FileLock(folder / ".download.lock")
    with suppress(NotImplementedError):  # a file system without locks
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _temporaries(remote: Remote, folder: Path) -> tuple[Path, Path]:
    """What has come from the server so far, and what that unfolds to."""
    return folder / f".{remote.filename}.part", folder / f".{remote.filename}.unfolded"


def _get(remote: Remote, folder: Path, timeout: float, is_last: bool) -> Path:
    """Download one file, continuing what broke.

    Raises:
        _GivenUp: saying why this address did not give it.
    """
    part, unfolded = _temporaries(remote, folder)
    failed = 0
    while True:
        before = _size(part)
        try:
            _transfer(remote, part, timeout, is_last)
            whole = _unfolded(remote, part, unfolded) if remote.gunzip else part
            if _sha256(whole) == remote.sha256:
                break
            part.unlink()
            if not before:
                raise _GivenUp("wrong bytes")
            why, wait = "wrong bytes", 0.0  # what was there before may have been another server's
        except _TryAgain as reason:
            why, wait = str(reason), reason.wait
        failed = 0 if _size(part) >= before + PROGRESS else failed + 1
        if failed >= TRIES or (wait > LONGEST_WAIT_S):
            raise _GivenUp(why)
        time.sleep(max(wait, WAIT_S * 2 ** max(failed - 1, 0)))
    os.replace(whole, folder / remote.filename)
    return folder / remote.filename


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(remote: Remote, part: Path, timeout: float, is_last: bool) -> None:
    """Append to ``part`` what is missing in it.

    Raises:
        _GivenUp: if this server will not send it.
        _TryAgain: if it may send (the rest of) it another time.
    """
    import requests
    import urllib3.exceptions

    begun = min(_size(part), remote.largest)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    try:
        with _answer(remote.url, headers, timeout) as response:
            if response.status_code == 416:  # there is no more than what is here, or that is of another file
                if response.headers.get("Content-Range") != f"bytes */{begun}":
                    part.unlink()
                    raise _TryAgain("wrong bytes")
                return
            begun = _check_answer(response, begun)
            if begun + _announced(response) > remote.largest:
                raise _GivenUp(f"more than {remote.largest:,} bytes")
            with part.open("r+b" if begun else "wb") as file:
                file.truncate(begun)
                file.seek(begun)
                _copy(response, file, remote, begun, None if is_last else SLOWEST)
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        if not _size(part):
            raise _GivenUp(f"no answer for {timeout:g} s") from error
        raise _TryAgain(f"no answer for {timeout:g} s") from error
    except requests.ConnectionError as error:
        if _size(part) or isinstance(error.args[0], urllib3.exceptions.ProtocolError):
            raise _TryAgain("no connection") from error
        raise _GivenUp("no connection") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _TryAgain(f"broken off: {type(error).__name__}") from error
    except ValueError as error:  # an address to which no sensible person would be sent
        raise _GivenUp("sent on to nowhere") from error


@contextmanager
def _answer(url: str, headers: dict[str, str], timeout: float) -> Iterator[Any]:
    """What a server answers, once it no longer sends us on; of its body nothing is read yet.

    requests would follow by itself, but it reads the whole body of an answer that sends it on, which may have no end.

    Raises:
        _GivenUp: if it sends us on and on.
    """
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            return None

    with Session() as session:
        for _ in range(MOST_REDIRECTIONS):
            with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                if not response.is_redirect:
                    yield response
                    return
                url = urljoin(url, response.headers["Location"])
    raise _GivenUp("sent on without end")


def _announced(response: Any) -> int:
    """The bytes that the server says will come; 0 if it does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0


def _check_answer(response: Any, begun: int) -> int:
    """Where what the server sends belongs: behind the ``begun`` bytes that are here, or at the start.

    Raises:
        _GivenUp, _TryAgain: if it sends an error.
    """
    status = response.status_code
    if status in BUSY:
        asked = response.headers.get("Retry-After", "")
        raise _TryAgain(f"HTTP {status}", float(asked[:9]) if asked.isascii() and asked.isdecimal() else 0.0)
    if status == 206 and begun and response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
        return begun
    if status != 200:
        raise _GivenUp(f"HTTP {status}")
    return 0


def _copy(response: Any, file: IO[bytes], remote: Remote, begun: int, slowest: float | None) -> None:
    """Write what comes, as it is on the wire (a file that is gzip stays gzip), under a progress bar on stderr.

    Raises:
        _GivenUp: if it is too much, or fewer than ``slowest`` bytes come in a second.
    """
    from tqdm import tqdm

    left = _announced(response)
    interval = 0.1 if sys.stderr.isatty() else 10  # a log file needs no ten lines a second
    bar: Any = tqdm(
        total=begun + left if left else None,
        initial=begun,
        desc=remote.filename,
        unit="B",
        unit_scale=True,
        mininterval=interval,
        file=sys.stderr,
    )
    started, received = time.monotonic(), 0
    with bar:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            received += len(chunk)
            if begun + received > remote.largest:
                raise _GivenUp(f"more than {remote.largest:,} bytes")
            file.write(chunk)
            bar.update(len(chunk))
            elapsed = time.monotonic() - started
            if slowest and elapsed > PATIENCE_S and received < slowest * elapsed:
                raise _GivenUp(f"only {received / elapsed / 1000:.0f} kB/s")


def _unfolded(remote: Remote, part: Path, unfolded: Path) -> Path:
    """Decompress what was downloaded, within the limit; bytes that cannot be are the wrong ones."""
    with unfolded.open("wb") as file, suppress(DataError), open_plain_or_gzip(part, remote.largest) as stream:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
    return unfolded


def _package(name: str) -> ModuleType:
    """pooch or requests, which pooch brings.

    Raises:
        DataError: if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"downloading needs the package {name}, which is not installed: `pip install {name}`, "
            "or give the folder with the data (--data-dir, or STG_NP_DATA)"
        ) from error
