"""A long recording joined from the clips of a split, and what a model makes of it in one pass.

In: labelled clips, background noise, a recogniser. Out: the recording with its words and their
times; the model's posteriors at each step of it, from which follow both the answers for the clips
and the detections at any thresholds. It does not score detections.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from speechrnn.audio import from_int16
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE, SILENCE, ModelConfig
from speechrnn.corpus import Clips, progress
from speechrnn.detection import Detection, Posteriors, SlidingWindow, Trigger, join_posteriors
from speechrnn.evaluation.clips import ClipResult, MeasuredModel, in_threads, known_labels
from speechrnn.files import whole_file
from speechrnn.recogniser import PIECE_STEPS, Recogniser

GAP_SECONDS = (0.5, 3.0)  # of background before each clip
GAP_DB = (-40.0, 0.0)  # level of the background
BLOCK_STEPS = 128  # computed at once
# Recordings that run side by side: 4 take hardly longer than one, and leave work for other cores.
STREAMS = 4
FRAME_SAMPLES = 160  # 10 ms, in which the energy of a clip is measured
QUIET_DB = 25.0  # frames so much below the loudest do not belong to the word


@dataclass(frozen=True)
class Word:
    """A spoken word.

    Args:
        start: s from the beginning of the recording.
        end: likewise.
        label: the word.
        name: of its clip.
    """

    start: float
    end: float
    label: str
    name: str = ""


class Recording(Protocol):
    """What a model can be run through: `JoinedRecording`, or talk and sounds (background)."""

    @property
    def samples(self) -> int:
        """Its length."""
        ...

    @property
    def hours(self) -> float:
        """How long it is, of what counts."""
        ...

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Its blocks (size,) float32, full scale +-1; the last may be shorter."""
        ...


