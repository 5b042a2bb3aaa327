"""Finds the words that are said one after another, for examples of a word: by their energy alone.

In: blocks of float32 (n,) mono at 16 kHz, however they are cut. Out: a `Take` for each word, the
second around it, and what is wrong with it. What is remembered has a fixed size. It does not know
files, models, or which word was said.

Source: two levels above the background, a high one to be sure and a low one for the edges, are of
Rabiner and Sambur 1975 (An algorithm for determining the endpoints of isolated utterances); the
background as a low quantile of the last seconds is of Stahl, Fischer and Bippus 2000 (Quantile
based noise estimation). The values are chosen on clips of Speech Commands, joined with background.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from speechrnn.audio import as_wave
from speechrnn.config import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE

FRAME = 160  # samples of which a level is measured: 10 ms
FRAME_SECONDS = FRAME / SAMPLE_RATE
PRE_EMPHASIS = 0.97  # x[n] - 0.97 x[n-1]: no hum, no offset, and an s as loud as a vowel
FIRST_SECONDS = 1.0  # heard before a word is looked for, also in them
BACKGROUND_SECONDS = 3.0  # that are looked back on for the background
BACKGROUND_QUANTILE = 0.2  # of the levels in them: at most four fifths are speech
MEASURE_FRAMES = 10  # between two measurements of the background
LOWEST_DB = -80.0  # of the background: below the rounding of 16 bits lies digital silence
CORE_DB = 10.0  # above the background is speech for sure
EDGE_DB = 5.0  # above it are the edges of a word, next to what is speech for sure,
PEAK_DB = 30.0  # unless they lie so far below its loudest frame (3 % of it, same source)
GAP_SECONDS = 0.12  # inside a word's edge: the closure of a stop
PAUSE_SECONDS = 0.5  # ends a word; half a clip, so that no clip reaches into a neighbour
CLICK_FRAMES = 4  # sounds of fewer are none
MARGIN_SECONDS = 0.05  # of quiet that must be on either side
LONGEST_SECONDS = CLIP_SECONDS  # of a word: what a model looks at
ENDLESS_SECONDS = 2.0  # of sound without a pause are told without awaiting its end
QUIETEST_DB = -50.0  # of full scale, RMS: below it 16 bits and the microphone's own noise count
CLEAR_DB = 12.0  # of a word above the background, RMS
FULL_SCALE = 0.99  # and beyond: a sample that may be cut off
FULL_SAMPLES = 4  # of them, for a word to be clipped: one may be its peak


@dataclass(frozen=True, eq=False)
class Take:
    """A word that was said.

    Args:
        wave: (n,) float32 around the word: a second, more where the word needs it, less where the
            recording begins or ends; empty where the word is too long to be kept.
        start: of the word, s from the beginning of the recording.
        end: likewise.
        level: of the word, dB of full scale, RMS.
        above: the same above the background, both without low tones.
        fault: why it is no good example and what to do, in a line; empty if it is one.
    """

    wave: np.ndarray
    start: float
    end: float
    level: float
    above: float
    fault: str


class WordFinder:
    """Finds one word after another in a recording as it comes.

    The background is measured in the last three seconds, so words need pauses between them. No word
    is reported before the first second is over.
    """

    def __init__(self) -> None:
        self.background = LOWEST_DB  # its level, dB of full scale, RMS
        self._rest = np.zeros(0, np.float32)  # of a frame that is not complete
        self._sample = np.float32(0)  # the one before the next frame
        # The last frames, and in a word all of its frames: samples, and levels in dB.
        self._frames: list[np.ndarray] = []
        self._levels: list[float] = []
        self._first = 0  # number of the first of them
        # Of the last seconds, also of what is not kept: levels without low tones, and with them.
        self._recent: deque[float] = deque(maxlen=_frames(BACKGROUND_SECONDS))
        self._recent_loudness: deque[float] = deque(maxlen=_frames(BACKGROUND_SECONDS))
        self._floor = LOWEST_DB  # the background without low tones, dB
        self._core: list[int] = []  # frames that are speech for sure, of the word that is said
        self._told = False  # that it is too long

    @property
    def seconds(self) -> float:
        """How much was heard."""
        return (self._first + len(self._frames)) * FRAME_SECONDS

    @property
    def ready(self) -> bool:
        """Whether the background is measured."""
        return self.seconds >= FIRST_SECONDS

    def push(self, block: np.ndarray) -> list[Take]:
        """The words that are over with this block.

        Args:
            block: (n,) float at 16 kHz, full scale +-1, of any length.

        Raises:
            ValueError: if it is something else.
        """
        wave = np.concatenate((self._rest, as_wave(block)))
        whole = len(wave) - len(wave) % FRAME
        self._rest = wave[whole:]
        takes = []
        for frame in wave[:whole].reshape(-1, FRAME):
            takes += self._hear(frame)
        return takes

    def finish(self) -> list[Take]:
        """The last word, where the recording ends with less than a pause behind it."""
        takes = [] if self.ready else self._decide_all()
        if self._core and not self._told:
            takes += self._cut(is_end=True)
        self._core = []
        return takes

    def _hear(self, frame: np.ndarray) -> list[Take]:
        was_ready = self.ready
        emphasised = frame - PRE_EMPHASIS * np.concatenate(([self._sample], frame[:-1]))
        self._sample = frame[-1]
        self._frames.append(frame)
        self._levels.append(_level(emphasised))
        self._recent.append(self._levels[-1])
        self._recent_loudness.append(_level(frame))
        if was_ready:
            return self._decide(self._first + len(self._frames) - 1)
        return self._decide_all() if self.ready else []

    def _decide_all(self) -> list[Take]:
        takes = []
        for number in range(len(self._frames)):
            takes += self._decide(number)
        return takes

    def _decide(self, number: int) -> list[Take]:
        """What this frame, the last that is looked at, begins, continues or ends."""
        begun = (number - self._core[0]) * FRAME_SECONDS if self._core else 0
        is_inside = self._core and begun <= LONGEST_SECONDS + PAUSE_SECONDS
        if number % MEASURE_FRAMES == 0 and not is_inside:
            # Not inside a word, which would lift it; but a noise that stays becomes background.
            self._floor = max(LOWEST_DB, _quantile(self._recent))
            self.background = _quantile(self._recent_loudness)
        takes: list[Take] = []
        if self._levels[number - self._first] >= self._floor + CORE_DB:
            self._core.append(number)
        elif self._core and (number - self._core[-1]) * FRAME_SECONDS >= PAUSE_SECONDS:
            takes = [] if self._told else self._cut()
            self._core, self._told = [], False
        if self._core and begun >= ENDLESS_SECONDS:
            takes = [] if self._told else [self._endless()]
            self._told = True
            self._core = [self._core[0], self._core[-1]]
        if self.ready and (not self._core or self._told):
            spare = len(self._frames) - _frames(2 * PAUSE_SECONDS + FIRST_SECONDS)
            if spare > 0:
                del self._frames[:spare], self._levels[:spare]
                self._first += spare
        return takes

    def _endless(self) -> Take:
        start = self._core[0] * FRAME_SECONDS
        fault = (
            f"no pause in {ENDLESS_SECONDS:g} s: say the word alone and then nothing; if nobody "
            "speaks, turn off what is heard"
        )
        nothing = np.zeros(0, np.float32)
        return Take(nothing, start, start + ENDLESS_SECONDS, 0.0, 0.0, fault)

    def _cut(self, is_end: bool = False) -> list[Take]:
        """The word around the core frames; none if it was a click."""
        core = self._without_clicks()
        if len(core) < CLICK_FRAMES:
            return []
        levels = np.array(self._levels)
        last = len(levels) if is_end else core[-1] + 1 + _frames(PAUSE_SECONDS)
        edge = max(self._floor + EDGE_DB, levels[core[0] : core[-1] + 1].max() - PEAK_DB)
        # Frames of the edges: as far as they go on without a gap, within a pause on either side.
        loud = np.flatnonzero(levels[:last] >= edge)
        start = _reach(core[0], loud[loud < core[0]][::-1])
        end = _reach(core[-1], loud[loud > core[-1]]) + 1

        wave = np.concatenate(self._frames)
        word = wave[start * FRAME : end * FRAME]
        level = _level(word)
        above = _mean_db(levels[start:end]) - self._floor
        seconds = (end - start) * FRAME_SECONDS
        first = self._first * FRAME_SECONDS
        fault = _fault(
            seconds,
            level,
            above,
            int((np.abs(word) >= FULL_SCALE).sum()),
            self._first + start < _frames(MARGIN_SECONDS),
            is_end and len(levels) - end < _frames(MARGIN_SECONDS),
        )
        begin, stop = _clip(start * FRAME, end * FRAME, min(len(wave), last * FRAME))
        return [
            Take(
                wave[begin:stop].copy(),
                first + start * FRAME_SECONDS,
                first + end * FRAME_SECONDS,
                level,
                above,
                fault,
            )
        ]

    def _without_clicks(self) -> list[int]:
        """The core frames, as places in what is kept, without clicks that came before the word."""
        core = [number - self._first for number in self._core]
        gaps = [
            place
            for place in range(1, min(CLICK_FRAMES, len(core)))
            if core[place] - core[place - 1] > _frames(GAP_SECONDS)
        ]
        return core[gaps[-1] :] if gaps else core


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def _level(samples: np.ndarray) -> float:
    """RMS, dB of full scale."""
    return 10 * float(np.log10(np.square(samples, dtype=np.float64).mean() + 1e-10))


def _mean_db(levels: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(10 ** (levels / 10))))


def _quantile(levels: deque[float]) -> float:
    return sorted(levels)[int(BACKGROUND_QUANTILE * len(levels))]


def _reach(place: int, loud: np.ndarray) -> int:
    """The last of the places next to `place`, nearest first, without a gap between them."""
    for other in loud.tolist():
        if abs(other - place) > _frames(GAP_SECONDS):
            break
        place = other
    return place


def _clip(start: int, end: int, samples: int) -> tuple[int, int]:
    """Where to cut, for a second with the word in its middle.

    Less where there are no samples, and no more than a pause before the word, where another may be.
    """
    margin, pause = round(MARGIN_SECONDS * SAMPLE_RATE), round(PAUSE_SECONDS * SAMPLE_RATE)
    spare = max(2 * margin, CLIP_SAMPLES - (end - start))
    stop = min(samples, end + spare // 2)
    begin = max(0, start - pause, min(start - margin, stop - (end - start) - spare))
    return begin, min(samples, max(stop, begin + CLIP_SAMPLES))


def _fault(
    seconds: float, level: float, above: float, full: int, begins_cut: bool, ends_cut: bool
) -> str:
    if begins_cut:
        return "cut off at its beginning: wait a moment before you speak"
    if ends_cut:
        return "cut off at its end: let the recording go on for a moment after the word"
    if full >= FULL_SAMPLES:
        return (
            f"clipped: {full} samples at full scale: go farther from the microphone, or turn it "
            "down"
        )
    if seconds > LONGEST_SECONDS:
        return (
            f"too long: {seconds:.2f} s, a model hears {LONGEST_SECONDS:g} s: say the word alone "
            "and faster, or choose a shorter one"
        )
    if level < QUIETEST_DB:
        return (
            f"too quiet: {math.floor(level)} dB of full scale, expected {QUIETEST_DB:.0f} or more: "
            "come nearer to the microphone, or turn it up"
        )
    if above < CLEAR_DB:
        return (
            f"too quiet: {math.floor(above)} dB above the background, expected {CLEAR_DB:.0f} or "
            "more: come nearer to the microphone, or make it quieter around you"
        )
    return ""
