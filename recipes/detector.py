"""Compare rules of the detector, by the three constants of `speechrnn/detection.py`.

    python recipes/detector.py base small tiny --data CORPUS --talk TALK --sounds SOUNDS

For each model it prints, in a row for each rule, the words found in the joined validation clips
where these, talk and sounds give at most 1, 2, 3, 5 and 10 false alarms an hour each. At the
threshold for `--allowed` false alarms (default: 1) also the delay of 95 % of the words, and the
words found 0.3 s behind another clip, 0.1, 0.3 and 0.6 s behind talk, and in noise that goes on
through all of the recording, 10 dB below each clip. TALK and SOUNDS are recordings for validation.
It takes five minutes a model.

A second table, by the rules of the package, tells what a threshold of its own for each word would
be worth. Thresholds are chosen on the joined clips and on half of the recordings of talk and of
sounds. It has the words found in the same clips, and the false alarms in the other half.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from results import ALLOWED

from speechrnn import detection, load
from speechrnn.audio import from_int16
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE, words_among
from speechrnn.corpus import Clips, join_noises, load_noises, load_split
from speechrnn.evaluation.background import (
    Background,
    false_alarm_counts,
    false_alarm_curve,
    false_alarms,
    read_background,
    spoken_words,
)
from speechrnn.evaluation.recordings import JoinedRecording, RecordingPosteriors, posteriors
from speechrnn.evaluation.results import CLOSE_SECONDS, join_recording
from speechrnn.evaluation.spotting import ALL, SWEEP, choose_threshold, score, score_curve
from speechrnn.evaluation.tables import markdown

WHOLE_WINDOW = 1.0  # s
# HOLD_SECONDS, WIDEST_SECONDS, BEHIND_SPEECH; first without the last two, then each changed.
RULES = ((0.45, WHOLE_WINDOW, 0), (0.42, 0.75, 0), (0.42, WHOLE_WINDOW, 1), (0.42, 0.75, 1),
         (0.39, 0.75, 1), (0.45, 0.75, 1), (0.42, 0.66, 1), (0.42, 0.84, 1),
         (0.42, 0.75, 0.5), (0.42, 0.75, 1.5))  # fmt: skip
PAUSES = (0.1, 0.3, 0.6)  # s between talk and a clip
CLIPS = 1_000  # behind talk
SNR_DB = 10.0  # of a clip in noise


class BehindTalk(JoinedRecording):
    """Clips that each have two seconds of talk before them, as loud as they are.

    Args:
        clips: labelled clips.
        noise: (n,) int16, heard all the time before a clip.
        talk: (n,) int16, from which the talk is cut at random.
        pause: s without talk before each clip.
    """

    def __init__(self, clips: Clips, noise: np.ndarray, talk: np.ndarray, pause: float) -> None:
        super().__init__(clips, noise, gap_seconds=(2.0, 2.001))
        self._talk, self._pause = talk, round(pause * SAMPLE_RATE)
        random = np.random.default_rng(0)
        self._from = random.integers(max(1, len(talk) - 3 * SAMPLE_RATE), size=len(self.order))

    def __getitem__(self, index: int) -> np.ndarray:
        """A part (n,) float32, full scale +-1: talk, a pause, and the clip after it."""
        part, start = super().__getitem__(index), self._from[index]
        length = len(part) - CLIP_SAMPLES - self._pause
        part[:length] += as_loud(part[-CLIP_SAMPLES:], self._talk[start:], length)
        return part.clip(-1, 1)


class InNoise(JoinedRecording):
    """Clips in noise that goes on, `SNR_DB` below each of them; arguments as of its base."""

    def __getitem__(self, index: int) -> np.ndarray:
        """A part (n,) float32, full scale +-1: noise, and the clip after it in noise."""
        part = super().__getitem__(index)
        start = np.random.default_rng(index).integers(max(1, len(self._noise) - len(part)))
        noise = as_loud(part[-CLIP_SAMPLES:], self._noise[start:], len(part))
        return (part + noise * np.float32(10 ** (-SNR_DB / 20))).clip(-1, 1)


def as_loud(clip: np.ndarray, other: np.ndarray, length: int) -> np.ndarray:
    """The first samples (length,) of an int16 sound, repeated if it is short, as loud as a clip."""
    begin = from_int16(np.resize(other, length))
    power: np.ndarray = np.square(clip).mean() / max(np.square(begin).mean(), 1e-8)
    return begin * np.sqrt(power)


def main() -> None:
    """Run each model through the recordings and their halves, and each rule over what it gave."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    for name in ("data", "talk", "sounds"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--allowed", type=int, choices=ALLOWED, default=1, metavar="N")
    options = parser.parse_args()
    clips = load_split(options.data, "v2-12", "validation", allow_partial=True)
    noises = load_noises(options.data, "validation")
    noise = join_noises(noises)
    talk, sounds = (read_background(folder) for folder in (options.talk, options.sounds))
    for folder, background in ((options.talk, talk), (options.sounds, sounds)):
        if len(background.names) < 2:
            parser.error(f"{folder}: one recording, expected two or more, for two halves")
    said, chosen = np.concatenate(talk.waves), some_words(clips)
    joined = [
        join_recording(clips, noises),
        JoinedRecording(clips, noise, gap_seconds=CLOSE_SECONDS),
        *(BehindTalk(chosen, noise, said, pause) for pause in PAUSES),
        InNoise(clips, noise),
    ]
    halves = [[half(background, which) for background in (talk, sounds)] for which in (0, 1)]
    head = ["hold", "widest", "behind speech", *(f"found at {allowed}" for allowed in ALLOWED)]
    head += ["delay of 95 %", "0.3 s behind a clip"]
    head += [*(f"{pause} s behind talk" for pause in PAUSES), "in noise"]
    shipped = detection.HOLD_SECONDS, detection.WIDEST_SECONDS, detection.BEHIND_SPEECH
    for model in options.models:
        recogniser = load(model)
        in_talk, in_sounds, *outputs = posteriors(recogniser, [talk, sounds, *joined])
        in_halves = [list(zip(posteriors(recogniser, each), each, strict=True)) for each in halves]
        detection.HOLD_SECONDS, detection.WIDEST_SECONDS, detection.BEHIND_SPEECH = shipped
        by_word = word_thresholds(outputs[0], joined[0], in_halves)
        rows = [head]
        for rule in RULES:
            detection.HOLD_SECONDS, detection.WIDEST_SECONDS, detection.BEHIND_SPEECH = rule
            curve = score_curve(outputs[0], joined[0].words)
            alarms = [(level, scores[ALL].false_alarms_per_hour) for level, scores in curve]
            curves = [alarms, false_alarm_curve(in_talk, talk)]
            curves.append(false_alarm_curve(in_sounds, sounds))
            levels = [choose_threshold(curves, allowed) for allowed in ALLOWED]
            scores = {level: of_words[ALL] for level, of_words in curve}
            used = levels[ALLOWED.index(options.allowed)]
            late = np.percentile(scores[used].latencies or [np.nan], 95)
            behind = []
            for output, recording in zip(outputs[1:], joined[1:], strict=True):
                words = output.config.words
                found = output.detections(dict.fromkeys(words, used))
                behind.append(score(found, recording.words, words, output.hours)[ALL])
            hold, widest, rise = rule
            rows.append([
                f"{hold:.2f} s", f"{widest:.2f} s" if widest < WHOLE_WINDOW else "any", f"{rise:g}",
                *(f"{1 - scores[level].miss_rate:.1%}" for level in levels), f"{late:.2f} s",
                *(f"{1 - one.miss_rate:.1%}" for one in behind),
            ])  # fmt: skip
        print(f"\n`{model}`\n\n{markdown(rows)}\n\n{markdown(by_word)}", flush=True)


