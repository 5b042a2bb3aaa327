"""A wake-word service: audio comes in over TCP by the Wyoming protocol, words go out at once.

In: recognisers by name, and what clients send: `describe`, `detect`, and audio of any rate, as PCM.
Out: `info`, a `detection` as soon as a word is sure, `not-detected` at the end of audio without
one. A client is a coroutine with a `Listener` of its own; all of them take turns on one core, none
for longer than `SLICE_SECONDS` of audio. What a client can make the service keep has a limit,
whatever it sends. It does not know where models come from, or who asks.

Source: the protocol is that of https://github.com/OHF-Voice/wyoming; its library writes the events.
They are read here, since the library's reader takes as many bytes as a client promises to send.
"""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Attribution, Info, WakeModel, WakeProgram
from wyoming.wake import Detection, NotDetected

from speechrnn import __version__
from speechrnn.audio import RATES_HZ, from_pcm
from speechrnn.config import SAMPLE_RATE
from speechrnn.recogniser import Listener, Recogniser

LINE_BYTES = 65_536  # of an event's first line, and of the data behind it: it has some 100
PAYLOAD_BYTES = 2**20  # of an event: 32 s of audio at 16 kHz, where clients send 10 to 100 ms
CHANNELS = 32  # of the audio
CLIENTS = 256  # at once
SLICE_SECONDS = 0.25  # of a client's audio computed before it is another one's turn
PATIENCE_SECONDS = 10  # for a client that does not take what is sent to it
LINGER_SECONDS = 1  # for a client that was told what is wrong, to close the connection itself
KEEPALIVE_SECONDS = 60  # of silence on the line, until the other machine is asked if it is there
PCM_KINDS = {1: "|u1", 2: "<i2", 3: "<i3", 4: "<i4"}  # by the bytes of a sample


class EventError(ValueError):
    """What a client sent cannot be used; the message says why, in a line."""


class StalledError(Exception):
    """A client does not take what is sent to it."""


@dataclass(frozen=True)
class WakeWord:
    """A word of one of the models.

    Args:
        model: its name.
        word: a label of it.
        phrase: what people read, and speak.
    """

    model: str
    word: str
    phrase: str


def wake_words(models: Mapping[str, Recogniser]) -> dict[str, WakeWord]:
    """Every word of every model, by the name that clients ask for it.

    That is the word itself; a word that a model before has too is named MODEL/WORD, so that a model
    which is added behind others leaves their names as they were.
    """
    named: dict[str, WakeWord] = {}
    for model, recogniser in models.items():
        for word in recogniser.words:
            if word in named:
                named[f"{model}/{word}"] = WakeWord(model, word, f"{word} ({model})")
            else:
                named[word] = WakeWord(model, word, word)
    return named


