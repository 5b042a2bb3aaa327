"""Render `data/synthetic_commands/`, a small corpus laid out like Google Speech Commands.

Every clip is one word spoken by the espeak-ng synthesiser: 16 kHz, mono, exactly one second, Ogg
Opus. Each random choice (accent, pitch, speed, position, level, noise) is drawn from a generator
seeded with the clip's own name, so no clip depends on the others or on their order. The samples
repeat, the bytes of the files do not: libsndfile gives each Ogg stream a random serial number.
`--check` renders everything again and compares decoded samples, with a tolerance because another
version of libopus may round differently.

It does not know features, models or the loader; and because one engine speaks every voice, it does
not know people.
"""

import argparse
import hashlib
import io
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr

FOLDER = Path(__file__).parent / "synthetic_commands"
SEED = "speechrnn synthetic commands 1"
SAMPLE_RATE = 16_000
CLIP_SAMPLES = SAMPLE_RATE
NOISE_SECONDS = 30
NOISE_RMS = 0.05
UTTERANCES_PER_WORD = 2

COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
OTHER_WORDS = ["zero", "one", "two", "three", "cat", "dog", "bed", "happy", "marvin", "house"]
WORDS = COMMANDS + OTHER_WORDS

# The timbre alone decides the split. espeak-ng 1.51 has 101 variants; left out are whispers and
# croaks, robots and echoes, near copies of another variant (klatt = klatt6 = caleb sample by
# sample), and a few odd ones. Measured on three words at one pitch and speed, variants of different
# splits are at least 3 dB apart in their mean log-mel difference (near copies: below 2 dB). Female
# as tagged by espeak-ng; shelby, untagged, by its pitch (165 Hz).
FEMALE_VARIANTS = {
    "training": "f1 f3 f5 Alicia anika aunty grandma shelby steph",
    "validation": "f2 Annie linda",
    "testing": "f4 Andrea belinda",
}
MALE_VARIANTS = {
    "training": "m1 m3 m5 m6 Alex Andy Denis Gene Jacky Lee Marco Mario Michael Mike Storm Tweaky "
    "benjamin boris ed edward iven iven2 iven3 john klatt4 max norbert pablo paul pedro quincy "
    "sandro travis",
    "validation": "m4 m8 david michel rob victor",
    "testing": "m2 m7 Diogo Nguyen antonio gustave",
}
VARIANTS = {
    split: f"{FEMALE_VARIANTS[split]} {MALE_VARIANTS[split]}".split() for split in FEMALE_VARIANTS
}
# `en-us-nyc` is left out: with a variant added, espeak-ng 1.51 renders it exactly as `en-us`.
ACCENTS = [
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
]

# None of WORDS, and nothing that sounds like one ("to", "too", "won", "write", "know"), may stand
# here.
BABBLE_SENTENCES = (
    "The old ferry crosses the river every morning while the market opens.",
    "My uncle paints small boats and sells them near the harbour.",
    "We never found the green umbrella behind the kitchen door.",
    "A cold wind blew across the empty fields until spring came.",
    "Please bring fresh bread, some cheese and a bottle of water.",
    "Her brother plays the violin better than anyone in the village.",
    "They walked slowly along the beach and talked about the weather.",
    "Seven students borrowed heavy books from the city library.",
)

RECORDING = "recording.ogg"  # to try `speechrnn transcribe` on
RECORDING_VARIANT = "m7"  # of the testing split

# 0.9 gives clips of about 4 KB; 1.0 damages the words (correlation with the original 0.71 instead
# of 0.99).
CLIP_COMPRESSION = 0.9
# 0.9 would take 3 dB from the white noise.
BACKGROUND_COMPRESSION = 0.8
# Largest accepted RMS of a difference, as a part of the RMS of the stored file. Measured: 0.0 where
# the build of libopus is the same, at most 0.26 when the encoder is fed samples 80 dB off (another
# build may round that way), and at least 1.0 between two utterances of one word by one voice.
CHECK_TOLERANCE = 0.5


def speaker_id(variant: str) -> str:
    return hashlib.sha1(variant.encode()).hexdigest()[:8]


def clip_name(word: str, variant: str, utterance: int) -> str:
    return f"{word}/{speaker_id(variant)}_nohash_{utterance}.ogg"