def half(background: Background, which: int) -> Background:
    """Every other recording, from the first (`which` is 0) or the second (1) on."""
    names, waves = background.names[which::2], background.waves[which::2]
    return Background(names, waves, background.transcripts)


def word_thresholds(
    outputs: RecordingPosteriors,
    joined: JoinedRecording,
    halves: Sequence[Sequence[tuple[RecordingPosteriors, Background]]],
) -> list[list[str]]:
    """Rows of one threshold for all words and of one for each, means over both halves.

    Args:
        outputs: of the model on `joined`.
        joined: all clips, in which words are found.
        halves: of each half: talk, then sounds, each with what the model gave for it.
    """
    words = outputs.config.words
    curve = [scores for _, scores in score_curve(outputs, joined.words)]
    hits = np.array([[scores[word].hits for word in words] for scores in curve])
    in_joined = np.array(
        [[scores[word].false_alarms_per_hour for word in words] for scores in curve]
    )
    alarms = [np.stack([in_joined, *(alarms_by_word(*one) for one in each)]) for each in halves]
    other_half = "talk, sounds, other half"
    rows = [["allowed", "one threshold: found", other_half, "one a word: found", other_half]]
    for allowed in ALLOWED:
        row = [str(allowed)]
        for choose in (one_for_all, one_for_each):
            figures = []
            for own, other in ((0, 1), (1, 0)):
                chosen = choose(hits, alarms[own], allowed)
                levels = {word: SWEEP[place] for word, place in zip(words, chosen, strict=True)}
                found = score(outputs.detections(levels), joined.words, words, outputs.hours)[ALL]
                heard = [
                    len(false_alarms(of_model.detections(levels), spoken_words(background, words)))
                    / background.hours
                    for of_model, background in halves[other]
                ]
                figures.append((1 - found.miss_rate, *heard))
            found_share, in_talk, in_sounds = np.mean(figures, 0)
            row += [f"{found_share:.1%}", f"{in_talk:.1f}, {in_sounds:.1f}"]
        rows.append(row)
    return rows


