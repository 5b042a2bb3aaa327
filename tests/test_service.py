"""The wake-word service, asked by the Wyoming library's own client and by ones that misbehave."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT, Run, assert_one_line
from recipe_scripts import load_recipe

pytest.importorskip("wyoming", reason="wyoming is not installed: pip install 'speechrnn[serve]'")
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.wake import Detect, Detection, NotDetected

from speechrnn import Recogniser, load, service
from speechrnn.audio import from_int16, read_blocks, to_int16
from speechrnn.service import Service

SECONDS = 60  # after which a test that waits in vain fails
RATE = 16_000


@pytest.fixture(scope="module")
def tiny() -> Recogniser:
    return load("tiny")


@pytest.fixture(scope="module")
def samples(recording: np.ndarray) -> np.ndarray:
    """The recording as clients send it: 16-bit (n,)."""
    return to_int16(recording)


def words_of(recogniser: Recogniser, samples: np.ndarray) -> list[tuple[str, int]]:
    """What `transcribe` finds: each word, and the time of its end, ms."""
    found = recogniser.detect([from_int16(samples)])
    return [(word.label, round(1000 * word.end)) for word in found]


Talk = Callable[[int, Service], Coroutine[Any, Any, Any]]


def serve(models: dict[str, Recogniser], talk: Talk, **options: Any) -> tuple[Any, list[str]]:
    """What `talk(port, service)` gives while a service runs, and the lines that were logged."""
    lines: list[str] = []

    async def run() -> Any:
        one = Service(models, log=lines.append, **options)
        async with asyncio.timeout(SECONDS), one.listen("127.0.0.1", 0) as [(_, port)]:
            return await talk(port, one)

    return asyncio.run(run()), lines


async def send(client: AsyncTcpClient, samples: np.ndarray, chunk: int = 1024) -> None:
    """16-bit samples (n,) in chunks, without a start or a stop."""
    for start in range(0, len(samples), chunk):
        data = samples[start : start + chunk].tobytes()
        await client.write_event(AudioChunk(RATE, 2, 1, data).event())


async def answers(client: AsyncTcpClient) -> list[Event]:
    """What comes until the connection ends."""
    events = []
    while (event := await client.read_event()) is not None:
        events.append(event)
    return events


async def hear(port: int, samples: np.ndarray, chunk: int = 1024) -> list[tuple[str, int]]:
    """The words that a client is told of, with their times, if it sends samples and stops."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        reading = asyncio.create_task(answers(client))
        await client.write_event(Detect().event())
        await client.write_event(AudioStart(RATE, 2, 1).event())
        await send(client, samples, chunk)
        await client.write_event(AudioStop().event())
        client._writer.write_eof()
        told = [event for event in await reading if Detection.is_type(event.type)]
        return [(event.data["name"], event.data["timestamp"]) for event in told]


# --- what a client is told


def test_describe_is_answered_with_every_word_in_one_program(tiny: Recogniser) -> None:
    async def talk(port: int, _: Service) -> Info:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            return Info.from_event(await client.read_event())

    info, lines = serve({"tiny": tiny}, talk)
    (program,) = info.wake
    assert program.name == "speechrnn" and program.installed
    assert [(one.name, one.phrase) for one in program.models] == [(w, w) for w in tiny.words]
    assert not lines


def test_fifty_clients_at_once_are_told_what_transcribe_finds(
    tiny: Recogniser, samples: np.ndarray
) -> None:
    """Each sends five other seconds of the recording, in chunks of another size."""
    parts = [samples[3_000 * number :][: 5 * RATE] for number in range(50)]

    async def talk(port: int, _: Service) -> list[list[tuple[str, int]]]:
        heard = [hear(port, part, 160 + 37 * number) for number, part in enumerate(parts)]
        return await asyncio.gather(*heard)

    told, lines = serve({"tiny": tiny}, talk)
    assert told == [words_of(tiny, part) for part in parts]
    assert sum(map(bool, told)) > 10 and not lines


