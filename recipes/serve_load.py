"""How late many clients of `speechrnn serve` are told their words, each sending in real time.

    taskset -c 0 speechrnn serve base & taskset -c 1 python recipes/serve_load.py --clients 50

Each client sends `data/synthetic_commands/recording.ogg` over and over, beginning at a random
moment. Late is what lies between the moment at which the chunk that makes a word sure was sent, and
its detection: the time of the service alone. It prints how many words were told of those expected.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path

import numpy as np
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncTcpClient
from wyoming.wake import Detect, Detection

from speechrnn import load
from speechrnn.audio import read_wave, to_int16

RECORDING = Path(__file__).parents[1] / "data/synthetic_commands/recording.ogg"
RATE = 16_000


async def client(
    options: argparse.Namespace, wave: np.ndarray, reported: list[tuple[str, float]]
) -> tuple[int, list[float]]:
    """How many words were sure in what a client sent, and how late (s) each was told."""
    await asyncio.sleep(random.uniform(0, len(wave) / RATE))
    late: list[float] = []
    size = round(options.chunk_ms * RATE / 1000)
    async with AsyncTcpClient(options.host, options.port) as line:
        await line.write_event(Detect().event())
        await line.write_event(AudioStart(RATE, 2, 1).event())
        begin = time.monotonic()

        async def hear() -> None:
            while (event := await line.read_event()) is not None:
                if Detection.is_type(event.type):
                    word, sure = reported[len(late)]
                    assert Detection.from_event(event).name == word
                    late.append(time.monotonic() - begin - sure)

        ears = asyncio.create_task(hear())
        sent = 0
        while sent < options.seconds * RATE:
            part = wave[np.arange(sent, sent + size) % len(wave)]
            sent += size
            await asyncio.sleep(max(0.0, begin + sent / RATE - time.monotonic()))
            await line.write_event(AudioChunk(RATE, 2, 1, to_int16(part).tobytes()).event())
        await asyncio.sleep(2)
        ears.cancel()
    return sum(sure <= options.seconds for _, sure in reported), late


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--chunk-ms", type=float, default=64.0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=10_400)
    parser.add_argument("--model", default="base", help="that the service has")
    options = parser.parse_args()
    wave = read_wave(RECORDING)
    times = int(options.seconds * RATE / len(wave)) + 1
    words = load(options.model).detect([np.tile(wave, times)])
    # A chunk is sent when its last sample has been recorded.
    chunk = options.chunk_ms / 1000
    reported = [(word.label, np.ceil(word.reported / chunk - 1e-9) * chunk) for word in words]
    results = await asyncio.gather(
        *(client(options, wave, reported) for _ in range(options.clients))
    )
    late = np.array([lag for _, lags in results for lag in lags])
    expected = sum(count for count, _ in results)
    median, most = np.percentile(late, (50, 95)) * 1000
    print(f"{options.clients} clients, {options.seconds:g} s, chunks of {options.chunk_ms:g} ms:")
    print(f"{len(late)} of {expected} words, {median:.1f} ms late (median; 95 %: {most:.1f} ms)")


if __name__ == "__main__":
    asyncio.run(main())
