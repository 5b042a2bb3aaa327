"""`speechrnn demo`: one page on this machine alone, the browser opened, and a clean end."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Run, assert_one_line

from speechrnn.export.page import page
from speechrnn.folder import CONFIG, read_folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def demo(*words: object, opened: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process; in place of a browser, a script writes to `opened` what to open."""
    browser = opened.with_name("browser")
    browser.write_text(
        f'#!/bin/sh\nprintf "%s" "$1" > "{opened}.part"; mv "{opened}.part" "{opened}"\n'
    )
    browser.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "speechrnn", "demo", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "BROWSER": f"{browser} %s"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_demo_serves_the_page_and_opens_the_browser_until_it_is_stopped(
    model_folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    with demo(model_folder, "--port", port, opened=tmp_path / "opened") as process:
        assert process.stdout and process.stderr
        address = process.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(address) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.read() == page(read_folder(model_folder))[0]
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(address + "etc/passwd")
        refused.value.close()
        while not (tmp_path / "opened").exists():
            assert process.poll() is None
            time.sleep(0.01)
        assert (tmp_path / "opened").read_text() == address
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "Ctrl-C ends it\nspeechrnn: stopped\n"


def test_a_browser_that_goes_away_is_nothing_to_tell(model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with demo(model_folder, "--port", port, opened=tmp_path / "opened") as process:
        assert process.stdout and process.stderr and process.stdout.readline()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as browser:
                # Closed at once, and what is under way thrown away: the server's writing fails.
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "Ctrl-C ends it\nspeechrnn: stopped\n"


def test_demo_is_served_to_this_machine_alone(model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    with demo(model_folder, "--port", port, opened=tmp_path / "opened") as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_a_port_in_use_is_one_line(run: Run, model_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, out, error = run("demo", model_folder, "--port", port)
    assert (status, out) == (1, "")
    assert_one_line(error, f"port {port} of this machine cannot be used", "type --port")


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port_is_wrong_usage(run: Run, port: str) -> None:
    status, out, error = run("demo", "--port", port)
    assert (status, out) == (2, "")
    assert f"'{port}': expected a port from 1 to 65535" in error


def test_a_model_that_is_not_there_or_damaged_is_one_line(run: Run, tmp_path: Path) -> None:
    status, out, error = run("demo", "nonsense")
    assert (status, out) == (1, "")
    assert_one_line(error, "no model 'nonsense'")
    (tmp_path / CONFIG).write_text("{")
    status, out, error = run("demo", tmp_path)
    assert (status, out) == (1, "")
    assert_one_line(error, CONFIG, "is damaged")