def test_a_word_is_told_as_soon_as_it_is_sure(tiny: Recogniser, samples: np.ndarray) -> None:
    first = next(iter(tiny.detect([from_int16(samples)])))

    async def talk(port: int, _: Service) -> Event:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await send(client, samples[: round(first.reported * RATE)])
            return await client.read_event()

    told, _ = serve({"tiny": tiny}, talk)
    assert Detection.from_event(told).name == first.label


def test_only_words_that_were_asked_for_are_told_on_the_clock_of_the_client(
    tiny: Recogniser, samples: np.ndarray
) -> None:
    """As Home Assistant asks, whose chunks last 10 ms and have a time each."""
    word, end = words_of(tiny, samples)[-1]
    zero = 86_400_000

    async def talk(port: int, _: Service) -> Detection:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Detect(names=[word]).event())
            await client.write_event(AudioStart(RATE, 2, 1).event())
            for start in range(0, len(samples), 160):
                data, time = samples[start : start + 160].tobytes(), zero + start * 1000 // RATE
                await client.write_event(AudioChunk(RATE, 2, 1, data, time).event())
            await client.write_event(AudioStop().event())
            return Detection.from_event(await client.read_event())

    told, lines = serve({"tiny": tiny}, talk)
    assert (told.name, told.timestamp) == (word, zero + end)
    assert not lines


def test_audio_without_a_word_ends_with_not_detected(tiny: Recogniser) -> None:
    async def talk(port: int, _: Service) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for silence in (np.zeros(3 * RATE, np.int16), np.zeros(0, np.int16)):
                await client.write_event(AudioStart(RATE, 2, 1).event())
                await send(client, silence)
                await client.write_event(AudioStop().event())
            client._writer.write_eof()
            return await answers(client)

    told, _ = serve({"tiny": tiny}, talk)
    assert [NotDetected.is_type(event.type) for event in told] == [True, True]


