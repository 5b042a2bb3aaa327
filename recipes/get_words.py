"""Make many words in many voices, from which an encoder learns what words are.

Usage:
    python recipes/get_words.py data/words --list recipes/words.txt --corpus CORPUS
    python recipes/get_words.py data/words --list recipes/words.txt --corpus CORPUS \\
        --talk data/talk/training/librispeech --ear data/kokoro/whisper --rendered data/rendered

It writes a corpus of the protocol `own`, a folder a word, of clips of one second:
- each word of the list in four voices of flite and six of espeak-ng, cut close, with pitch and
  speed changed together by up to a fifth, and some level;
- words cut out of running speech by the word times of Whisper tiny.en (`--ear`, which needs
  `faster-whisper`), where it is sure of them;
- the clips of `--corpus` and of `--rendered` folders (`speechrnn speak words`), as links.
Words that sound alike, as espeak-ng writes them down, share a folder. `validation_list.txt` names
clips of the corpus's validation split, so that a training is measured on people.

flite and espeak-ng are Debian's (`apt-get install flite espeak-ng`). A stopped run goes on.
"""

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speechrnn.audio import AudioError, find_audio, read_wave
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE, UNKNOWN
from speechrnn.corpus import NOISE, hash_split
from speechrnn.files import whole_file

FLITE = ("kal16", "awb", "rms", "slt")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc")
VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
ESPEAK_CLIPS = 6  # of each word
RATES = (0.82, 1.2)  # pitch and speed together
LEVEL_DB = (-35.0, -3.0)  # of the loudest sample
SILENT = 0.02  # of the loudest sample: what is quieter at the ends is cut off
# A word in running speech: seconds, letters at least, and how sure Whisper is of it at least.
SECONDS, LETTERS, SURE = (0.25, 0.95), 3, 0.6
MARGIN = 0.04  # s, beside a word in running speech
FADE = 0.02  # s, at the ends of a cut
FEWEST = 3  # clips of a word in running speech that no list has; with fewer it is unknown


def seed(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))


def sounds_of(words: list[str]) -> dict[str, str]:
    """How each word sounds, as espeak-ng writes it, without stress."""
    lines = subprocess.run(
        ["espeak-ng", "-q", "-x", "-v", "en-us"],
        input="\n".join(f"{word}." for word in words), capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    sounds = [re.sub(r"[\s',%]", "", line) for line in lines if line.strip()]
    if len(sounds) != len(words):
        raise RuntimeError(f"espeak-ng wrote down {len(sounds)} of {len(words)} words")
    return dict(zip(words, sounds, strict=True))


def spoken(command: list[str]) -> np.ndarray:
    """What a synthesiser writes to stdout, (N,) at 16 kHz."""
    wave, rate = soundfile.read(
        io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout), dtype="float32"
    )
    return soxr.resample(wave, rate, SAMPLE_RATE)


def in_a_second(wave: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A word at a random place and level in a clip; its middle, where it is longer than that."""
    wave = wave / max(float(np.abs(wave).max()), 1e-9)
    if len(wave) > CLIP_SAMPLES:
        start = (len(wave) - CLIP_SAMPLES) // 2
        wave = wave[start : start + CLIP_SAMPLES]
    clip = random.standard_normal(CLIP_SAMPLES) * 10 ** random.uniform(-4.5, -3)
    start = random.integers(CLIP_SAMPLES - len(wave) + 1)
    clip[start : start + len(wave)] += wave
    return (clip * 10 ** (random.uniform(*LEVEL_DB) / 20)).clip(-1, 1).astype(np.float32)


def write(path: Path, clip: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        soundfile.write(beside, clip, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def synthesise(word: str, folder: Path) -> int:
    """Write the clips of a word that are not there yet."""
    random = seed(word)
    voices = [("flite", voice) for voice in FLITE]
    for accent in random.permutation(ACCENTS)[:ESPEAK_CLIPS]:
        voices.append(("espeak", f"{accent}+{random.choice(VARIANTS)}"))
    new = 0
    for number, (kind, voice) in enumerate(voices):
        path = folder / f"{kind}-{voice}_nohash_{number}.wav"
        draws = seed(f"{word} {path.name}")
        if path.is_file():
            continue
        if kind == "flite":
            wave = spoken(["flite", "-voice", voice, "-t", word, "-o", "/dev/stdout"])
        else:
            speed = str(int(draws.integers(120, 190)))
            wave = spoken(["espeak-ng", "-v", voice, "-s", speed, "--stdout", word])
        loud = np.flatnonzero(np.abs(wave) > SILENT * np.abs(wave).max())
        if len(loud):
            rate = SAMPLE_RATE * float(draws.uniform(*RATES))
            wave = soxr.resample(wave[loud[0] : loud[-1] + 1], rate, SAMPLE_RATE)
            write(path, in_a_second(wave, draws))
            new += 1
    return new


def words_in_talk(recordings: list[Path], model: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Word, recording and samples of each word that Whisper is sure of."""
    from faster_whisper import WhisperModel

    ear = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=1)
    for number, path in enumerate(recordings):
        print(f"\rwords in talk: {number} of {len(recordings)}", end="", file=sys.stderr)
        wave = read_wave(path)
        segments, _ = ear.transcribe(
            wave, language="en", beam_size=1, word_timestamps=True,
            condition_on_previous_text=False, temperature=0.0,
        )  # fmt: skip
        for word in (word for segment in segments for word in segment.words or ()):
            text = re.sub(r"[^a-z']", "", word.word.lower())
            seconds = word.end - word.start
            sure = word.probability >= SURE and SECONDS[0] <= seconds <= SECONDS[1]
            if sure and len(text) >= LETTERS and "'" not in text:
                first = max(0, round((word.start - MARGIN) * SAMPLE_RATE))
                yield text, path, wave[first : round((word.end + MARGIN) * SAMPLE_RATE)]
    print(file=sys.stderr)


