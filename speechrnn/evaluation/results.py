"""Everything that is measured of a model on a split, as plain data; and its stream, run once.

In: a recogniser, clips, noises. Out: a `StreamResult`; a `ModelResult` holds it beside the others.
It knows no files, texts or pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechrnn.corpus import Clips, join_noises
from speechrnn.evaluation.background import BackgroundResult
from speechrnn.evaluation.clips import ClipResult, MeasuredModel
from speechrnn.evaluation.recordings import JoinedRecording, clip_answers, posteriors
from speechrnn.evaluation.spotting import (
    ALL,
    Score,
    SpottingResult,
    evaluate_spotting,
    false_alarms_per_hour,
    recordings_without_words,
    score,
)
from speechrnn.recogniser import Recogniser

HOURS = 2.0  # the least that a joined recording lasts: half a false alarm an hour is one
CLOSE_SECONDS = (0.3, 0.301)  # of background between clips that follow each other fast


@dataclass(frozen=True)
class StreamResult:
    """A split as one recording.

    Args:
        clips: the answers for its clips.
        spotting: its words, found by thresholds.
        close: all words of the recording whose clips follow each other fast.
        false_alarms_alone: an hour, where no word of the model is spoken, by the kind of sound.
    """

    clips: ClipResult
    spotting: SpottingResult
    close: Score
    false_alarms_alone: dict[str, float]


@dataclass(frozen=True)
class ModelResult:
    """What was measured of a model.

    Args:
        clips: its answers, each clip alone.
        stream: all clips in one stream, if that was asked for.
        conditions: share of right answers by condition, if that was asked for.
        talk: false alarms in running speech, if that was asked for.
        sounds: false alarms in other sounds, if that was asked for.
    """

    clips: ClipResult
    stream: StreamResult | None = None
    conditions: dict[str, float] | None = None
    talk: BackgroundResult | None = None
    sounds: BackgroundResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        numbers = self.clips.to_dict()
        if self.stream:
            numbers["stream"] = self.stream.clips.to_dict()
            numbers["events"] = self.stream.spotting.to_dict()
            numbers["close_words"] = self.stream.close.to_dict()
            numbers["false_alarms_alone"] = self.stream.false_alarms_alone
        if self.conditions is not None:
            numbers["conditions"] = self.conditions
        for name, result in (("talk", self.talk), ("sounds", self.sounds)):
            if result:
                numbers[name] = result.to_dict()
        return numbers


@dataclass(frozen=True)
class Streams:
    """The recordings on which models are measured as on streams.

    Args:
        recording: all clips of a split joined.
        close: the same, each once, `CLOSE_SECONDS` apart.
        without_words: recordings in which no word of a model is spoken, by their names.
    """

    recording: JoinedRecording
    close: JoinedRecording
    without_words: dict[str, JoinedRecording]


def join_split(clips: Clips, noises: Mapping[str, np.ndarray]) -> Streams:
    """Join the clips of a split and its background noises, (n,) int16 by name."""
    close = JoinedRecording(clips, join_noises(noises), gap_seconds=CLOSE_SECONDS)
    return Streams(join_recording(clips, noises), close, recordings_without_words(clips, noises))


def join_recording(clips: Clips, noises: Mapping[str, np.ndarray]) -> JoinedRecording:
    """The recording on which words are looked for; arguments as in `join_split`."""
    return JoinedRecording(clips, join_noises(noises), HOURS)


def measure_stream(
    recogniser: Recogniser,
    streams: Streams,
    protocol: str,
    split: str,
    model: MeasuredModel | None = None,
) -> StreamResult:
    """Run a model through the recordings once, and count; arguments as in `evaluate_clips`."""
    recording, close, names = streams.recording, streams.close, list(streams.without_words)
    joined = [recording, close, *streams.without_words.values()]
    outputs, fast, *others = posteriors(recogniser, joined)
    detections = fast.detections(recogniser.thresholds)
    return StreamResult(
        clip_answers(outputs, recording, protocol, split, model),
        evaluate_spotting(outputs, recording.words, recogniser.thresholds),
        score(detections, close.words, recogniser.words, close.hours)[ALL],
        false_alarms_per_hour(dict(zip(names, others, strict=True)), recogniser.thresholds),
    )