class JoinedRecording:
    """All clips as one recording, in a seeded order, with background noise before each.

    Each clip is in it once, and again, in other orders, until it is long enough.

    Args:
        clips: labelled clips.
        noise: (n,) int16 background; digital silence where it is shorter than the longest gap.
        hours: that it lasts at least.
        seed: of the orders and of the background's places, lengths and levels.
        gap_seconds: of background before each clip: from, and below.
    """

    def __init__(
        self,
        clips: Clips,
        noise: np.ndarray,
        hours: float = 0,
        seed: int = 0,
        gap_seconds: tuple[float, float] = GAP_SECONDS,
    ) -> None:
        random = np.random.default_rng(seed)
        shortest, longest = (round(seconds * SAMPLE_RATE) for seconds in gap_seconds)
        self.clips = clips
        self._noise = noise if len(noise) >= longest else np.zeros(longest, np.int16)
        self._gaps: list[tuple[int, int, float]] = []  # first sample, number of samples, factor
        self.order: list[int] = []
        """The clips, each as its place in `clips`."""
        self.words: list[Word] = []
        """All that are spoken, also those that a model does not know."""
        self.ends: list[int] = []
        """The sample after each clip."""
        self.samples = 0
        """Length of the recording."""
        spans = word_spans(clips.waves).tolist()
        while len(self.order) < len(clips) or self.samples < hours * 3600 * SAMPLE_RATE:
            for place in random.permutation(len(clips)).tolist():
                length = int(random.integers(shortest, longest))
                start = int(random.integers(len(self._noise) - length + 1))
                self._gaps.append((start, length, 10 ** (random.uniform(*GAP_DB) / 20)))
                self.order.append(place)
                label = clips.labels[clips.targets[place]]
                if label != SILENCE:
                    first, last = (self.samples + length + sample for sample in spans[place])
                    word = Word(first / SAMPLE_RATE, last / SAMPLE_RATE, label, clips.names[place])
                    self.words.append(word)
                self.samples += length + CLIP_SAMPLES
                self.ends.append(self.samples)

    @property
    def hours(self) -> float:
        """How long it lasts."""
        return self.samples / SAMPLE_RATE / 3600

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> np.ndarray:
        """A part (n,) float32, full scale +-1: background, and the clip after it."""
        start, length, factor = self._gaps[index]
        gap = from_int16(self._noise[start : start + length]) * np.float32(factor)
        return np.concatenate((gap, from_int16(self.clips.waves[self.order[index]])))

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The recording in blocks (size,) float32, full scale +-1; the last may be shorter."""
        waiting = np.zeros(0, np.float32)
        for index in range(len(self)):
            waiting = np.concatenate((waiting, self[index]))
            for start in range(0, len(waiting) - size + 1, size):
                yield waiting[start : start + size]
            waiting = waiting[len(waiting) // size * size :]
        if len(waiting):
            yield waiting

    def label_track(self) -> str:
        """The words as a label track of Audacity: start, end and word, a line a word."""
        return "".join(f"{word.start:.6f}\t{word.end:.6f}\t{word.label}\n" for word in self.words)

    def save(self, path: str | Path) -> None:
        """Write the recording as FLAC, and its words beside it as `.txt`."""
        path = Path(path)
        with whole_file(path) as audio, whole_file(path.with_suffix(".txt")) as track:
            with soundfile.SoundFile(audio, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
                for index in progress(range(len(self)), "writing"):
                    file.write(self[index])
            track.write_text(self.label_track(), "utf-8")


@dataclass(frozen=True)
class RecordingPosteriors:
    """What a model gives at each step of a recording, before any threshold.

    Args:
        config: of the model.
        posteriors: at each of the T steps.
        hours: length of the recording.
    """

    config: ModelConfig
    posteriors: Posteriors
    hours: float

    def detections(self, thresholds: Mapping[str, float]) -> list[Detection]:
        """The words that a `Listener` reports at these thresholds, and when it does."""
        trigger = Trigger(self.config, thresholds, piece_steps=PIECE_STEPS)
        return trigger.push(self.posteriors)


def posteriors(
    recogniser: Recogniser, recordings: Sequence[Recording]
) -> list[RecordingPosteriors]:
    """Run a model through recordings, each one stream whose state is never reset."""
    groups = _groups([recording.samples for recording in recordings])

    def run(group: list[int]) -> list[RecordingPosteriors]:
        return _run(recogniser, [recordings[place] for place in group])

    outputs: dict[int, RecordingPosteriors] = {}
    for group, results in zip(
        groups, in_threads(recogniser.runtime, run, groups, "streaming"), strict=True
    ):
        outputs |= zip(group, results, strict=True)
    return [outputs[place] for place in range(len(recordings))]


def _run(recogniser: Recogniser, recordings: Sequence[Recording]) -> list[RecordingPosteriors]:
    """Run a model through recordings side by side."""
    config = recogniser.config
    size = BLOCK_STEPS * config.step_samples
    windows = [SlidingWindow(config) for _ in recordings]
    parts: list[list[Posteriors]] = [[] for _ in recordings]
    state = None
    for row in zip_longest(*(recording.blocks(size) for recording in recordings)):
        waves = np.zeros((len(recordings), size), np.float32)
        for wave, block in zip(waves, row, strict=True):
            if block is not None:  # the recording goes on
                wave[: len(block)] = block
        logits, state = recogniser.runtime.step(waves, state)
        for stream, window, part in zip(logits, windows, parts, strict=True):
            part.append(window.push(stream))
    results = []
    for part, recording in zip(parts, recordings, strict=True):
        steps = recording.samples // config.step_samples  # others may be longer
        whole = join_posteriors(part)
        own = Posteriors(whole.probabilities[:steps], whole.start[:steps], whole.end[:steps])
        results.append(RecordingPosteriors(config, own, recording.hours))
    return results


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Places of recordings to run side by side: `STREAMS` at most, none twice as long as others."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        last = groups[-1] if groups else []
        if last and len(last) < STREAMS and 2 * lengths[place] > lengths[last[0]]:
            last.append(place)
        else:
            groups.append([place])
    return groups


def clip_answers(
    outputs: RecordingPosteriors,
    recording: JoinedRecording,
    protocol: str,
    split: str,
    model: MeasuredModel | None = None,
) -> ClipResult:
    """The answer for each clip in a stream: that of the window which ends with the clip.

    Each clip counts once: where it was spoken first.

    Args:
        outputs: of the model on `recording`.
        recording: the stream.
        protocol: for the result.
        split: for the result.
        model: for the result.

    Raises:
        ValueError: if the model does not know a label of the clips.
    """
    clips, labels = recording.clips, outputs.config.answers
    order = recording.order[: len(clips)]
    last = np.array(recording.ends[: len(clips)]) // outputs.config.step_samples - 1
    shares = outputs.posteriors.probabilities[last].astype(np.float64)
    return ClipResult(
        labels,
        tuple(clips.names[place] for place in order),
        known_labels(labels, clips)[clips.targets[order]],
        shares.argmax(1),
        shares.max(1),
        protocol,
        split,
        streamed=True,
        model=model,
    )


def word_spans(waves: np.ndarray) -> np.ndarray:
    """Where the word is in each of many clips: from the first loud frame to the last.

    Args:
        waves: (n, N) of any real type, N a multiple of `FRAME_SAMPLES`.

    Returns:
        (n, 2) int, the first sample of the word and the sample after its last; all of a clip that
        is digital zero.
    """
    energy = np.stack([_energy(wave) for wave in waves])
    loud = energy > energy.max(1, keepdims=True) * 10 ** (-QUIET_DB / 10)
    first, last = loud.argmax(1), loud.shape[1] - loud[:, ::-1].argmax(1)
    return np.stack((first, last), 1) * FRAME_SAMPLES


def _energy(wave: np.ndarray) -> np.ndarray:
    """Of each frame of a wave (N,)."""
    frames = wave.reshape(-1, FRAME_SAMPLES).astype(np.float32)
    energy: np.ndarray = np.einsum("tn,tn->t", frames, frames)
    return energy
