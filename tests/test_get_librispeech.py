"""`recipes/get_librispeech.py`: what it takes from an archive that a local server has."""

import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile
from recipe_scripts import load_recipe

from speechrnn.download import Corpus
from speechrnn.evaluation.background import read_background

script = load_recipe("get_librispeech")
ARCHIVE = "train-clean-100.tar.gz"
LONG = " ".join(["WORD"] * script.FEWEST_WORDS)
TEXTS = {
    "19-1-0000": "A WORD OF AN UTTERANCE",
    "19-1-0001": "ANOTHER ONE",
    "19-2-0000": "THEN THEY GO HOME",  # a command
    "26-3-0000": LONG,
    "26-3-0001": LONG,
    "27-4-0000": "STOP HERE",
    "27-4-0001": "AND HERE",
}


def flac(seconds: float) -> bytes:
    file = io.BytesIO()
    wave = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds))
    soundfile.write(file, wave, 16_000, "PCM_16", format="FLAC")
    return file.getvalue()


FLAC = flac(1.5)


def packed(texts: dict[str, str], without: str = "") -> bytes:
    """An archive in the layout of LibriSpeech, in which a chapter's texts follow its sound."""
    files: dict[str, bytes] = {"LICENSE.TXT": b"CC BY 4.0"}
    for name, text in sorted(texts.items()):
        reader, chapter, _ = name.split("-")
        folder = f"train-clean-100/{reader}/{chapter}"
        if name != without:
            files[f"{folder}/{name}.flac"] = FLAC
        table = f"{folder}/{reader}-{chapter}.trans.txt"
        files[table] = files.pop(table, b"") + f"{name} {text}\n".encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"LibriSpeech/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Has one file, knows ranges, and remembers which were asked for."""

    content = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def corpus(self) -> Corpus:
        digest = hashlib.sha256(self.content).hexdigest()
        return Corpus(f"http://127.0.0.1:{self.server_port}/{ARCHIVE}", len(self.content), digest)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        content = self.server.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        server.content = packed(TEXTS)
        monkeypatch.setattr(script, "ARCHIVE", server.corpus)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run() -> int:
        monkeypatch.setattr(sys, "argv", ["get_librispeech.py", str(tmp_path / "talk")])
        return script.main()

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.rglob("*.flac"))


def test_a_reader_trains_with_thirty_words_without_a_command_and_reader_27_validates(
    tmp_path: Path, server: Server, fetch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch() == 0
    talk = tmp_path / "talk"
    training = names(talk / "training")
    assert training[:2] == ["19-1-0000", "19-1-0001"], "all that hold no command, being short"
    assert [name.split("-")[0] for name in training[2:]] == ["26"], "one is long enough"
    assert names(talk / "validation") == ["27-4-0000", "27-4-0001"]
    assert (talk / "training/librispeech/19-1-0000.flac").read_bytes() == FLAC
    assert "CC BY 4.0" in (talk / "training/librispeech/copyright").read_text()
    assert "validation: 2 recordings, 0.00 h" in capsys.readouterr().err
    assert [path.name for path in talk.iterdir() if path.is_file()] == ["talk.tsv"], (
        "the archive was left"
    )


def test_the_tables_say_what_is_said_where_evaluation_looks_for_it(
    tmp_path: Path, server: Server, fetch
) -> None:
    assert fetch() == 0
    validation = read_background(tmp_path / "talk/validation")
    assert validation.transcripts == {
        "librispeech/27-4-0000.flac": "stop here",
        "librispeech/27-4-0001.flac": "and here",
    }
    rows = [row.split("\t") for row in (tmp_path / "talk/talk.tsv").read_text().splitlines()]
    first = dict(zip(rows[0], rows[1], strict=True))
    assert (first["file"], first["seconds"]) == ("training/librispeech/19-1-0000.flac", "1.50")
    assert first["licence"] == "CC-BY-4.0"


def test_a_second_call_asks_for_nothing(
    tmp_path: Path, server: Server, fetch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch() == 0
    assert fetch() == 0
    assert server.ranges == [None]
    assert "there already" in capsys.readouterr().err


def test_a_download_that_was_stopped_goes_on(tmp_path: Path, server: Server, fetch) -> None:
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / f"{ARCHIVE}.part").write_bytes(server.content[:700])
    assert fetch() == 0
    assert server.ranges == ["bytes=700-"]
    assert len(names(tmp_path / "talk")) == 5


def test_the_folder_that_is_missing_is_written_and_the_other_stays(
    tmp_path: Path, server: Server, fetch
) -> None:
    kept = tmp_path / "talk/training/librispeech/mine.flac"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(FLAC)
    assert fetch() == 0
    assert names(tmp_path / "talk") == ["27-4-0000", "27-4-0001", "mine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(TEXTS, without="27-4-0001"), "has a text for 27-4-0001, but no recording"),
        (packed({"19-1-0000": "A WORD"}), "has no utterance for validation"),
    ],
)
def test_an_archive_that_lacks_something_is_one_line_and_leaves_no_folder(
    tmp_path: Path,
    server: Server,
    fetch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    server.content = content
    monkeypatch.setattr(script, "ARCHIVE", server.corpus)
    assert fetch() == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "talk").rglob("*librispeech*"))


def test_another_archive_is_refused_and_deleted(
    tmp_path: Path, server: Server, fetch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = server.content[:-1] + b"!"
    assert fetch() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "SHA-256" in error and "run the same command again" in error
    assert list((tmp_path / "talk").iterdir()) == []


def test_the_archive_has_the_checksum_that_torchaudio_has() -> None:
    librispeech = pytest.importorskip("torchaudio.datasets.librispeech")
    table = {url.rpartition("/")[2]: digest for url, digest in librispeech._CHECKSUMS.items()}
    assert script.ARCHIVE.sha256 == table[ARCHIVE]
