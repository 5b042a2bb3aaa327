"""Downloads and unpacks the Speech Commands archives.

In: one of `CORPORA` and a destination folder. Out: `<destination>/<corpus.folder>`, which gets its
name only when it is complete. A broken download goes on where it stopped, at once or in the next
call; nothing is unpacked before its SHA-256 was compared. Progress and messages go to stderr. Two
calls at the same time into one destination are not guarded against. It does not know splits, labels
or audio.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

RETRIES = 4  # in a row without one new byte; the waits between them double from 1 s
TIMEOUT_S = 30.0
LONGEST_WAIT_S = 60.0  # a server that asks for more gets an error, not a command that seems to hang
BLOCK_BYTES = 1 << 16
# Bytes on disk for each byte of an archive. v0.02: 105,829 clips (its README) of at most eight
# blocks of 4 KiB are 3.47 GB, 1.43 times the archive; the other three come to 1.42.
UNPACKED_RATIO = 1.5
# The bucket behind http://download.tensorflow.org/data/, where torchaudio and TensorFlow Datasets
# look, but over TLS.
BASE_URL = "https://storage.googleapis.com/download.tensorflow.org/data"


@dataclass(frozen=True)
class Corpus:
    """An archive that unpacks flat, into a folder named like itself.

    Attributes:
        url: where a `.tar.gz` lies.
        bytes: the exact size of it.
        sha256: of it, in hexadecimal digits.
    """

    url: str
    bytes: int
    sha256: str

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Name of the folder it is unpacked to."""
        return self.archive.removesuffix(".tar.gz")


# Source of sizes and SHA-256. v0.02: tensorflow/datasets,
# tensorflow_datasets/url_checksums/speech_commands.txt; v0.01: huggingface/datasets,
# datasets/superb/dataset_infos.json, "ks". Those of the large archives are also in torchaudio 2.11,
# torchaudio/datasets/speechcommands.py, from which they were taken.
CORPORA = {
    "v2": Corpus(
        f"{BASE_URL}/speech_commands_v0.02.tar.gz",
        2_428_923_189,
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    ),
    "v1": Corpus(
        f"{BASE_URL}/speech_commands_v0.01.tar.gz",
        1_489_096_277,
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    ),
    "v2-test": Corpus(
        f"{BASE_URL}/speech_commands_test_set_v0.02.tar.gz",
        112_563_277,
        "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
    ),
    "v1-test": Corpus(
        f"{BASE_URL}/speech_commands_test_set_v0.01.tar.gz",
        71_271_436,
        "baa084f6b62c91de660ff0588ae4dfc4e4d534aa99ac0e5f406cba75836cbd00",
    ),
}


def download(corpus: Corpus, destination: Path) -> Path:
    """Download, check and unpack a corpus; does nothing when its folder is there.

    The archive is deleted once it is unpacked. One that already lies in the destination is used,
    and nothing is downloaded.

    Args:
        corpus: one of `CORPORA`, or the like.
        destination: the folder to put it in; made if missing.

    Returns:
        The folder of the unpacked corpus.

    Raises:
        OSError: no network, no such file at the server, not enough disk space. What was downloaded
            stays.
        ValueError: the archive is not the expected one. It is deleted.
    """
    folder = destination / corpus.folder
    if folder.is_dir():
        _print(f"{folder} is already there: nothing to do")
        return folder
    destination.mkdir(parents=True, exist_ok=True)
    archive = destination / corpus.archive
    part = destination / f"{corpus.archive}.part"
    _require_space(corpus, destination, 0 if archive.exists() else corpus.bytes - _size(part))
    fetch_archive(corpus, destination)
    with _deleted_if_wrong(archive):
        _unpack(archive, folder)
    archive.unlink()
    _print(f"{folder} is ready; its archive is deleted")
    return folder