def alarms_by_word(outputs: RecordingPosteriors, background: Background) -> np.ndarray:
    """False alarms an hour (L, W) at each threshold of `SWEEP`, of each word."""
    counts = false_alarm_counts(outputs, background)
    rates = [[count[word] / background.hours for word in outputs.config.words] for count in counts]
    return np.array(rates)


def one_for_all(hits: np.ndarray, alarms: np.ndarray, allowed: float) -> np.ndarray:
    """Places (W,) in `SWEEP` of one threshold for all words; arguments as of `one_for_each`."""
    curves = [list(zip(SWEEP, rates, strict=True)) for rates in alarms.sum(2).tolist()]
    return np.full(hits.shape[1], SWEEP.index(choose_threshold(curves, allowed)))


def one_for_each(hits: np.ndarray, alarms: np.ndarray, allowed: float) -> np.ndarray:
    """Places (W,) in `SWEEP` of a threshold for each word.

    From the highest down, that word is lowered next which wins most hits for its false alarms. Both
    are counted at one threshold for all words, as if the others did not matter to a word.

    Args:
        hits: (L, W) at each threshold of `SWEEP`.
        alarms: (K, L, W) false alarms an hour in each recording.
        allowed: of them, of all words together, in each recording.
    """
    levels, words = np.indices(hits.shape)
    chosen = np.full(hits.shape[1], len(hits) - 1)
    while True:
        here = chosen, words[0]
        more = alarms - alarms[:, *here][:, None]
        won = hits - hits[here]
        used = alarms[:, *here].sum(1)[:, None, None]
        possible = (used + more <= allowed).all(0) & (won > 0) & (levels < chosen)
        if not possible.any():
            return chosen
        worth = np.where(possible, won / more.sum(0).clip(min=1e-3), -np.inf)
        # Of equally good levels the highest: going lower wins nothing.
        last = worth.size - 1 - worth[::-1, ::-1].argmax()
        level, word = np.unravel_index(last, worth.shape)
        chosen[word] = level


def some_words(clips: Clips) -> Clips:
    """Clips of words alone, drawn at random, no more than `CLIPS`."""
    words = [clips.labels.index(word) for word in words_among(clips.labels)]
    places = np.flatnonzero(np.isin(clips.targets, words))
    return clips.part(np.random.default_rng(0).permutation(places)[:CLIPS])


if __name__ == "__main__":
    main()
