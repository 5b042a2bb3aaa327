"""Play made-up music, single notes and effects on General MIDI soundfonts from Debian.

Usage:
    python recipes/make_music.py FOLDER             # 230 MB to download; 3 h and 0.75 h of music
    python recipes/make_music.py FOLDER --minutes 60

It writes `FOLDER/training/<package>/<kind>-<number>.flac` and `FOLDER/validation/...`: FLAC, mono,
16 kHz, 20 to 60 s each, with the soundfont's `copyright` file, and `FOLDER/sounds.tsv` with the
columns of `get_sounds.py`. It needs `apt-get`, `dpkg-deb`, `fluidsynth` and the packages `mido`,
`numpy`, `soundfile` and `soxr`. Soundfonts are unpacked in a temporary folder, none is installed.

What is played is a function of the package, the kind and the number; a stopped run goes on with
the first recording that is not there. A soundfont belongs to one split, so no sample of an
instrument is in both. The script does not know features or models, and nothing of composing:
melodies walk at random through scales.
"""

import argparse
import hashlib
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import soundfile
import soxr
from debian import copy_licence, join_tables, run, unpacked, write_table
from get_sounds import COLUMNS, SAMPLE_RATE, SILENT_PEAK

SEED = "speechrnn music 1"
TRAINING_MINUTES = 180.0
VALIDATION_PART = 0.25
SHORTEST_SECONDS, LONGEST_SECONDS = 20, 60
LOWEST_PEAK_DB = -40.0
# fluidsynth has no filter against aliases. At 32 kHz what samples hold up to 24 kHz folds to above
# 8 kHz, and the resampler takes that away.
RENDER_RATE = 32_000
GAIN = 0.3  # no limit to fluidsynth's floats: the peak is set afterwards
TICKS = 960  # a second: 480 a beat at 120 beats a minute, what MIDI takes where nothing is said
BEND_SEMITONES = 12
DRUMS = 9  # the channel that is General MIDI's tenth


class Soundfont(NamedTuple):
    """A General MIDI soundfont of Debian.

    Args:
        package: its package.
        split: `training` or `validation`.
        share: of the split's minutes.
        licence: of the soundfont, as the package's copyright file says.
        path: in the package.
    """

    package: str
    split: str
    share: float
    licence: str
    path: str


# No sample of TimGM6mb is in the other two (compared byte by byte). Of `csound-soundfont` 301 of
# 456 samples are TimGM6mb's, and the MuseScore soundfonts hold much of FluidR3.
SOUNDFONTS = [
    Soundfont(
        "fluid-soundfont-gm", "training", 0.8, "Expat", "usr/share/sounds/sf2/FluidR3_GM.sf2"
    ),
    Soundfont(
        "opl3-soundfont", "training", 0.2, "CC-BY-SA-4.0", "usr/share/sounds/sf2/OPL-3_FM_128M.sf2"
    ),
    Soundfont(
        "timgm6mb-soundfont", "validation", 1.0, "GPL-2", "usr/share/sounds/sf2/TimGM6mb.sf2"
    ),
]

# Programs count from 0 here, from 1 in General MIDI's table. Source: General MIDI 1 sound set.
VOICES = (52, 53, 54, 85, 91)  # choir aahs, voice oohs, synth voice, voice lead, choir pad
EFFECTS = tuple(range(120, 128))  # fret noise, breath, seashore, bird, telephone, helicopter, ...
STRUCK = tuple(range(112, 120))  # bell, agogo, steel drums, woodblock, taiko, toms, cymbal
BASSES = tuple(range(32, 40))
INSTRUMENTS = tuple(range(112))
# As often as four others: what is sung comes nearest to words.
WEIGHTED = INSTRUMENTS + VOICES * 3
KITS = (0, 8, 16, 24, 25, 32, 40, 48)  # Roland's GS: standard, room, power, electronic, TR-808, ...
DRUM_KEYS = range(35, 82)
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH, TOMS = 36, 38, 42, 46, 49, (41, 45, 47, 50)
# Lowest and highest key of each family of eight programs: about what its instruments can play.
RANGES = (
    (28, 100), (48, 100), (36, 96), (40, 84), (28, 60), (36, 90), (36, 84), (40, 84),
    (44, 88), (55, 98), (36, 90), (36, 84), (36, 84), (40, 84), (40, 84), (36, 84),
)  # fmt: skip
VOICE_RANGE = (43, 81)
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11), "dorian": (0, 2, 3, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9), "blues": (0, 3, 5, 6, 7, 10), "whole tone": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}  # fmt: skip


