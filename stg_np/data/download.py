"""Download with a checksum, mirrors, a time-out and a progress bar; a partial file never has the final name."""

from __future__ import annotations

import gzip
import io
import os
import sys
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

from stg_np.data.base import DataError

TIMEOUT_S = 30.0
PATIENCE_S = 60.0
SLOWEST = 200_000  # bytes per second; below this for PATIENCE_S, the next mirror (if there is one) is tried


class Remote(NamedTuple):
    """A file on a server: its address, its name here, and the SHA-256 of what is kept.

    With ``gunzip`` the download is decompressed, and name and SHA-256 belong to the decompressed file.
    """

    url: str
    filename: str
    sha256: str
    gunzip: bool = False


class _TooSlow(Exception):
    """The server sends, but so slowly that the next mirror should be tried."""


def data_home() -> Path:
    """The folder for downloaded data: ``$STG_NP_DATA``, or ``stg-np`` in the user's cache folder.

    Raises:
        DataError: if the variable is not set and pooch, which knows the platform's folder, is not installed.
    """
    chosen = os.environ.get("STG_NP_DATA")
    return Path(chosen).expanduser() if chosen else Path(_pooch().os_cache("stg-np"))


def download(remotes: Sequence[Remote], folder: Path, title: str, *, timeout: float | None = None) -> Path:
    """Get the first of ``remotes`` that can be had into ``folder`` and return its path.

    A file that is already there is verified, and kept if it is good. A new one is written under a temporary name,
    verified, and only then renamed, so an interrupted download leaves nothing that could be mistaken for data.

    Raises:
        DataError: if no address gives the right bytes; it names the addresses, what each answered, and where to
            put the file by hand.
        OSError: if the folder cannot be written to.
    """
    pooch = _pooch()
    for remote in remotes:
        path = folder / remote.filename
        if path.is_file() and pooch.file_hash(str(path)) == remote.sha256:
            return path
    failures = []
    for remote in remotes:
        is_last = remote is remotes[-1]
        failure = _try(pooch, remote, folder, TIMEOUT_S if timeout is None else timeout, is_last)
        if failure is None:
            return folder / remote.filename
        failures.append(f"{remote.url} ({failure})")
    raise DataError(
        f"cannot download {title}: {', '.join(failures)}: try again later, or download the file in another way "
        f"and put it, under its own name, into {folder}"
    )


def _try(pooch: ModuleType, remote: Remote, folder: Path, timeout: float, is_last: bool) -> str | None:
    """Download one file; return None, or why this address did not give it."""
    import requests

    def fetch_to(url: str, output: str | IO[bytes], pooch_object: Any) -> None:
        with ExitStack() as stack:

            def close_at_the_end(response: requests.Response, **_: Any) -> None:
                stack.callback(response.close)  # pooch leaves that to chance

            bar = stack.enter_context(_progress_bar(remote, None if is_last else SLOWEST))
            hooks = {"response": close_at_the_end}
            get = pooch.HTTPDownloader(progressbar=bar, timeout=timeout, chunk_size=1 << 16, hooks=hooks)
            if not remote.gunzip:
                get(url, output, pooch_object)
                return
            compressed = io.BytesIO()
            get(url, compressed, pooch_object)
            Path(str(output)).write_bytes(gzip.decompress(compressed.getvalue()))

    pooch.get_logger().setLevel("ERROR")  # the bar says it all
    try:
        pooch.retrieve(remote.url, f"sha256:{remote.sha256}", remote.filename, folder, downloader=fetch_to)
    except requests.HTTPError as error:
        return "no such file" if error.response is None else f"HTTP {error.response.status_code}"
    except requests.Timeout:
        return f"no answer for {timeout:g} s"
    except requests.ConnectionError as error:
        return f"no answer for {timeout:g} s" if "timed out" in str(error) else "no connection"
    except requests.RequestException as error:
        return f"broken off: {type(error).__name__}"
    except _TooSlow as error:
        return str(error)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile):  # ValueError: pooch's checksum
        return "wrong bytes"
    return None


def _progress_bar(remote: Remote, slowest: float | None) -> Any:
    """A bar on stderr for pooch to drive; it raises ``_TooSlow`` where ``slowest`` bytes/s are not reached."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        received = 0
        started = time.monotonic()

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            elapsed = time.monotonic() - self.started
            if slowest and elapsed > PATIENCE_S and self.received < slowest * elapsed:
                raise _TooSlow(f"only {self.received / elapsed / 1000:.0f} kB/s")
            return super().update(n)

    interval = 0.1 if sys.stderr.isatty() else 10  # a log file needs no ten lines a second
    # pooch sets the true total, but to it a bar whose total is 0 is no bar
    return Bar(total=1, desc=remote.filename, unit="B", unit_scale=True, mininterval=interval, file=sys.stderr)


def _pooch() -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            "downloading needs the package pooch, which is not installed: `pip install pooch`, "
            "or give the folder with the data (--data-dir, or STG_NP_DATA)"
        ) from error
    module: ModuleType = pooch
    return module