def clips_of(split: str) -> dict[str, tuple[str, str, int]]:
    """Name of each clip of one split, with the word, variant and utterance it holds."""
    clips = itertools.product(WORDS, VARIANTS[split], range(UTTERANCES_PER_WORD))
    return {clip_name(*clip): clip for clip in clips}


def random_generator(name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{SEED}: {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def speak(text: str, variant: str, accent: str, pitch: int, words_per_minute: int) -> np.ndarray:
    """Speech at 16 kHz, float64 (N,), cut where it first and last is within 40 dB of its peak."""
    settings = ["-v", f"{accent}+{variant}", "-p", str(pitch), "-s", str(words_per_minute)]
    wav = subprocess.run(
        ["espeak-ng", *settings, "--stdout", text], check=True, capture_output=True
    ).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="VHQ")
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def coloured_noise(length: int, exponent: float, random: np.random.Generator) -> np.ndarray:
    """Noise (N,) of RMS 1 whose power falls with `frequency ** -exponent` above 20 Hz.

    Exponent 0 is white noise, 1 pink, 2 brown.
    """
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(random.standard_normal(length)) * np.maximum(frequency, 20.0) ** (
        -exponent / 2
    )
    spectrum[frequency < 20.0] = 0
    return unit_rms(np.fft.irfft(spectrum, length))


def mains_hum(length: int, random: np.random.Generator) -> np.ndarray:
    """50 or 60 Hz with eleven harmonics and a little pink noise, (N,), RMS 1."""
    mains_hz = random.choice([50.0, 60.0])
    time = np.arange(length) / SAMPLE_RATE
    harmonics = sum(
        random.uniform(0.2, 1.0)
        / number
        * np.sin(2 * np.pi * (number * mains_hz * time + random.uniform()))
        for number in range(1, 13)
    )
    return unit_rms(unit_rms(harmonics) + 0.1 * coloured_noise(length, 1, random))


def babble(length: int, random: np.random.Generator) -> np.ndarray:
    """Six voices of the training split at once, (N,), RMS 1; they speak none of the words."""
    mixture = np.zeros(length)
    for variant in random.choice(VARIANTS["training"], 6, replace=False):
        voice = np.zeros(0)
        while len(voice) < length:
            accent, pitch, speed = (
                random.choice(ACCENTS),
                random.integers(30, 71),
                random.integers(130, 191),
            )
            sentence = speak(random.choice(BABBLE_SENTENCES), variant, accent, pitch, speed)
            pause = np.zeros(random.integers(SAMPLE_RATE // 10, SAMPLE_RATE // 2))
            voice = np.concatenate([voice, unit_rms(sentence), pause])
        mixture += np.roll(voice[:length], random.integers(length))
    return unit_rms(mixture)


def unit_rms(samples: np.ndarray) -> np.ndarray:
    return samples / np.sqrt(np.mean(samples**2))


NOISES = {
    "white_noise": partial(coloured_noise, exponent=0),
    "pink_noise": partial(coloured_noise, exponent=1),
    "fan": partial(coloured_noise, exponent=2),
    "mains_hum": mains_hum,
}
BACKGROUNDS = NOISES | {"babble": babble}


def render_clip(word: str, variant: str, utterance: int) -> np.ndarray:
    """One word somewhere in one second: float64 (16000,), peak below 1."""
    random = random_generator(clip_name(word, variant, utterance))
    # 115 words a minute is slow enough that the longest word just fits: 0.97 s.
    accent, pitch, speed = (
        random.choice(ACCENTS),
        random.integers(25, 76),
        random.integers(115, 206),
    )
    spoken = speak(word, variant, accent, pitch, speed)
    spoken *= 10 ** (random.uniform(-30.0, -3.0) / 20) / np.abs(spoken).max()
    clip = np.zeros(CLIP_SAMPLES)
    start = random.integers(CLIP_SAMPLES - len(spoken) + 1)
    clip[start : start + len(spoken)] = spoken
    # A third of the clips are noisy; the others keep the faint noise of a quiet room, for no
    # recording is all zeros.
    snr_db = random.uniform(5.0, 30.0) if random.uniform() < 1 / 3 else random.uniform(40.0, 60.0)
    make_noise = NOISES[random.choice(list(NOISES))]
    noise = make_noise(CLIP_SAMPLES, random=random)
    clip += noise * np.sqrt(np.mean(spoken**2)) * 10 ** (-snr_db / 20)
    return clip / max(1.0, np.abs(clip).max() / 0.95)


def render_recording() -> np.ndarray:
    """The ten official words in their order, one every 1.5 s, by a testing voice in a quiet room.

    Returns:
        (240000,) float64.
    """
    slot = SAMPLE_RATE * 3 // 2
    recording = 0.001 * coloured_noise(10 * slot, 1, random_generator(RECORDING))
    for number, word in enumerate(WORDS[:10]):
        spoken = speak(word, RECORDING_VARIANT, "en-us", 50, 140)
        start = number * slot + SAMPLE_RATE // 2
        recording[start : start + len(spoken)] += 0.3 * spoken / np.abs(spoken).max()
    return recording


def render_background(name: str) -> np.ndarray:
    """Half a minute of one background noise, float64 (480000,)."""
    return NOISE_RMS * BACKGROUNDS[name](NOISE_SECONDS * SAMPLE_RATE, random=random_generator(name))


def encode(samples: np.ndarray, compression: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=compression
    )
    return buffer.getvalue()


def clip_file(word: str, variant: str, utterance: int) -> bytes:
    return encode(render_clip(word, variant, utterance), CLIP_COMPRESSION)


def background_file(name: str) -> bytes:
    return encode(render_background(name), BACKGROUND_COMPRESSION)


def recording_file() -> bytes:
    return encode(render_recording(), CLIP_COMPRESSION)


def run(job: Callable[[], bytes]) -> bytes:
    return job()


def render_corpus() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each audio file, rendered on all cores."""
    jobs: dict[str, Callable[[], bytes]] = {RECORDING: recording_file}
    jobs |= {
        f"_background_noise_/{name}.ogg": partial(background_file, name) for name in BACKGROUNDS
    }
    for split in VARIANTS:
        jobs |= {name: partial(clip_file, *clip) for name, clip in clips_of(split).items()}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from zip(jobs, pool.map(run, jobs.values(), chunksize=16), strict=True)


def write_corpus() -> None:
    """Replace FOLDER by a fresh corpus; an interrupted rendering leaves it untouched."""
    unfinished = FOLDER.with_name(f"{FOLDER.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, data in render_corpus():
        path = unfinished / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for split in ("validation", "testing"):
        (unfinished / f"{split}_list.txt").write_text(
            "".join(f"{name}\n" for name in sorted(clips_of(split)))
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    unfinished.rename(FOLDER)


def relative_difference(rendered: bytes, path: Path) -> float:
    """RMS of the difference of two decoded files, as a part of the RMS of the one at `path`.

    Infinite if that file is not there.
    """
    if not path.exists():
        return np.inf
    new, _ = soundfile.read(io.BytesIO(rendered))
    stored, _ = soundfile.read(path)
    return (
        np.sqrt(np.mean((new - stored) ** 2) / np.mean(stored**2))
        if len(new) == len(stored)
        else np.inf
    )


def check_corpus() -> None:
    """Render again and compare with FOLDER; raises RuntimeError where a file differs."""
    differences = {name: relative_difference(data, FOLDER / name) for name, data in render_corpus()}
    wrong = [name for name, difference in differences.items() if difference > CHECK_TOLERANCE]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} of {len(differences)} files, {wrong[0]} the first, are missing or more "
            f"than {CHECK_TOLERANCE} of their RMS from a new rendering; the stored corpus is of "
            "espeak-ng 1.51"
        )
    print(
        f"{len(differences)} files repeat; largest difference {max(differences.values()):.2g} "
        "of the RMS"
    )


def require_espeak() -> None:
    """Raises RuntimeError without espeak-ng or one of its voices: it would use another voice."""
    if shutil.which("espeak-ng") is None:
        raise RuntimeError("espeak-ng is not installed: apt-get install espeak-ng")
    listing = subprocess.run(
        ["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True
    ).stdout
    missing = sorted(
        v for variants in VARIANTS.values() for v in variants if f"!v/{v} " not in listing
    )
    if missing:
        raise RuntimeError(
            f"this espeak-ng lacks the voices {' '.join(missing)}: install espeak-ng 1.51 or later"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Render the synthetic spoken-command corpus (needs espeak-ng)."
    )
    parser.add_argument(
        "--check", action="store_true", help="render again, write nothing, compare decoded samples"
    )
    arguments = parser.parse_args()
    try:
        require_espeak()
        if arguments.check:
            check_corpus()
        else:
            write_corpus()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