def fetch_archive(corpus: Corpus, destination: Path) -> Path:
    """Download and check the archive of a corpus; one that is in the destination is only checked.

    Returns:
        The archive.

    Raises:
        OSError, ValueError: as in `download`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    archive = destination / corpus.archive
    part = destination / f"{corpus.archive}.part"
    if not archive.exists():
        _fetch(corpus, part)
        part.replace(archive)
    with _deleted_if_wrong(archive):
        _check(archive, corpus.sha256)
    return archive


@contextmanager
def _deleted_if_wrong(archive: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        archive.unlink()
        raise ValueError(
            f"{error}; the archive is deleted, run the same command again to start afresh"
        ) from None


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_space(corpus: Corpus, destination: Path, to_come: int) -> None:
    needed = to_come + int(corpus.bytes * UNPACKED_RATIO)
    free = shutil.disk_usage(destination).free
    if free < needed:
        raise OSError(
            f"{destination}: {decimal(free)} free, {corpus.folder} needs {decimal(needed)}; "
            "make room, or choose another folder with --to"
        )


class _BrokenOffError(Exception):
    """A request that may go better the next time, after `wait_s` if the server asked for that."""

    def __init__(self, reason: object, wait_s: float = 0.0) -> None:
        super().__init__(str(reason))
        self.wait_s = wait_s


def _fetch(corpus: Corpus, part: Path) -> None:
    failures, most = 0, _size(part)
    with _progress(f"downloading {corpus.archive}", corpus.bytes, most) as show:
        while _size(part) != corpus.bytes:
            try:
                _fetch_rest(corpus, part, show)
            except _BrokenOffError as stop:
                have = _size(part)
                failures, most = (1, have) if have > most else (failures + 1, most)
                wait_s = max(stop.wait_s, 2.0 ** (failures - 1))
                if failures > RETRIES or wait_s > LONGEST_WAIT_S:
                    wait = f", asks to wait {wait_s:.0f} s" if stop.wait_s else ""
                    raise ConnectionError(
                        f"{corpus.url}: {stop}{wait}; got {have} of {corpus.bytes} bytes, check "
                        "the network and run the same command again to go on"
                    ) from None
                _print(f"{corpus.archive}: {stop}; trying again in {wait_s:.0f} s")
                time.sleep(wait_s)


def _fetch_rest(corpus: Corpus, part: Path, show: Callable[[int], None]) -> None:
    """Request all that is missing, once, and write it to `part` as it comes.

    No If-Range: only one size and SHA-256 are right, so a file that changed at the server is
    refused in any case.
    """
    have = _size(part) if _size(part) < corpus.bytes else 0
    with _request(corpus, part, have) as response:
        if response.status == 206:
            covers = response.headers.get("Content-Range", "")
            if not covers.startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise _BrokenOffError(
                    f"asked to go on from byte {have}, got {covers!r}, starting over"
                )
            offered = covers.rpartition("/")[2]
        else:  # the server does not know Range, or was not asked
            have = 0
            offered = response.headers.get("Content-Length", "")
        if offered.isdecimal() and int(offered) != corpus.bytes:
            raise ValueError(
                f"{corpus.url}: the server offers {offered} bytes, expected {corpus.bytes}; if a "
                "login page or proxy answers in its place, get past it and run the same command "
                "again"
            )
        with part.open("ab" if have else "wb") as file:
            while have < corpus.bytes:
                try:
                    block = response.read(min(BLOCK_BYTES, corpus.bytes - have))
                except (OSError, http.client.HTTPException) as error:
                    raise _BrokenOffError(error) from None
                # http.client raises nothing where a read of a given size meets an early end.
                if not block:
                    message = f"the connection ended after {have} of {corpus.bytes} bytes"
                    raise _BrokenOffError(message)
                file.write(block)
                have += len(block)
                show(have)


def _request(corpus: Corpus, part: Path, have: int) -> Any:
    """Ask for the archive from byte `have` on; gives the response."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(corpus.url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise _BrokenOffError(f"HTTP 416 for a start at byte {have}, starting over") from None
        if error.code in (429, 500, 502, 503, 504):
            # In seconds; a date, its other form, counts as not given.
            after = error.headers.get("Retry-After", "")
            wait_s = int(after) if after.isdecimal() else 0
            raise _BrokenOffError(f"HTTP {error.code} {error.reason}", wait_s) from None
        raise OSError(
            f"{corpus.url}: HTTP {error.code} {error.reason}, expected the archive; get it "
            f"elsewhere, put it at {part.with_suffix('')} and run the same command again"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(getattr(error, "reason", error)) from None


def _check(archive: Path, expected: str) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(f"{archive}: SHA-256 is {digest}, expected {expected}")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside `folder` and rename, so that `folder` never holds half a corpus.

    The folder beside it always has the same name, so that the next call finds what one left that
    was killed.
    """
    unpacking = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    unpacking.mkdir()
    try:
        with (
            archive.open("rb") as file,
            gzip.open(file) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
            _progress(f"unpacking {archive.name}", archive.stat().st_size) as show,
        ):
            # Python 3.11.2, that of Debian 12, has no such filter.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tar:
                # The filter cuts the slash off an absolute path, and takes links that stay inside.
                inside = not os.path.isabs(member.name) and ".." not in Path(member.name).parts
                if not inside or not (member.isreg() or member.isdir()):
                    raise tarfile.TarError(
                        f"{member.name!r} is a link, a device or a path that leads out"
                    )
                tar.extract(member, unpacking)
                show(file.tell())
            stream.read()  # tarfile stops before the end, where gzip compares its checksum
        unpacking.rename(folder)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{archive}: {error}, expected a .tar.gz of files and folders within it"
        ) from None
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


@contextmanager
def _progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr, or a line every tenth where stderr is no terminal.

    Gives a function to call with the number of bytes done so far.
    """
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"),
        *columns,
        console=console,
        disable=not console.is_interactive,
    ) as progress:
        progress.add_task(what, total=total, completed=done)
        (task,) = progress.tasks
        tenths = 10 * done // total

        def show(done: int) -> None:
            nonlocal tenths
            progress.update(task.id, completed=done)
            if not console.is_interactive and 10 * done // total > tenths:
                tenths = 10 * done // total
                left_s = task.time_remaining or 0
                speed = decimal(int(task.speed or 0))
                _print(f"{what}: {tenths}0 % of {decimal(total)}, {speed}/s, {left_s:.0f} s left")

        yield show