class Service:
    """Answers clients, as many at once as come.

    Args:
        models: recognisers by name.
        threshold: probability from which any word counts; None for the models' own.
        log: takes a line about a client whose connection was not as it should be.
        detail: takes a line about each connection and each word; None if nobody wants to know.

    Raises:
        ValueError: if the threshold is no probability.
    """

    def __init__(
        self,
        models: Mapping[str, Recogniser],
        threshold: float | None = None,
        log: Callable[[str], None] = print,
        detail: Callable[[str], None] | None = None,
    ) -> None:
        self.words = wake_words(models)
        self._models, self._threshold = dict(models), threshold
        self._log, self._detail = log, detail or (lambda line: None)
        self._info = _info(self.words)
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        for recogniser in models.values():
            recogniser.listener(threshold)  # a threshold that cannot be is refused now

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[list[tuple[str, int]]]:
        """Take connections while the context lasts; at its end all of them are closed.

        Args:
            host: name or address to listen on.
            port: likewise; 0 for one that is free.

        Yields:
            Address and port of each socket.

        Raises:
            OSError: if the address cannot be had, a port in use say.
        """
        server = await asyncio.start_server(self._meet, host, port, limit=LINE_BYTES)
        try:
            yield [one.getsockname()[:2] for one in server.sockets]
        finally:
            server.close()
            clients = dict(self._writers)
            for task, writer in clients.items():
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection from its beginning to its end, however that comes."""
        client = _Client(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._writers) >= CLIENTS
        self._writers[task] = writer
        self._detail(f"{client.name}: connected")
        try:
            await self._converse(client, crowded)
        except asyncio.CancelledError:  # the service stops; Python 3.11 would log it as an error
            pass
        finally:
            del self._writers[task]
            self._detail(f"{client.name}: closed")

    async def _converse(self, client: "_Client", crowded: bool) -> None:
        """Answer a client, or turn it away, and close the connection."""
        try:
            if crowded:
                raise EventError(f"{CLIENTS} clients are connected: no more are taken")
            client.ask_whether_alive()
            await self._answer(client)
        except EventError as error:
            self._log(f"{client.name}: {error}; closed")
            await client.say_goodbye(str(error))
        except StalledError:
            self._log(f"{client.name}: took no answer for {PATIENCE_SECONDS} s; closed")
            client.abort()
        except OSError:  # it has what it wants, as Home Assistant after a word, or is gone
            pass
        finally:
            await client.close()

    async def _answer(self, client: "_Client") -> None:
        names = set(self.words)
        stream: _Stream | None = None
        start = 0.0
        while (event := await client.read()) is not None:
            match event.type:
                case "describe":
                    await client.write(self._info)
                case "detect":
                    names, stream, start = await self._choose(client, event.data), None, 0.0
                case "audio-start":
                    stream, start = None, _time(event.data) or 0.0
                case "audio-chunk":
                    pcm = _format(event.data)
                    if stream is None:
                        stream = self._stream(names, pcm, start)
                    elif pcm != stream.pcm:
                        raise EventError(
                            f"audio changes from {stream.pcm} to {pcm}: expected audio-start before"
                        )
                    stream.set_clock(_time(event.data))
                    for number, data in enumerate(pcm.slices(event.payload or b"")):
                        if number:
                            await asyncio.sleep(0)
                        await self._report(client, stream.push(data))
                case "audio-stop":
                    if stream is not None:
                        await self._report(client, stream.finish())
                    if stream is None or not stream.found:
                        await client.write(NotDetected().event())
                    stream, start = None, 0.0
                case _:  # the protocol has more events, and may get others: they are not for us
                    pass
            # Reading what is there already does not wait, so a client that always has more to send
            # would keep all others from their turn.
            await asyncio.sleep(0)

    async def _choose(self, client: "_Client", data: dict[str, Any]) -> set[str]:
        """The names that a `detect` asks for; what is not known is told, and the others stay."""
        names = data.get("names")
        if names is None or names == []:
            return set(self.words)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise EventError(f"detect has names {_short(names)}: expected a list of words")
        if unknown := sorted(set(names) - self.words.keys()):
            missing = f"no wake word {_short(unknown[0])}: expected {', '.join(self.words)}"
            if not client.warned:
                self._log(f"{client.name}: {missing}")
                client.warned = True
            await client.write(Error(missing, "wake-word-unknown").event())
        return set(names) & self.words.keys()

    def _stream(self, names: set[str], pcm: "_Pcm", start: float) -> "_Stream":
        wanted = {(self.words[name].model, self.words[name].word): name for name in names}
        listeners = {
            model: recogniser.listener(self._threshold)
            for model, recogniser in self._models.items()
            if any(model == other for other, _ in wanted)
        }
        return _Stream(listeners, wanted, pcm, start)

    async def _report(self, client: "_Client", found: list[tuple[str, int]]) -> None:
        for name, time in found:
            await client.write(Detection(name, time).event())
            self._detail(f"{client.name}: {name} at {time} ms")


class _Client:
    """The two ends of a connection: events are read and written one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        address = writer.get_extra_info("peername")  # None if it is gone already
        self.name = ":".join(map(str, address[:2])) if address else "a client"
        self.warned = False  # of a name that is not known: a line for each would fill the log

    def ask_whether_alive(self) -> None:
        """Let the system find out when the other machine has gone without a word."""
        line = self._writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_SECONDS), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3),
        ):  # fmt: skip
            if hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    async def read(self) -> Event | None:
        """The next event, or None at the end.

        Raises:
            EventError: if it is none, longer than allowed, or not all there.
            OSError: if the client is gone.
        """
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise EventError(f"more than {LINE_BYTES:,} bytes in a line: expected JSON") from error
        if not line:
            return None
        head = _json_object(line, "an event")
        kind, data = head.get("type"), head.get("data") or {}
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise EventError(f"an event is {_short(head)}: expected a type, and data by name")
        if more := await self._exactly(head, "data_length", LINE_BYTES):
            data = {**data, **_json_object(more, f"the data of {_short(kind)}")}
        payload = await self._exactly(head, "payload_length", PAYLOAD_BYTES)
        return Event(kind, data, payload)

    async def _exactly(self, head: dict[str, Any], name: str, most: int) -> bytes:
        count = _whole(head, name, 0, most) if head.get(name) is not None else 0
        try:
            return await self._reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            raise EventError(
                f"ended {len(error.partial)} bytes into {name} {count} of {_short(head['type'])}"
            ) from error

    async def write(self, event: Event) -> None:
        """Send an event.

        Raises:
            StalledError: if the client does not take it.
            OSError: if the client is gone.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await async_write_event(event, self._writer)
        except TimeoutError as error:
            raise StalledError from error

    async def say_goodbye(self, why: str) -> None:
        """Tell the client what is wrong, if it is still there.

        What it sends meanwhile is thrown away: a connection that is closed with data unread is
        reset, and what was said last may not arrive.
        """
        with suppress(OSError, StalledError, TimeoutError):
            await self.write(Error(why, "bad-event").event())
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(LINE_BYTES):
                    pass

    async def close(self) -> None:
        """Close the connection, when the client has taken what was sent, or after some time."""
        self._writer.close()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        """Close the connection at once; what was not sent yet is lost."""
        self._writer.transport.abort()


@dataclass(frozen=True)
class _Pcm:
    """A format of audio: samples a second, bytes of a sample, channels."""

    rate: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.rate} Hz, {self.width} bytes, {self.channels} channels"

    def slices(self, data: bytes) -> Iterator[bytes]:
        """The data in parts of `SLICE_SECONDS` or less.

        Raises:
            EventError: if it does not hold whole samples.
        """
        frame = self.width * self.channels
        if len(data) % frame:
            raise EventError(f"audio-chunk of {len(data)} bytes: expected a multiple of {frame}")
        size = frame * math.ceil(SLICE_SECONDS * self.rate)
        for start in range(0, len(data), size):
            yield data[start : start + size]


class _Stream:
    """Audio of a client from its start to its stop.

    Args:
        listeners: by model, one for each that has a wanted word.
        wanted: names by model and word.
        pcm: format of the audio.
        zero: ms on the client's clock at which the audio begins.
    """

    def __init__(
        self,
        listeners: dict[str, Listener],
        wanted: dict[tuple[str, str], str],
        pcm: _Pcm,
        zero: float,
    ) -> None:
        self.pcm, self.found = pcm, False
        self._listeners, self._wanted, self._zero = listeners, wanted, zero
        self._frames = 0  # that came
        self._resampler = None
        if pcm.rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(
                pcm.rate, SAMPLE_RATE, num_channels=1, dtype="float32"
            )

    def set_clock(self, time: float | None) -> None:
        """Take what the client says, if it does, as the time (ms) of the sample to come."""
        if time is not None:
            self._zero = time - 1000 * self._frames / self.pcm.rate

    def push(self, data: bytes) -> list[tuple[str, int]]:
        """Name and time (ms on the client's clock) of the end of each word that is sure now."""
        samples = from_pcm(data, PCM_KINDS[self.pcm.width], self.pcm.channels)
        wave = samples[:, 0] if self.pcm.channels == 1 else samples.mean(axis=1)
        self._frames += len(wave)
        return self._hear(wave, last=False)

    def finish(self) -> list[tuple[str, int]]:
        """Likewise, now that the audio is over."""
        return self._hear(np.zeros(0, np.float32), last=True)

    def _hear(self, wave: np.ndarray, last: bool) -> list[tuple[str, int]]:
        if self._resampler is not None:
            wave = self._resampler.resample_chunk(wave, last=last)
        words = []
        for model, listener in self._listeners.items():
            found = listener.push(wave)
            found += listener.finish() if last else []
            words += [(word.end, self._wanted.get((model, word.label))) for word in found]
        named = [
            (name, round(self._zero + 1000 * end))
            for end, name in sorted(words, key=lambda word: word[0])
            if name is not None
        ]
        self.found |= bool(named)
        return named


def _info(words: Mapping[str, WakeWord]) -> Event:
    """What `describe` is answered: one program, since Home Assistant looks at the first alone."""
    nobody = Attribution(name="speechrnn", url="")
    models = [
        WakeModel(
            name=name,
            attribution=nobody,
            installed=True,
            description=word.phrase,
            version=__version__,
            languages=[],  # a model does not know of which language its words are
            phrase=word.phrase,
        )
        for name, word in words.items()
    ]
    program = WakeProgram(
        name="speechrnn",
        attribution=nobody,
        installed=True,
        description="spoken commands, by vanilla recurrent networks",
        version=__version__,
        models=models,
    )
    event: Event = Info(wake=[program]).event()
    return event


def _format(data: dict[str, Any]) -> _Pcm:
    return _Pcm(
        _whole(data, "rate", *RATES_HZ),
        _whole(data, "width", min(PCM_KINDS), max(PCM_KINDS)),
        _whole(data, "channels", 1, CHANNELS),
    )


def _time(data: dict[str, Any]) -> float | None:
    """The timestamp of an event, ms, if it has one."""
    time = data.get("timestamp")
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) < 2**63:
        raise EventError(f"timestamp is {_short(time)}: expected milliseconds")
    return time


def _whole(data: dict[str, Any], name: str, least: int, most: int) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise EventError(
            f"{name} is {_short(value)}: expected a whole number from {least:,} to {most:,}"
        )
    return value


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EventError(f"{what} is {_short(text)}: expected JSON with names and values")
    return found


def _short(value: object) -> str:
    """What a client sent, safe to be printed and not long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
