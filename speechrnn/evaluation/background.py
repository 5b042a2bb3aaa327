"""False alarms in long recordings that are not meant for a recogniser: talk, and sounds.

In: a folder of recordings, of talk also a table of what is spoken in them, and a recogniser. Out: a
`BackgroundResult`: detections an hour at the model's thresholds and at all others, by word, and for
talk by their place among the pauses. It draws nothing and words nothing.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.audio import find_audio, from_int16, read_blocks, to_int16
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE
from speechrnn.corpus import progress
from speechrnn.detection import Detection
from speechrnn.evaluation.recordings import RecordingPosteriors, posteriors
from speechrnn.evaluation.spotting import SWEEP
from speechrnn.recogniser import Recogniser

GAP_SAMPLES = SAMPLE_RATE // 2  # of digital silence between recordings
RANDOM_SECONDS = 2_000
# A transcript has no times: a word is expected at its share of the letters, and this far around.
TRANSCRIPT_SECONDS, TRANSCRIPT_SHARE = 1.5, 0.15
PAUSE_SECONDS = 0.2  # of quiet beside a detection
FRAME_SAMPLES = 160
Spoken = Mapping[str, list[tuple[float, float]]]  # times, s from and to, by word
PLACES = ("before a pause", "after a pause", "between two pauses", "in mid-flow")


@dataclass(frozen=True)
class Background:
    """Recordings one behind the other, with a gap between.

    Args:
        names: of the recordings.
        waves: (n,) int16 of each.
        transcripts: what is spoken in a recording, by its name, in small letters.
    """

    names: tuple[str, ...]
    waves: tuple[np.ndarray, ...]
    transcripts: dict[str, str]

    @property
    def samples(self) -> int:
        """Length of all, gaps included."""
        return sum(len(wave) + GAP_SAMPLES for wave in self.waves)

    @property
    def hours(self) -> float:
        """How long the recordings last, without the gaps."""
        return sum(len(wave) for wave in self.waves) / SAMPLE_RATE / 3600

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All in blocks (size,) float32, full scale +-1; the last may be shorter."""
        waiting = np.zeros(0, np.int16)
        for wave in self.waves:
            waiting = np.concatenate((waiting, wave, np.zeros(GAP_SAMPLES, np.int16)))
            for start in range(0, len(waiting) - size + 1, size):
                yield from_int16(waiting[start : start + size])
            waiting = waiting[len(waiting) // size * size :]
        if len(waiting):
            yield from_int16(waiting)


@dataclass(frozen=True)
class BackgroundResult:
    """What a model detects in recordings that are not meant for it.

    Args:
        hours: length of the recordings.
        false_alarms: at the model's thresholds, by word.
        places: the same by their place among the pauses; empty for sounds.
        spoken: detections of words that a transcript has at their place, which are none.
        curve: each threshold of `SWEEP`, for all words alike, with its false alarms an hour.
        random_seconds: share of seconds cut at random that are answered with a word.
    """

    hours: float
    false_alarms: dict[str, int]
    places: dict[str, int]
    spoken: int
    curve: tuple[tuple[float, float], ...]
    random_seconds: float

    @property
    def false_alarms_per_hour(self) -> float:
        """At the model's thresholds."""
        return sum(self.false_alarms.values()) / self.hours

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return {**asdict(self), "false_alarms_per_hour": self.false_alarms_per_hour}


def read_background(folder: str | Path) -> Background:
    """Read a folder of recordings into memory, 115 MB an hour.

    What is spoken in them stands in `transcripts.tsv` in the folder, or in `FOLDER.tsv` beside it:
    a tab-separated table with a head, of which the columns `file` and `text` (or `transcript`)
    count.

    Raises:
        FileNotFoundError: if there is no such folder, or no audio file in it.
        AudioError: if a file cannot be read.
        ValueError: if the table is none, or names a file that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one of recordings")
    paths = find_audio([folder])
    if not paths:
        raise FileNotFoundError(f"{folder}: no audio files in this folder")
    names = [path.relative_to(folder).as_posix() for path in paths]
    transcripts = _read_transcripts(folder, set(names))
    waves = []
    for path in progress(paths, f"reading {folder.name}"):
        waves.append(np.concatenate([to_int16(block) for block in read_blocks(path, 60.0)]))
    return Background(tuple(names), tuple(waves), transcripts)


def _read_transcripts(folder: Path, names: set[str]) -> dict[str, str]:
    beside = folder.absolute()  # `.` has no name
    tables = [folder / "transcripts.tsv", beside.with_name(f"{beside.name}.tsv")]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        return {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
            head = rows[0].keys() if rows else set()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: is not text in UTF-8 ({error.reason}); convert it") from error
    column = "text" if "text" in head else "transcript"
    if not {"file", column} <= set(head):
        raise ValueError(
            f"{table}: its first line is {', '.join(map(str, head)) or 'missing'}; expected the "
            "names of tab-separated columns, among them file and text"
        )
    if missing := [row["file"] for row in rows if row["file"] not in names]:
        raise ValueError(
            f"{table}: names {missing[0]}, which is not in {folder}; complete the folder, or "
            "delete that line"
        )
    return {row["file"]: (row[column] or "").lower() for row in rows}


def evaluate_background(
    recogniser: Recogniser, background: Background, talk: bool
) -> BackgroundResult:
    """Run a model through recordings that are not meant for it.

    Args:
        recogniser: the model.
        background: the recordings.
        talk: whether they hold speech: then places among the pauses are told.
    """
    (outputs,) = posteriors(recogniser, [background])
    detections = outputs.detections(recogniser.thresholds)
    false = false_alarms(detections, spoken_words(background, recogniser.words))
    places = Counter(_place(word, background) for word in false) if talk else Counter()
    return BackgroundResult(
        background.hours,
        dict(Counter(word.label for word in false).most_common()),
        {place: places[place] for place in PLACES} if talk else {},
        len(detections) - len(false),
        false_alarm_curve(outputs, background),
        _random_seconds(recogniser, background),
    )


def false_alarms(detections: Sequence[Detection], spoken: Spoken) -> list[Detection]:
    """Those of the detections that no transcript has at their place; see `spoken_words`."""
    return [word for word in detections if not _is_spoken(word, spoken)]


def false_alarm_counts(outputs: RecordingPosteriors, background: Background) -> list[Counter[str]]:
    """The false alarms of each word, at each threshold of `SWEEP` for all words alike.

    Args:
        outputs: of the model on `background`.
        background: the recordings.
    """
    words = outputs.config.words
    spoken = spoken_words(background, words)
    counts = []
    for level in SWEEP:
        detections = outputs.detections(dict.fromkeys(words, level))
        counts.append(Counter(word.label for word in false_alarms(detections, spoken)))
    return counts


def false_alarm_curve(
    outputs: RecordingPosteriors, background: Background
) -> tuple[tuple[float, float], ...]:
    """Each threshold of `SWEEP`, for all words alike, with its false alarms an hour.

    Args:
        outputs: of the model on `background`.
        background: the recordings.
    """
    counts = false_alarm_counts(outputs, background)
    rates = [count.total() / background.hours for count in counts]
    return tuple(zip(SWEEP, rates, strict=True))


def spoken_words(background: Background, words: tuple[str, ...]) -> Spoken:
    """By word the times, s from and to, in which the transcripts let it be expected."""
    times: dict[str, list[tuple[float, float]]] = {word: [] for word in words}
    labels = {word.casefold(): word for word in words}
    begin = 0.0
    for name, wave in zip(background.names, background.waves, strict=True):
        text, seconds = background.transcripts.get(name, ""), len(wave) / SAMPLE_RATE
        around = max(TRANSCRIPT_SECONDS, TRANSCRIPT_SHARE * seconds)
        for match in re.finditer(r"[^\W\d_]+(?:'[^\W\d_]+)*", text):
            if word := labels.get(match[0].casefold()):
                middle = begin + seconds * (match.start() + match.end()) / 2 / len(text)
                times[word].append((middle - around, middle + around))
        begin += seconds + GAP_SAMPLES / SAMPLE_RATE
    return times


def _is_spoken(word: Detection, spoken: Spoken) -> bool:
    middle = (word.start + word.end) / 2
    return any(first <= middle <= last for first, last in spoken[word.label])


def _place(word: Detection, background: Background) -> str:
    """Where a detection lies among the pauses of its recording."""
    begin = 0
    for wave in background.waves:
        if word.start * SAMPLE_RATE < begin + len(wave) + GAP_SAMPLES:
            break
        begin += len(wave) + GAP_SAMPLES
    frames = wave[: len(wave) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    energy = 10 * np.log10((frames.astype(np.float64) ** 2).mean(1) + 1e-3)
    # Speech is nearer to the loud tenth of a recording than to its quiet tenth.
    speech = energy > np.quantile(energy, (0.1, 0.9)).mean()
    pause = round(PAUSE_SECONDS * SAMPLE_RATE / FRAME_SAMPLES)
    first, last = (
        max(0, round((time * SAMPLE_RATE - begin) / FRAME_SAMPLES))
        for time in (word.start, word.end)
    )
    # The edges of a detection are those of its weight: the word may go on a little around them.
    before = not speech[max(0, first - 2 * pause) : max(0, first - pause // 2)][-pause:].any()
    after = not speech[last + pause // 2 : last + 2 * pause][:pause].any()
    if before and after:
        return "between two pauses"
    return "before a pause" if after else "after a pause" if before else "in mid-flow"


def random_seconds(background: Background, count: int, random: np.random.Generator) -> np.ndarray:
    """Seconds (count, 16000) int16 from random places; none where no recording is as long."""
    waves = [wave for wave in background.waves if len(wave) >= CLIP_SAMPLES]
    if not waves:
        return np.zeros((0, CLIP_SAMPLES), np.int16)
    lengths = np.array([len(wave) for wave in waves], float)
    owners = random.choice(len(waves), count, p=lengths / lengths.sum())
    starts = [int(random.integers(len(waves[one]) - CLIP_SAMPLES + 1)) for one in owners]
    return np.stack(
        [waves[one][s : s + CLIP_SAMPLES] for one, s in zip(owners, starts, strict=True)]
    )


def _random_seconds(recogniser: Recogniser, background: Background) -> float:
    """Share of seconds cut at random places that are answered with a word."""
    cuts = random_seconds(background, RANDOM_SECONDS, np.random.default_rng(0))
    if not len(cuts):
        return 0.0
    answers = recogniser.classify_waves(list(from_int16(cuts)))
    return sum(answer.label in recogniser.words for answer in answers) / len(answers)
