"""Holds `speechrnn.download` against a local server that breaks off, lies and refuses."""

import contextlib
import hashlib
import importlib
import io
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from speechrnn import download as module
from speechrnn.download import CORPORA, Corpus, download

NAME = "toy.tar.gz"
CLIP = random.Random(0).randbytes(200_000)  # does not compress: the archive spans several blocks
Answer = Callable[["Handler"], None]


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def folder_member(name: str) -> tarfile.TarInfo:
    info = member(name, tarfile.DIRTYPE)
    info.mode = 0o755
    return info


GOOD = archive_of(
    (folder_member("."), b""),
    (folder_member("./yes"), b""),
    (member("./yes/0.wav"), CLIP),
    (member("./README.md"), b"toy"),
)
HALF = len(GOOD) // 2


@dataclass
class Server:
    """What the server has, was asked and sent; it gives `answers` one by one, then answers well."""

    url: str
    content: bytes = GOOD
    answers: list[Answer] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    def corpus(self, **changes: Any) -> Corpus:
        corpus = Corpus(
            f"{self.url}/{NAME}", len(self.content), hashlib.sha256(self.content).hexdigest()
        )
        return replace(corpus, **changes)


class Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        self.state.ranges.append(self.headers["Range"])
        (self.state.answers.pop(0) if self.state.answers else well)(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", /, **headers: object) -> None:
        self.state.sent.append(len(body))  # first: once the client has read all, the test goes on
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def well(handler: Handler) -> None:
    content, asked = handler.state.content, handler.headers["Range"]
    if asked is None:
        return handler.reply(200, content, Content_Length=len(content))
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    covers = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.reply(206, content[start:], Content_Length=len(content) - start, Content_Range=covers)


def half(handler: Handler) -> None:
    handler.reply(200, handler.state.content[:HALF], Content_Length=len(handler.state.content))


def ignore_range(handler: Handler) -> None:
    handler.reply(200, handler.state.content, Content_Length=len(handler.state.content))


def refuse(status: int, **headers: object) -> Answer:
    return lambda handler: handler.reply(status, Content_Length=0, **headers)


@pytest.fixture
def server() -> Iterator[Server]:
    handler = type("ThisHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        handler.state = Server(f"http://127.0.0.1:{http_server.server_port}")
        thread = Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.state
        http_server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, noted and not slept; no proxy stands before the tests' server."""
    noted: list[float] = []
    monkeypatch.setattr("speechrnn.download.time.sleep", noted.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return noted


def assert_complete(folder: Path) -> None:
    assert (folder / "yes" / "0.wav").read_bytes() == CLIP
    assert (folder / "README.md").read_bytes() == b"toy"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], (
        "something was left beside the corpus"
    )


def assert_one_line(error: pytest.ExceptionInfo[Exception], *parts: object) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert str(part) in str(error.value)


def test_whole_download_is_unpacked_and_its_archive_deleted(server: Server, tmp_path: Path) -> None:
    assert download(server.corpus(), tmp_path / "new" / "data") == tmp_path / "new" / "data" / "toy"
    assert_complete(tmp_path / "new" / "data" / "toy")
    assert server.ranges == [None]


def test_second_call_sends_no_request(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.corpus(), tmp_path)
    capsys.readouterr()
    download(server.corpus(), tmp_path)
    assert len(server.ranges) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'toy'} is already there: nothing to do\n"


def test_broken_download_resumes_with_range_request(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.answers = [half]
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.sent == [HALF, len(GOOD) - HALF]
    assert waits == [1.0]


def test_next_call_resumes_after_retries_are_used_up(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.answers = [half, *[refuse(503)] * module.RETRIES]
    with pytest.raises(ConnectionError) as error:
        download(server.corpus(), tmp_path)
    assert_one_line(
        error, server.url, "503", f"{HALF} of {len(GOOD)} bytes", "run the same command again"
    )
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert not (tmp_path / "toy").exists()
    server.ranges.clear()
    server.sent.clear()
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [f"bytes={HALF}-"]
    assert sum(server.sent) == len(GOOD) - HALF


def test_many_breaks_with_progress_between_them_do_not_end_the_download(
    server: Server, tmp_path: Path
) -> None:
    def a_little_more(handler: Handler) -> None:
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        covers = f"bytes {start}-{len(GOOD) - 1}/{len(GOOD)}"
        body = GOOD[start : start + 9000]
        handler.reply(
            206 if start else 200, body, Content_Length=len(GOOD) - start, Content_Range=covers
        )

    server.answers = [a_little_more] * (3 * module.RETRIES)
    assert_complete(download(server.corpus(), tmp_path))
    assert sum(server.sent) == len(GOOD)


def test_server_that_always_breaks_at_the_same_byte_ends_the_download(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [half] * 100
    with pytest.raises(ConnectionError) as error:
        download(server.corpus(), tmp_path)
    assert_one_line(error, f"the connection ended after {HALF} of {len(GOOD)} bytes")
    assert len(server.ranges) == module.RETRIES + 1


def test_server_that_ignores_range_starts_over(server: Server, tmp_path: Path) -> None:
    server.answers = [half, ignore_range]
    assert_complete(download(server.corpus(), tmp_path))
    assert server.sent == [HALF, len(GOOD)]


def test_416_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD[:HALF])
    server.answers = [refuse(416, Content_Range=f"bytes */{len(GOOD)}")]
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [f"bytes={HALF}-", None]


def test_answer_for_another_range_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD[:HALF])
    server.answers = [
        lambda handler: handler.reply(
            206, GOOD, Content_Range=f"bytes 0-{len(GOOD) - 1}/{len(GOOD)}"
        )
    ]
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("surplus", [0, 1], ids=["complete", "too_long"])
def test_part_that_needs_no_rest_asks_for_no_range(
    server: Server, tmp_path: Path, surplus: int
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD + b"!" * surplus)
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [None] * surplus


def test_archive_found_in_the_destination_replaces_the_network(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == []


@pytest.mark.parametrize("start", [0, HALF], ids=["fresh", "resumed"])
def test_file_of_another_size_is_refused_and_the_part_kept(
    server: Server, tmp_path: Path, start: int
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD[:start])
    corpus = server.corpus()
    server.content = GOOD + b"!"
    with pytest.raises(ValueError) as error:
        download(corpus, tmp_path)
    assert_one_line(error, f"offers {len(GOOD) + 1} bytes", f"expected {len(GOOD)}")
    assert (tmp_path / f"{NAME}.part").read_bytes() == GOOD[:start]


@pytest.mark.parametrize("start", [0, HALF], ids=["fresh", "changed_between_the_halves"])
def test_wrong_byte_is_refused_and_the_next_call_starts_afresh(
    server: Server, tmp_path: Path, start: int
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD[:start])
    corpus = server.corpus()
    server.content = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
    with pytest.raises(ValueError) as error:
        download(corpus, tmp_path)
    assert_one_line(error, hashlib.sha256(server.content).hexdigest(), f"expected {corpus.sha256}")
    assert list(tmp_path.iterdir()) == []
    server.content = GOOD
    assert_complete(download(corpus, tmp_path))
    assert server.ranges[-1] is None


def test_404_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [refuse(404)]
    with pytest.raises(OSError) as error:
        download(server.corpus(), tmp_path)
    assert_one_line(error, server.url, "HTTP 404 Not Found", f"put it at {tmp_path / NAME} and")
    assert len(server.ranges) == 1


def test_503_waits_as_long_as_the_server_asks(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.answers = [
        refuse(503, Retry_After=7),
        refuse(503, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"),
    ]
    assert_complete(download(server.corpus(), tmp_path))
    assert waits == [7.0, 2.0]


def test_503_that_asks_for_an_hour_is_an_error(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.answers = [refuse(503, Retry_After=3600)]
    with pytest.raises(ConnectionError) as error:
        download(server.corpus(), tmp_path)
    assert_one_line(error, "503", "asks to wait 3600 s")
    assert waits == []


def test_no_network_is_one_line_that_names_the_url(server: Server, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/{NAME}"
    with pytest.raises(ConnectionError) as error:
        download(server.corpus(url=url), tmp_path)
    assert_one_line(error, url, "Connection refused", "check the network")


def test_connection_closed_without_an_answer_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: None]
    assert_complete(download(server.corpus(), tmp_path))
    assert len(server.ranges) == 2


def test_silent_server_is_tried_again_after_the_timeout(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)

    def stall(handler: Handler) -> None:
        half(handler)
        handler.connection.settimeout(2)
        with contextlib.suppress(OSError):
            handler.connection.recv(1)  # until the client gives up and closes

    server.answers = [stall]
    assert_complete(download(server.corpus(), tmp_path))
    assert server.ranges == [None, f"bytes={module.BLOCK_BYTES}-"], (
        "the whole blocks that came were not kept"
    )
    assert f"{NAME}: timed out; trying again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("yes/../../evil"),
        member("/evil"),
        member("evil", tarfile.SYMTYPE, "../../secret"),
        member("evil", tarfile.SYMTYPE, "README.md"),
        member("evil", tarfile.LNKTYPE, "../secret"),
        member("evil", tarfile.LNKTYPE, "README.md"),
        member("evil", tarfile.FIFOTYPE),
        member("evil", tarfile.CHRTYPE),
    ],
    ids=[
        "up",
        "down_and_up",
        "absolute",
        "symlink_out",
        "symlink_in",
        "hard_link_out",
        "hard_link_in",
        "pipe",
        "device",
    ],
)
@pytest.mark.parametrize("filtered", [True, False], ids=["filter", "no_filter"])
@pytest.mark.filterwarnings("ignore:Python 3.14 will")  # where there is a filter, and none is used
def test_member_that_is_no_plain_file_inside_is_refused(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evil: tarfile.TarInfo,
    filtered: bool,
) -> None:
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    server.content = archive_of((member("README.md"), b"toy"), (evil, b""))
    destination = tmp_path / "data"
    with pytest.raises(ValueError) as error:
        download(server.corpus(), destination)
    assert_one_line(error, repr(evil.name), destination / NAME)
    assert list(tmp_path.iterdir()) == [destination]
    assert list(destination.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"<html>" * 99,
        GOOD[:HALF],
        GOOD[:HALF] + bytes(99) + GOOD[HALF + 99 :],
        GOOD[:HALF] + b"\xff" * HALF,
        b"",
    ],
    ids=["html", "half", "checksum", "deflate", "empty"],
)
def test_what_is_no_archive_is_refused_and_deleted(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.content = content
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError) as error:
        download(server.corpus(), tmp_path)
    assert_one_line(error, tmp_path / NAME, "expected a .tar.gz", "run the same command again")
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_space_is_an_error_before_any_request(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    corpus = server.corpus(bytes=2_000_000_000)
    monkeypatch.setattr(
        "speechrnn.download.shutil.disk_usage", lambda path: usage._replace(free=4_999_999_999)
    )
    with pytest.raises(OSError) as error:
        download(corpus, tmp_path)
    assert_one_line(error, "5.0 GB free", "needs 5.0 GB", "--to")
    assert server.ranges == []


def test_bytes_already_there_need_no_disk_space(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(GOOD[:HALF])
    free = len(GOOD) - HALF + int(len(GOOD) * module.UNPACKED_RATIO)
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr("speechrnn.download.shutil.disk_usage", lambda path: usage)
    assert_complete(download(server.corpus(), tmp_path))


KILLED = """
import os, sys, tarfile
from pathlib import Path
from speechrnn.download import Corpus, download
extract = tarfile.TarFile.extract
def extract_then_die(self, member, *arguments, **options):
    extract(self, member, *arguments, **options)
    if member.name.endswith("0.wav"):
        os._exit(9)
tarfile.TarFile.extract = extract_then_die
download(Corpus("http://127.0.0.1:1/toy.tar.gz", int(sys.argv[2]), sys.argv[3]), Path(sys.argv[1]))
"""


def test_kill_while_unpacking_leaves_no_final_folder_and_the_next_call_cleans_up(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    corpus = server.corpus()
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(corpus.bytes), str(corpus.sha256)]
    assert (
        subprocess.run(
            command, check=False, timeout=60, cwd=Path(module.__file__).parents[1]
        ).returncode
        == 9
    )
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert left.name != "toy" and (left / "yes" / "0.wav").exists()
    (left / "stray").touch()
    folder = download(corpus, tmp_path)
    assert not (folder / "stray").exists()
    assert_complete(folder)


def test_interrupt_while_unpacking_leaves_only_the_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extract", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(server.corpus(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_progress_without_terminal_is_a_line_for_every_tenth(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)  # about 2000 reads
    download(server.corpus(), tmp_path)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("downloading")]
    assert [line.split(" %")[0].split()[-1] for line in lines] == [
        f"{tenth}0" for tenth in range(1, 11)
    ]
    assert any(line.startswith(f"unpacking {NAME}: 100 %") for line in captured.err.splitlines())
    assert len(captured.err.splitlines()) < 25
    assert captured.out == ""


def test_progress_on_a_terminal_is_a_bar_with_speed(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert_complete(download(server.corpus(), tmp_path))
    shown = capsys.readouterr().err
    assert "━" in shown and "B/s" in shown and "0:00:00" in shown
    assert " % of " not in shown


@pytest.mark.parametrize("name", CORPORA)
def test_each_corpus_has_its_size_and_a_sha256(name: str) -> None:
    assert len(bytes.fromhex(CORPORA[name].sha256)) == 32 and CORPORA[name].bytes > 70_000_000
    others = [corpus.sha256 for other, corpus in CORPORA.items() if other != name]
    assert CORPORA[name].sha256 not in others


def test_sha256_of_the_large_archives_are_those_that_torchaudio_has() -> None:
    speech_commands = importlib.import_module("torchaudio.datasets.speechcommands")
    table = {url.rpartition("/")[2]: digest for url, digest in speech_commands._CHECKSUMS.items()}
    ours = {corpus.archive: corpus.sha256 for corpus in (CORPORA["v1"], CORPORA["v2"])}
    assert table == ours


def test_import_of_the_module_loads_no_torch() -> None:
    code = "import sys, speechrnn.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