def test_a_word_that_was_not_asked_for_is_no_detection(
    tiny: Recogniser, samples: np.ndarray
) -> None:
    word, end = words_of(tiny, samples)[0]
    other = next(name for name in tiny.words if name != word)

    async def talk(port: int, _: Service) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Detect(names=[other]).event())
            await send(client, samples[: (end + 500) * RATE // 1000])
            await client.write_event(AudioStop().event())
            client._writer.write_eof()
            return await answers(client)

    told, _ = serve({"tiny": tiny}, talk)
    assert [event.type for event in told] == ["not-detected"]


def test_each_stream_of_a_connection_begins_afresh(tiny: Recogniser, samples: np.ndarray) -> None:
    """After a stop, a start or another `detect`; and one that does not stop is no obstacle."""

    async def talk(port: int, _: Service) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            reading = asyncio.create_task(answers(client))
            await send(client, samples)
            await client.write_event(AudioStop().event())
            await send(client, samples[: RATE // 2])
            await client.write_event(AudioStart(RATE, 2, 1).event())
            await send(client, samples)
            await client.write_event(Detect().event())
            await send(client, samples)
            await client.write_event(AudioStop().event())
            client._writer.write_eof()
            return await reading

    told, _ = serve({"tiny": tiny}, talk)
    once = words_of(tiny, samples)
    last = tiny.listener().push(from_int16(samples))  # without its end
    assert [(event.data["name"], event.data["timestamp"]) for event in told] == [
        *once, *once[: len(last)], *once,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "channels", "width", "subtype"),
    [
        (48_000, 2, 3, "PCM_24"),
        (44_100, 1, 4, "PCM_32"),
        (8_000, 1, 2, "PCM_16"),
        (16_000, 2, 1, "PCM_U8"),
    ],
)
def test_other_formats_give_what_transcribe_finds_in_a_file_of_them(
    tiny: Recogniser,
    recording: np.ndarray,
    tmp_path: Path,
    rate: int,
    channels: int,
    width: int,
    subtype: str,
) -> None:
    file = tmp_path / "recording.wav"
    times = np.arange(len(recording) * rate // RATE) / rate
    wave = np.interp(times, np.arange(len(recording)) / RATE, recording)
    soundfile.write(file, np.stack([wave, wave / 2][:channels], 1), rate, subtype)
    data = file.read_bytes()
    data = data[data.index(b"data") + 8 :][: len(wave) * channels * width]

    async def talk(port: int, _: Service) -> list[tuple[str, int]]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            reading = asyncio.create_task(answers(client))
            size = rate // 7 * channels * width
            for start in range(0, len(data), size):
                chunk = AudioChunk(rate, width, channels, data[start : start + size])
                await client.write_event(chunk.event())
            await client.write_event(AudioStop().event())
            client._writer.write_eof()
            told = [event for event in await reading if Detection.is_type(event.type)]
        return [(event.data["name"], event.data["timestamp"]) for event in told]

    told, lines = serve({"tiny": tiny}, talk)
    found = [(word.label, round(1000 * word.end)) for word in tiny.detect(read_blocks(file))]
    assert told == found
    assert told and not lines


def test_several_models_listen_at_once_and_the_first_keeps_its_names(
    tiny: Recogniser, samples: np.ndarray
) -> None:
    small = load("small")

    async def talk(port: int, one: Service) -> list[tuple[str, int]]:
        assert list(one.words) == [*tiny.words, *(f"small/{word}" for word in small.words)]
        return await hear(port, samples)

    told, _ = serve({"tiny": tiny, "small": small}, talk)
    assert [word for word in told if "/" not in word[0]] == words_of(tiny, samples)
    others = [(f"small/{word}", end) for word, end in words_of(small, samples)]
    assert [word for word in told if "/" in word[0]] == others
    assert others


def test_a_threshold_holds_for_any_word(tiny: Recogniser, samples: np.ndarray) -> None:
    scores = sorted(word.score for word in tiny.detect([from_int16(samples)], 0.05))
    between = scores[len(scores) // 2] + 1e-3
    found = tiny.detect([from_int16(samples)], between)
    told, _ = serve({"tiny": tiny}, lambda port, _: hear(port, samples), threshold=between)
    assert [name for name, _ in told] == [word.label for word in found]
    assert 0 < len(told) < len(scores)


def test_a_name_that_is_not_known_is_told_and_the_others_are_found(
    tiny: Recogniser, samples: np.ndarray
) -> None:
    word, end = words_of(tiny, samples)[0]

    async def talk(port: int, _: Service) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for _ in range(2):
                await client.write_event(Detect(names=["hey_jarvis", word]).event())
            await send(client, samples)
            return [await client.read_event() for _ in range(3)]

    (error, again, detection), lines = serve({"tiny": tiny}, talk)
    assert error == again
    assert "hey_jarvis" in Error.from_event(error).text and word in Error.from_event(error).text
    assert (detection.data["name"], detection.data["timestamp"]) == (word, end)
    assert len(lines) == 1 and "no wake word 'hey_jarvis'" in lines[0]


# --- clients that misbehave


def event(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    """An event as bytes, whatever is in it."""
    head = {"type": kind, "data": data, "payload_length": len(payload)}
    return json.dumps(head).encode() + b"\n" + payload


def chunk(samples: int = 320, **other: Any) -> bytes:
    return event(
        "audio-chunk", bytes(samples), **{"rate": RATE, "width": 2, "channels": 1, **other}
    )


BAD: dict[str, tuple[bytes, str]] = {
    "words": (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "b'GET / HTTP/1.1"),
    "bytes": (b"\xff\xfe\n", "expected JSON"),
    "a line without end": (b"\x00" * 200_000, "65,536 bytes in a line"),
    "a list": (b"[1, 2]\n", "expected JSON with names"),
    "too deep": (b"[" * 60_000 + b"\n", "expected JSON with names"),
    "no type": (b"{}\n", "expected a type"),
    "type of another kind": (b'{"type": 3}\n', "expected a type"),
    "data of another kind": (b'{"type": "detect", "data": "all"}\n', "expected a type, and data"),
    "data that is none": (b'{"type": "detect", "data_length": 3}\nall', "the data of 'detect'"),
    "data without end": (b'{"type": "detect", "data_length": 99999999}\n', "99999999: expected"),
    "payload without end": (b'{"type": "ping", "payload_length": 99999999999}\n', "99999999999"),
    "payload below nothing": (b'{"type": "ping", "payload_length": -1}\n', "is -1: expected"),
    "payload by words": (b'{"type": "ping", "payload_length": "9"}\n', "is '9': expected"),
    "no rate": (event("audio-chunk", width=2, channels=1), "rate is None"),
    "rate 0": (chunk(rate=0), "rate is 0: expected"),
    "rate of a telescope": (chunk(rate=10**9), "rate is 1000000000"),
    "rate that is no number": (chunk(rate=None), "rate is None"),
    "width 0": (chunk(width=0), "width is 0"),
    "width 8": (chunk(width=8), "width is 8"),
    "no channel": (chunk(channels=0), "channels is 0"),
    "99 channels": (chunk(channels=99), "channels is 99"),
    "half a sample": (chunk(321), "321 bytes: expected a multiple of 2"),
    "another rate in one stream": (chunk() + chunk(rate=8_000), "changes from 16000 Hz"),
    "a time that is none": (chunk(timestamp="noon"), "timestamp is 'noon'"),
    "no number as a time": (chunk(timestamp=float("nan")), "timestamp is nan"),
    "names by number": (event("detect", names=3), "names 3"),
    "ended in a line": (b'{"type": "des', "expected JSON"),
    "ended in a payload": (chunk()[:-7], "ended 313 bytes into payload_length 320"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_an_error_and_the_others_go_on(
    tiny: Recogniser, samples: np.ndarray, data: bytes, reason: str
) -> None:
    part = samples[: 3 * RATE]

    async def misbehave(port: int) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            client._writer.write(data)
            client._writer.write_eof()
            return await answers(client)

    async def talk(port: int, _: Service) -> list[Any]:
        return await asyncio.gather(hear(port, part), misbehave(port))

    (told, errors), lines = serve({"tiny": tiny}, talk)
    assert told == words_of(tiny, part)
    assert len(lines) == 1 and "\n" not in lines[0] and reason in lines[0]
    assert lines[0].startswith("127.0.0.1:") and len(lines[0]) < 200
    assert [Error.is_type(error.type) for error in errors] == [True]
    assert reason in errors[0].data["text"]


def test_events_that_are_for_others_are_passed_over(tiny: Recogniser, samples: np.ndarray) -> None:
    async def talk(port: int, _: Service) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            client._writer.write(event("transcribe", language="en") + event("fly", b"1234"))
            await client.write_event(AudioStop().event())
            client._writer.write_eof()
            return await answers(client)

    told, lines = serve({"tiny": tiny}, talk)
    assert [event.type for event in told] == ["not-detected"] and not lines


@pytest.mark.parametrize("how", ["reset", "closed", "half closed"])
def test_a_client_that_ends_in_mid_stream_leaves_nothing_behind(
    tiny: Recogniser, samples: np.ndarray, how: str
) -> None:
    details: list[str] = []

    async def talk(port: int, _: Service) -> list[tuple[str, int]]:
        client = AsyncTcpClient("127.0.0.1", port)
        await client.connect()
        await send(client, samples[:RATE])
        if how == "half closed":
            client._writer.write_eof()
            assert await client.read_event() is None
        elif how == "reset":
            client._writer.transport.abort()
        await client.disconnect()
        while not any(line.endswith(": closed") for line in details):
            await asyncio.sleep(0.01)
        return await hear(port, samples)

    told, lines = serve({"tiny": tiny}, talk, detail=details.append)
    assert told == words_of(tiny, samples)
    assert not lines


def test_a_client_that_never_stops_sending_is_kept_in_bounded_memory_and_harms_nobody(
    tiny: Recogniser, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes of audio, 4 MB, as fast as they are taken, in the longest events allowed."""
    monkeypatch.setattr(service, "PAYLOAD_BYTES", 2**16)
    longest = AudioChunk(RATE, 2, 1, bytes(2**16)).event()

    async def flood(port: int) -> int:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            for _ in range(60):
                await client.write_event(longest)
            await client.write_event(AudioStop().event())
            assert NotDetected.is_type((await client.read_event()).type)
        return tracemalloc.get_traced_memory()[1]

    async def talk(port: int, _: Service) -> list[Any]:
        before = tracemalloc.get_traced_memory()[0]
        peak, told = await asyncio.gather(flood(port), hear(port, samples[: 5 * RATE]))
        return [peak - before, told]

    tracemalloc.start()
    try:
        (grown, told), lines = serve({"tiny": tiny}, talk)
    finally:
        tracemalloc.stop()
    assert grown < 1.5e6  # both ends of the connection: they are in one process
    assert told == words_of(tiny, samples[: 5 * RATE])
    assert not lines


def test_a_client_that_takes_no_answers_is_let_go_with_a_line(
    tiny: Recogniser, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE_SECONDS", 0.2)

    async def ask_and_never_read(port: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as line:
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(line, ("127.0.0.1", port))
            with pytest.raises(ConnectionError):
                while True:
                    await loop.sock_sendall(line, event("describe") * 100)

    async def talk(port: int, _: Service) -> list[tuple[str, int]]:
        told, _ = await asyncio.gather(hear(port, samples), ask_and_never_read(port))
        return told

    told, lines = serve({"tiny": tiny}, talk)
    assert told == words_of(tiny, samples)
    assert len(lines) == 1 and "took no answer" in lines[0]


def test_a_service_that_ends_lets_go_of_clients_in_any_state(
    tiny: Recogniser, caplog: pytest.LogCaptureFixture
) -> None:
    """Silent, in mid-stream, told of a fault: their connections end, and nothing is logged."""
    clients: list[AsyncTcpClient] = []

    async def talk(port: int, _: Service) -> None:
        for data in (b"", chunk(), b"nonsense\n"):
            client = AsyncTcpClient("127.0.0.1", port)
            await client.connect()
            client._writer.write(data)
            clients.append(client)
        assert Error.is_type((await clients[-1].read_event()).type)

    async def run() -> None:
        one = Service({"tiny": tiny}, log=lambda line: None)
        async with asyncio.timeout(SECONDS):
            async with one.listen("127.0.0.1", 0) as [(_, port)]:
                await talk(port, one)
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    assert await client.read_event() is None
                with contextlib.suppress(ConnectionError):
                    await client.disconnect()

    asyncio.run(run())
    assert not caplog.records


def test_no_more_clients_are_taken_than_fit_and_room_is_made_when_one_leaves(
    tiny: Recogniser, samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CLIENTS", 2)

    async def describe(client: AsyncTcpClient) -> Event:
        await client.write_event(Describe().event())
        return await client.read_event()

    async def talk(port: int, _: Service) -> None:
        async with AsyncTcpClient("127.0.0.1", port) as first:
            assert Info.is_type((await describe(first)).type)
            async with AsyncTcpClient("127.0.0.1", port) as second:
                assert Info.is_type((await describe(second)).type)
                async with AsyncTcpClient("127.0.0.1", port) as third:
                    assert "2 clients" in Error.from_event(await third.read_event()).text
        while not await hear(port, samples):
            await asyncio.sleep(0.01)

    _, lines = serve({"tiny": tiny}, talk)
    assert lines and "2 clients are connected" in lines[0]


# --- the command


SERVE = """
import sys
from speechrnn.cli import main
status = main(sys.argv[1:])
print(*sys.modules)
sys.exit(status)
"""


@contextlib.contextmanager
def serving(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process that listens, and its first line; it is ended at last."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell's background job ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        try:
            yield process, process.stderr.readline()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("told", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_the_command_serves_without_torch_until_stopped_in_mid_stream(
    samples: np.ndarray, tiny: Recogniser, told: signal.Signals, status: int
) -> None:
    async def talk(port: int, process: subprocess.Popen[str]) -> tuple[str, int]:
        client = AsyncTcpClient("127.0.0.1", port)
        await client.connect()
        await send(client, samples)
        first = await client.read_event()
        process.send_signal(told)
        with contextlib.suppress(ConnectionError):  # a reset, if it had not read everything
            while await client.read_event() is not None:
                pass
        with contextlib.suppress(ConnectionError):
            await client.disconnect()
        return first.data["name"], first.data["timestamp"]

    with serving("tiny", "--uri", "tcp://127.0.0.1:0") as (process, line):
        words = " ".join(tiny.words)
        assert line.startswith(f"speechrnn: {words} on tcp://127.0.0.1:")
        port = int(line.rpartition(":")[2])
        assert asyncio.run(talk(port, process)) == words_of(tiny, samples)[0]
        out, error = process.communicate(timeout=SECONDS)
    assert (process.returncode, error) == (status, "speechrnn: stopped\n")
    assert not {"torch", "torchaudio", "pytorch_lightning", "librosa", "scipy"} & set(out.split())
    with socket.socket() as line_out:
        assert line_out.connect_ex(("127.0.0.1", port))


def test_the_load_script_is_told_every_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_recipe("serve_load")
    monkeypatch.setattr(script.random, "uniform", lambda low, high: low)
    with serving("tiny", "--uri", "tcp://127.0.0.1:0") as (_, line):
        port = line.rpartition(":")[2].strip()
        words = ["--clients", "2", "--seconds", "2.5", "--model", "tiny", "--port", port]
        monkeypatch.setattr(sys, "argv", ["serve_load.py", *words])
        asyncio.run(script.main())
    told = capsys.readouterr().out.splitlines()[1].split()
    assert int(told[0]) == int(told[2]) >= 2


def test_an_address_that_others_reach_is_said_to_have_no_authentication() -> None:
    with serving("tiny", "small", "--uri", "tcp://0.0.0.0:0") as (process, line):
        assert "go small/yes small/no" in line and "tcp://0.0.0.0:" in line
        assert process.stderr is not None
        assert "no authentication" in process.stderr.readline()


def test_a_port_in_use_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, out, error = run("serve", "tiny", "--uri", f"tcp://127.0.0.1:{port}")
    assert (status, out) == (1, "")
    assert_one_line(
        error, f"tcp://127.0.0.1:{port}: cannot listen: Address already in use", "--uri"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nonsense"], ["no model 'nonsense'", "tiny"]),
        (["tiny", "tiny"], ["two models are named tiny"]),
        (["tiny", "--threshold", "2"], ["is 2.0: expected a probability"]),
        (["tiny", "--uri", "tcp://nowhere.invalid:10400"], ["tcp://nowhere.invalid:10400: cannot"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_served_is_one_line(run: Run, words: list[str], parts: list[str]) -> None:
    status, out, error = run("serve", *words)
    assert (status, out) == (1, "")
    assert_one_line(error, *parts)


@pytest.mark.parametrize(
    "uri", ["10400", "127.0.0.1:10400", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://:1",
            "tcp://a:99999", "tcp://a:1/b", "tcp://a:b"],
)  # fmt: skip
def test_an_address_of_another_kind_is_wrong_usage(run: Run, uri: str) -> None:
    status, out, error = run("serve", "--uri", uri)
    assert (status, out) == (2, "") and "expected tcp://HOST:PORT" in error


def test_ones_own_model_goes_by_the_name_of_its_run(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "lights" / "model")
    for given in (tmp_path / "lights", tmp_path / "lights" / "model"):
        with serving("tiny", given, "--uri", "tcp://127.0.0.1:0") as (_, line):
            assert "go lights/yes lights/no on tcp://" in line