def faded(wave: np.ndarray) -> np.ndarray:
    ramp = np.minimum(1, np.arange(1, len(wave) + 1) / (FADE * SAMPLE_RATE)).astype(np.float32)
    return wave * ramp * ramp[::-1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Make many words in many voices.")
    parser.add_argument("folder", type=Path, help="to write to")
    parser.add_argument("--list", type=Path, required=True, help="text file with a word a line")
    parser.add_argument("--corpus", type=Path, required=True, help="Speech Commands")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], help="other word folders")
    parser.add_argument(
        "--talk", type=Path, nargs="+", metavar="FOLDER", help="English running speech, recorded"
    )
    parser.add_argument("--ear", type=Path, help="folder of Whisper tiny.en")
    arguments = parser.parse_args()
    out: Path = arguments.folder
    recorded = sorted(p.name for p in arguments.corpus.iterdir() if p.is_dir() and p.name != NOISE)
    listed = arguments.list.read_text(encoding="utf-8").split()
    words = list(dict.fromkeys([*recorded, *listed]))
    home: dict[str, str] = {}  # folder of each sound
    for word, sound in sounds_of(words).items():
        home.setdefault(sound, word)
    folder_of = {word: home[sound] for word, sound in sounds_of(words).items()}
    kept = sorted(set(folder_of.values()))
    for number, word in enumerate(kept):
        print(f"\rsynthesised: {number} of {len(kept)} words", end="", file=sys.stderr)
        synthesise(word, out / word)
    print(file=sys.stderr)
    if arguments.talk and arguments.ear:
        cut_words(arguments.talk, arguments.ear, out, folder_of)
    validation = []
    for source in (arguments.corpus, *arguments.rendered):
        for path in find_audio([source]):
            word = path.parent.name
            if word == NOISE:
                continue
            name = f"{folder_of.get(word, word)}/{path.name}"
            split = hash_split(name) if source == arguments.corpus else "training"
            if split == "testing":
                continue
            link = out / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                os.symlink(path.resolve(), link)
            if split == "validation":
                validation.append(name)
    if not (out / NOISE).exists():
        os.symlink((arguments.corpus / NOISE).resolve(), out / NOISE)
    (out / "validation_list.txt").write_text("".join(f"{name}\n" for name in validation))
    (out / "testing_list.txt").write_text("")
    print(f"{len(kept)} words", file=sys.stderr)
    return 0


def cut_words(talk: list[Path], ear: Path, out: Path, folder_of: dict[str, str]) -> None:
    """Write words in talk; those that no list has and that are rare are unknown."""
    found: dict[str, list[tuple[Path, np.ndarray]]] = {}
    for word, path, wave in words_in_talk(find_audio(talk), ear):
        found.setdefault(folder_of.get(word, word), []).append((path, wave))
    for word, cuts in found.items():
        known = (out / word).is_dir() or len(cuts) >= FEWEST
        for number, (path, wave) in enumerate(cuts):
            voice = path.stem.partition("-")[0] + ("" if known else f"-{word}")
            name = f"talk-{voice}_nohash_{number}.wav"
            clip = in_a_second(faded(wave), seed(f"{word} {name}"))
            write(out / (word if known else UNKNOWN) / name, clip)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, AudioError, RuntimeError) as error:
        sys.exit(f"get_words.py: {error}")