class Score:
    """Events to be played: `add` takes a message and its time in seconds, in any order."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.events: list[tuple[float, mido.Message]] = []

    def add(self, time: float, kind: str, channel: int = 0, **values: int) -> None:
        self.events.append((time, mido.Message(kind, channel=channel, **values)))

    def note(self, start: float, length: float, key: int, velocity: int, channel: int = 0) -> None:
        """A note, cut off at the end of the score, and none that would begin after it."""
        if start < self.seconds:
            end = min(start + length, self.seconds)
            self.add(start, "note_on", channel, note=key, velocity=velocity)
            self.add(end, "note_off", channel, note=key)

    def program(self, time: float, program: int, channel: int = 0) -> None:
        self.add(time, "program_change", channel, program=program)

    def bend(self, start: float, length: float, semitones: list[float], channel: int = 0) -> None:
        """Glide through evenly spaced points in `length` seconds; the last one stays."""
        steps = max(2, math.ceil(length / 0.02))
        at = np.linspace(0, len(semitones) - 1, steps)
        curve = np.interp(at, np.arange(len(semitones)), semitones) / BEND_SEMITONES * 8191
        for number, value in enumerate(curve):
            self.add(start + number / steps * length, "pitchwheel", channel, pitch=round(value))

    def swell(self, start: float, length: float, levels: list[float], channel: int = 0) -> None:
        """Loudness through evenly spaced points, 0 to 1, in `length` seconds; the last one stays.

        General MIDI's expression: 40 log10 of it are decibels.
        """
        steps = max(2, math.ceil(length / 0.02))
        at = np.linspace(0, len(levels) - 1, steps)
        curve = np.interp(at, np.arange(len(levels)), levels) * 127
        for number, value in enumerate(curve):
            time = start + number / steps * length
            self.add(time, "control_change", channel, control=11, value=round(value))

    def midi(self) -> mido.MidiFile:
        """The score as a MIDI file of one track that ends with the score."""
        track = mido.MidiTrack()
        # Twelve semitones for the pitch wheel: registered parameter 0, its value in data entry.
        channels = sorted({message.channel for _, message in self.events} - {DRUMS})
        for channel, (control, value) in itertools.product(
            channels, [(101, 0), (100, 0), (6, BEND_SEMITONES), (38, 0)]
        ):
            track.append(
                mido.Message("control_change", channel=channel, control=control, value=value)
            )
        # A note ends before its key is struck again; `sorted` keeps the order of the rest.
        last = round(self.seconds * TICKS)
        events = [(round(time * TICKS), message) for time, message in self.events]
        events = [event for event in events if event[0] <= last]
        before = 0
        for tick, message in sorted(events, key=lambda event: (event[0], _rank(event[1]))):
            track.append(message.copy(time=tick - before))
            before = tick
        track.append(mido.MetaMessage("end_of_track", time=last - before))
        return mido.MidiFile(type=0, ticks_per_beat=TICKS // 2, tracks=[track])


def _rank(message: mido.Message) -> int:
    """Place of a message among those of one tick."""
    return {"note_off": 0, "note_on": 2}.get(message.type, 1)


def random_generator(name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{SEED}: {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def between(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, evenly in its logarithm: for lengths and gaps."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def any_of(random: np.random.Generator, choices: tuple[int, ...]) -> int:
    return int(choices[random.integers(len(choices))])


def key_range(program: int) -> tuple[int, int]:
    return VOICE_RANGE if program in VOICES else RANGES[program // 8]


def any_key(random: np.random.Generator, program: int) -> int:
    low, high = key_range(program)
    return int(random.integers(low, high + 1))


def any_velocity(random: np.random.Generator) -> int:
    return int(random.integers(40, 128))


def in_turn(package: str, kind: str, number: int, programs: tuple[int, ...], count: int) -> list:
    """The `count` programs of a recording: all take turns, in an order of the package's own."""
    order = random_generator(f"{package}, {kind}").permutation(programs)
    return [int(order[(number * count + place) % len(order)]) for place in range(count)]


def slots(score: Score, programs: list[int]) -> Iterator[tuple[float, float, int]]:
    """Start and end of the part of each program, one after the other, and the program."""
    length = score.seconds / len(programs)
    for place, program in enumerate(programs):
        yield place * length, (place + 1) * length, program


def glide_of(random: np.random.Generator) -> list[float]:
    """Two to four pitches in semitones, as an inflection of speech: seldom more than an octave."""
    return [
        float(value) for value in np.clip(random.normal(0, 3.5, random.integers(2, 5)), -12, 12)
    ]


# Each kind of recording: (score, random, package, number) fills the score.


def notes(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """Single notes of six instruments over their ranges, short and long, with quiet between."""
    for start, end, program in slots(score, in_turn(package, "notes", number, WEIGHTED, 6)):
        score.program(start, program)
        time = start + between(random, 0.2, 1.0)
        while time < end - 0.3:
            length = between(random, 0.08, 3.0)
            score.bend(time - 0.01, 0.01, [0.0, 0.0])
            if random.random() < 0.2:
                score.bend(time, length, glide_of(random))
            score.note(time, length, any_key(random, program), any_velocity(random))
            time += length + between(random, 0.3, 2.0)


def effects(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """Effects, struck things and single drums at many pitches, with quiet between."""
    choices = EFFECTS * 2 + STRUCK + (None,) * 8  # None: the drums
    order = random_generator(f"{package}, effects").permutation(len(choices))
    for start, end, place in slots(score, [int(order[(6 * number + i) % 32]) for i in range(6)]):
        program = choices[place]
        if program is None:
            score.program(start, any_of(random, KITS), DRUMS)
        else:
            score.program(start, program)
        time = start + between(random, 0.2, 1.0)
        while time < end - 0.3:
            length = between(random, 0.1, 5.0 if program in EFFECTS else 1.0)
            if program is None:
                key = any_of(random, tuple(DRUM_KEYS))
                score.note(time, length, key, any_velocity(random), DRUMS)
            else:
                score.note(time, length, any_key(random, program), any_velocity(random))
            time += length + between(random, 0.3, 2.0)


def voices(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """Sung vowels: single ones and short phrases that glide and swell as speech does."""
    for start, end, program in slots(score, in_turn(package, "voices", number, VOICES, 3)):
        score.program(start, program)
        time = start + between(random, 0.2, 1.0)
        while time < end - 0.3:
            key = any_key(random, program)
            for _ in range(any_of(random, (1, 1, 1, 2, 3))):
                length = between(random, 0.12, 2.0)
                points = glide_of(random) if random.random() < 0.6 else [0.0, 0.0]
                score.bend(time, length, points)
                levels = [1.0, 1.0]
                if random.random() < 0.5:
                    levels = [float(level) for level in random.uniform(0.2, 1, 3)]
                score.swell(time, length, levels)
                score.note(time, length, key, any_velocity(random))
                time += length + between(random, 0.02, 0.15)
                low, high = key_range(program)
                key = int(np.clip(key + random.integers(-5, 6), low, high))
            time += between(random, 0.2, 1.5)


def scale_keys(random: np.random.Generator, low: int, high: int) -> list[int]:
    """All keys of a scale at random between two keys."""
    scale = list(SCALES.values())[random.integers(len(SCALES))]
    root = random.integers(12)
    return [key for key in range(low, high + 1) if (key - root) % 12 in scale]


def play_melody(
    score: Score, random: np.random.Generator, keys: list[int], beat: float, channel: int = 0
) -> None:
    """A walk through the keys, from the beginning to the end of the score."""
    place = int(random.integers(len(keys)))
    legato = random.uniform(0.3, 1.05)
    time = 0.0
    while time < score.seconds:
        length = beat * float(random.choice([0.25, 0.5, 0.5, 1, 1, 1.5, 2, 4]))
        if random.random() > 0.15:
            score.bend(time, min(length, 0.1), [float(random.normal(0, 2)), 0.0]
                       if random.random() < 0.1 else [0.0, 0.0], channel)  # fmt: skip
            score.note(time, length * legato, keys[place], any_velocity(random), channel)
        place = int(np.clip(place + random.integers(-3, 4), 0, len(keys) - 1))
        time += length


def draw_chord(random: np.random.Generator, keys: list[int]) -> list[int]:
    """Three or four keys of a scale, with one left out between any two."""
    count = min(int(random.integers(3, 5)), (len(keys) + 1) // 2)
    first = int(random.integers(max(1, len(keys) - 2 * count)))
    return keys[first : first + 2 * count : 2]


def play_chords(
    score: Score, random: np.random.Generator, keys: list[int], beat: float, channel: int = 0
) -> None:
    spread = random.choice([0.0, 0.01, 0.04])
    gap = random.choice([0.0, 0.0, 1.0, 2.0])
    time = 0.0
    while time < score.seconds:
        length = beat * float(random.choice([1, 2, 2, 4]))
        velocity = any_velocity(random)
        for place, key in enumerate(draw_chord(random, keys)):
            score.note(time + place * spread, length * 0.95, key, velocity, channel)
        time += length + gap * beat


def melodies(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """One instrument plays a melody, sometimes two."""
    programs = in_turn(package, "melodies", number, WEIGHTED, 2)
    beat = 60 / between(random, 50, 180)
    for channel, program in enumerate(programs[: 1 + (number % 3 == 0)]):
        score.program(0, program, channel)
        play_melody(score, random, scale_keys(random, *key_range(program)), beat, channel)


def chords(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """One instrument plays chords, with or without rests."""
    (program,) = in_turn(package, "chords", number, WEIGHTED, 1)
    score.program(0, program)
    keys = scale_keys(random, *key_range(program))
    play_chords(score, random, keys, 60 / between(random, 40, 140))


def arpeggios(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """One instrument plays broken chords, up, down or in any order."""
    (program,) = in_turn(package, "arpeggios", number, WEIGHTED, 1)
    score.program(0, program)
    keys = scale_keys(random, *key_range(program))
    step = 60 / between(random, 50, 150) / any_of(random, (1, 2, 3, 4))
    order = random.choice(["up", "down", "any"])
    held = random.uniform(0.4, 2.0)
    time = 0.0
    while time < score.seconds:
        chord = draw_chord(random, keys)
        chord += [key + 12 for key in chord if key + 12 <= 108]
        for _ in range(any_of(random, (1, 2, 4))):
            played = {"up": chord, "down": chord[::-1], "any": list(random.permutation(chord))}
            for key in played[order]:
                score.note(time, step * held, int(key), any_velocity(random))
                time += step


def play_drums(score: Score, random: np.random.Generator, beat: float) -> None:
    """Bars of sixteen steps, the same pattern for four bars, with a fill in the last."""
    score.program(0, any_of(random, KITS), DRUMS)
    step = beat / 4
    time = 0.0
    for bar in itertools.count():
        if time >= score.seconds:
            return
        if bar % 4 == 0:
            chance = np.array([[0.8, 0.1, 0.3, 0.1], [0.1, 0.05, 0.1, 0.1], [0.8, 0.3, 0.7, 0.3],
                               [0.05, 0.02, 0.2, 0.02], [0.1, 0.1, 0.1, 0.1]])  # fmt: skip
            pattern = random.random((5, 16)) < np.tile(chance, 4)
            pattern[1, [4, 12]] = True
            extra = any_of(random, tuple(DRUM_KEYS))
        for place in range(16):
            for line, key in enumerate((KICK, SNARE, CLOSED_HAT, OPEN_HAT, extra)):
                if pattern[line, place]:
                    score.note(time, step, key, any_velocity(random), DRUMS)
            if bar % 4 == 3 and place >= 12:
                score.note(time, step, any_of(random, TOMS), any_velocity(random), DRUMS)
            time += step
        if bar % 4 == 3:
            score.note(time, step, CRASH, any_velocity(random), DRUMS)


def drums(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """A drum kit alone."""
    play_drums(score, random, 60 / between(random, 60, 180))


def bands(score: Score, random: np.random.Generator, package: str, number: int) -> None:
    """A melody, chords and a bass in one scale, mostly with drums."""
    lead, second = in_turn(package, "bands", number, WEIGHTED, 2)
    beat = 60 / between(random, 60, 160)
    keys = scale_keys(random, 28, 96)
    for channel, program in enumerate((lead, second, any_of(random, BASSES))):
        low, high = key_range(program)
        own = [key for key in keys if low <= key <= high]
        score.program(0, program, channel)
        score.add(0, "control_change", channel, control=7, value=int(random.integers(60, 128)))
        play = play_chords if channel == 1 else play_melody
        play(score, random, own, beat * (2 if channel == 2 else 1), channel)
    if random.random() < 0.75:
        play_drums(score, random, beat)


KINDS: dict[str, Callable[[Score, np.random.Generator, str, int], None]] = {
    kind.__name__: kind
    for kind in (notes, effects, voices, melodies, chords, arpeggios, drums, bands)
}
# How many of ten recordings; notes, effects and voices have quiet around each sound.
TURNS = ("notes", "melodies", "voices", "arpeggios", "effects", "bands", "notes", "chords",
         "voices", "drums")  # fmt: skip


class Recording(NamedTuple):
    """What is played, and how: the peak in decibels of full scale, and reverberation or none."""

    score: Score
    peak_db: float
    reverb: bool


def compose(package: str, kind: str, number: int) -> Recording:
    """A recording of one kind; the same for the same package, kind and number."""
    random = random_generator(f"{package}, {kind}, {number}")
    score = Score(float(random.integers(SHORTEST_SECONDS, LONGEST_SECONDS + 1)))
    peak_db = random.uniform(LOWEST_PEAK_DB, 0)
    reverb = bool(random.random() < 0.5)
    KINDS[kind](score, random, package, number)
    return Recording(score, peak_db, reverb)


def recordings_of(soundfont: Soundfont, minutes: float) -> list[tuple[str, int]]:
    """Kind and number of each recording of a soundfont: its share of so many training minutes."""
    part = 1.0 if soundfont.split == "training" else VALIDATION_PART
    average = (SHORTEST_SECONDS + LONGEST_SECONDS) / 2
    count = max(1, round(minutes * 60 * part * soundfont.share / average))
    counted: dict[str, int] = dict.fromkeys(KINDS, 0)
    recordings = []
    for place in range(count):
        kind = TURNS[place % len(TURNS)]
        recordings.append((kind, counted[kind]))
        counted[kind] += 1
    return recordings


def render(midi: Path, soundfont: Path, reverb: bool) -> np.ndarray:
    """Play a MIDI file: float64 (N,) at 16 kHz, mono, as loud as it comes.

    Raises:
        RuntimeError: fluidsynth failed; the message is what it wrote last.
    """
    wave_file = midi.with_suffix(".wav")
    switch = "1" if reverb else "0"
    command = ["fluidsynth", "-n", "-i", "-q", "-f", os.devnull, "-T", "wav", "-O", "float"]
    command += ["-r", str(RENDER_RATE), "-g", str(GAIN), "-R", switch, "-C", switch]
    command += ["-o", "synth.dynamic-sample-loading=1"]  # of 148 MB, what is played
    command += ["-F", str(wave_file), str(soundfont), str(midi)]
    said = run(command)
    if not wave_file.is_file():
        raise RuntimeError(f"fluidsynth failed: {said.strip() or 'it wrote nothing'}")
    samples, rate = soundfile.read(wave_file, always_2d=True)
    wave_file.unlink()
    return soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)


def finish(wave: np.ndarray, seconds: float, peak_db: float) -> np.ndarray:
    """The wave at its length and its peak.

    Raises:
        RuntimeError: there is nothing to hear in it.
    """
    samples = round(seconds * SAMPLE_RATE)
    wave = np.pad(wave[:samples], (0, max(0, samples - len(wave))))
    peak = np.abs(wave).max()
    if not peak > SILENT_PEAK:
        raise RuntimeError(f"silent: its peak is {peak:g}, more than {SILENT_PEAK:g} was expected")
    return wave / peak * 10 ** (peak_db / 20)


def play(soundfont: Soundfont, path: Path, kind: str, number: int, target: Path) -> None:
    """Write one recording, beside its place and then in it."""
    score, peak_db, reverb = compose(soundfont.package, kind, number)
    with tempfile.TemporaryDirectory() as name:
        midi = Path(name) / "score.mid"
        score.midi().save(midi)
        wave = finish(render(midi, path, reverb), score.seconds, peak_db)
    unfinished = target.with_name(f".{target.name}.unfinished")
    soundfile.write(unfinished, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(unfinished, target)


def play_soundfont(soundfont: Soundfont, folder: Path, minutes: float) -> int:
    """Write what is missing of a soundfont's recordings and its table; returns how many.

    Raises:
        RuntimeError: apt has no such package, the network is down, or fluidsynth failed.
    """
    home = folder / soundfont.split / soundfont.package
    names = {f"{kind}-{number:03d}.flac": (kind, number)
             for kind, number in recordings_of(soundfont, minutes)}  # fmt: skip
    missing = [name for name in names if not (home / name).is_file()]
    if not missing and (home / "sounds.tsv").is_file():
        return 0
    home.mkdir(parents=True, exist_ok=True)
    with unpacked((soundfont.package,)) as (contents, version):
        copy_licence(contents, soundfont.package, home)
        for done, name in enumerate(missing, 1):
            try:
                play(soundfont, contents / soundfont.path, *names[name], home / name)
            except RuntimeError as error:
                raise RuntimeError(f"{name}: {error}") from error
            if done % 20 == 0:
                print(f"  {done} of {len(missing)}", file=sys.stderr)
    rows = []
    for path in sorted(home.glob("*.flac")):
        kind = path.stem.split("-")[0]
        rows.append(
            (soundfont.split, path.relative_to(folder).as_posix(), soundfont.package, version, kind,
             soundfont.licence, f"{soundfile.info(path).duration:.2f}")
        )  # fmt: skip
    write_table(home / "sounds.tsv", COLUMNS, rows)
    return len(missing)


def main() -> int:
    parser = argparse.ArgumentParser(description="Play made-up music on soundfonts from Debian.")
    parser.add_argument("folder", type=Path, help="where the recordings are written")
    parser.add_argument(
        "--minutes",
        type=float,
        default=TRAINING_MINUTES,
        help="of training music; validation gets a quarter as much (default: %(default)g)",
    )
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error(f"--minutes is {arguments.minutes:g}: give a positive number")
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("fluidsynth", "fluidsynth")):
        if shutil.which(tool) is None:
            print(
                f"{parser.prog}: {tool} is not installed: this needs Debian or a child of it, and "
                f"`apt-get install {package}`",
                file=sys.stderr,
            )
            return 1
    failed = 0
    for number, soundfont in enumerate(SOUNDFONTS, 1):
        prefix = f"{number}/{len(SOUNDFONTS)} {soundfont.package}"
        print(f"{prefix}: begun", file=sys.stderr)
        try:
            made = play_soundfont(soundfont, arguments.folder, arguments.minutes)
            print(f"{prefix}: {made} new recordings", file=sys.stderr)
        except (RuntimeError, OSError) as error:
            failed += 1
            print(f"{prefix}: skipped: {error}", file=sys.stderr)
    rows = join_tables(arguments.folder, "sounds.tsv", COLUMNS)
    for split in ("training", "validation"):
        hours = sum(float(row[6]) for row in rows if row[0] == split) / 3600
        print(f"{split}: {hours:.2f} h", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
