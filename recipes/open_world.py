"""Which data and which losses help against talk, sounds and strange words: each row changes one.

    python recipes/open_world.py --corpus CORPUS --talk TALK --sounds SOUNDS --start MODEL \\
        --validation-talk FOLDER --validation-sounds FOLDER --answers FILE --words RENDERED \\
        --more-talk FOLDER
    python recipes/open_world.py --table

Every row begins with the weights of `small` of version 0.1 (`--start`), which had heard clips of
the corpus alone, and trains them by the recipe of the shipped `small` for the same few epochs. Each
finished run is a line of open_world.jsonl, and is not run again. `RENDERED` holds clips of words
with few recorded ones; recipes/README.md has the command that speaks them. The folder of
`--more-talk` is `ANOTHER/training/rendered_more`, as `make_talk.py --more` writes it, outside TALK.
Losses that look at windows between clips stand here, for they did not help, and so the package has
none.
"""

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy

from speechrnn.audio import find_audio, loudest_second, read_wave, to_int16
from speechrnn.config import DEFAULT_THRESHOLD, UNKNOWN, ModelConfig
from speechrnn.corpus import Clips, join_noises, load_noises
from speechrnn.detection import HOLD_SECONDS
from speechrnn.evaluation.background import Background, evaluate_background, read_background
from speechrnn.evaluation.clips import evaluate_clips
from speechrnn.evaluation.recordings import JoinedRecording, posteriors
from speechrnn.evaluation.spotting import ALL, score_curve
from speechrnn.evaluation.tables import markdown
from speechrnn.features import Mfcc
from speechrnn.model import pool
from speechrnn.network import Network
from speechrnn.recogniser import Recogniser
from speechrnn.training.augmentation import Augmentation, shift, to_power
from speechrnn.training.batches import NO_WORD, PIECES, SpeechCommands, read_recordings
from speechrnn.training.frames import log_mel_frames, set_feature_statistics
from speechrnn.training.module import Training
from speechrnn.training.pieces import Pieces
from speechrnn.training.run import room_decays

HERE = Path(__file__).parent
RECIPE, RESULTS = HERE / "shipped_small.yaml", HERE / "open_world.jsonl"
EPOCHS, SEEDS = 5, (1, 2, 3)
ROOM_SEED = 0
RENDERED = "rendered"  # folder within the talk, see make_talk.py
MISSED = 0.08  # of the words in the stream: false alarms are compared where so many are missed


@dataclass(frozen=True)
class Row:
    """One change.

    Args:
        name: what was changed.
        talk: whether pieces of talk are drawn.
        rendered: words and sentences among the talk: none, what the shipped models heard, or more.
        sounds: whether pieces of sounds are drawn.
        silence: whether sounds may be called silence as well as unknown.
        augmentation: keys of the recipe's `augmentation` that differ.
        loss: of windows between clips that follow one another, beside the loss of whole clips.
        teacher: model whose answers are learned too.
        whisper: whether Whisper's answers are learned beside those of the teacher.
        words: whether rendered clips of words with few recorded ones are among the clips.
    """

    name: str
    talk: bool = True
    rendered: Literal["none", "shipped", "more"] = "shipped"
    sounds: bool = True
    silence: bool = True
    augmentation: dict[str, Any] = field(default_factory=dict)
    loss: Literal["", "windows", "max-pooling"] = ""
    teacher: str | None = None
    whisper: bool = False
    words: bool = False


ROWS = (
    Row("the recipe"),
    Row("no talk, no sounds", talk=False, sounds=False),
    Row("no talk", talk=False),
    Row("no rendered talk", rendered="none"),
    Row("more rendered talk", rendered="more"),
    Row("rendered clips of scarce words", words=True),
    Row("no sounds", sounds=False),
    Row("sounds are unknown, never silence", silence=False),
    Row("no rooms", augmentation={"reverberation": 0.0}),
    Row("no narrow bands", augmentation={"band_limit": 0.0}),
    Row("no pseudo-words", augmentation={"pseudo_words": 0.0}),
    Row("taught by `base`", teacher="base"),
    Row("taught by `base` and Whisper", teacher="base", whisper=True),
    Row("each window between two clips", loss="windows"),
    Row("max-pooling over a recording of four clips", loss="max-pooling"),
)
JOINED = {"windows": 2, "max-pooling": 4}  # clips that follow one another


class Joined(Training):
    """Clips follow one another as recordings, and windows between them are trained too.

    `windows`: each window that holds a whole command and no other half has its label; each that
    holds at most half of one shall have no command; others are not judged. `max-pooling`: of each
    word the highest mean log probability over the time that the detector asks for is judged, over
    all windows of a recording, as one binary answer a word (as in wekws).
    """

    WHOLE, PART = 0.95, 0.5  # of a word's sound
    QUIET_SHARE = 0.2  # of a clip's steps: the quietest, which are not the word

    def __init__(self, loss: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.kind, self.joined = loss, JOINED[loss]
        self.reach = self.augmentation.shift_frames
        self.augmentation = replace(self.augmentation, shift_frames=0)
        words = self.model.config.words
        self.is_word = torch.tensor([label in words for label in self.model.config.labels])

    def augmented(self, log_mel: Tensor, targets: Tensor) -> Tensor:
        floor = self.model.config.log_floor
        power = shift(to_power(log_mel.float(), floor), self.reach)
        self.before = self.heard_before(power.sum(-1))
        return super().augmented((power + floor).log(), targets)

    def heard_before(self, power: Tensor) -> Tensor:
        """How much of each clip's sound lies before each step: (B, T) to (B, T / stack + 1)."""
        power = power.unflatten(1, (-1, self.model.config.stack)).sum(-1)
        quiet = power.quantile(self.QUIET_SHARE, 1, keepdim=True)
        sound = (power - quiet).clamp(min=0).sqrt()  # a fricative counts beside a vowel
        before = sound.cumsum(1) / sound.sum(1, keepdim=True).clamp(min=1e-9)
        return torch.nn.functional.pad(before, (1, 0))

    def loss(
        self, log_mel: Tensor, targets: Tensor, others: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, rest = divmod(len(targets), self.joined)
        if rest:  # the last batch of an epoch
            return super().loss(log_mel, targets, others)
        targets = targets.where(targets != NO_WORD, self.model.config.labels.index(UNKNOWN))
        log_mel, targets, before = (
            tensor.unflatten(0, (rows, self.joined)) for tensor in (log_mel, targets, self.before)
        )
        logits, hidden = self.model.from_log_mel(log_mel.flatten(1, 2), self._start(rows))
        self.carried = hidden.detach()
        logits = logits.float()
        answer = pool(logits.unflatten(1, (self.joined, -1)).flatten(0, 1))
        right = targets.flatten()
        loss = cross_entropy(answer + self.log_prior, right, label_smoothing=self.label_smoothing)
        steps = logits.shape[1] // self.joined
        share = (pool(logits, steps) + self.log_prior).log_softmax(-1)  # (R, W, C)
        if self.kind == "windows":
            between = share[:, :-1].unflatten(1, (self.joined - 1, steps))[:, :, 1:]
            loss = loss + self.window_loss(between, targets, before)
        else:
            loss = loss + 0.5 * self.recording_loss(share, targets)
        return loss, answer

    def window_loss(self, share: Tensor, targets: Tensor, before: Tensor) -> Tensor:
        """Of log probabilities (R, n - 1, S - 1, C) between n clips, which `before` (R, n, S + 1)
        tells the places of the words."""
        first, second = targets[:, :-1, None], targets[:, 1:, None]
        left = (1 - before[:, :-1, 1:-1]) * self.is_word[first]
        begun = before[:, 1:, 1:-1] * self.is_word[second]
        none = share.masked_fill(self.is_word, -torch.inf).logsumexp(-1)
        holds_first = (left >= self.WHOLE) & (begun <= self.PART)
        holds_second = (begun >= self.WHOLE) & (left <= self.PART)
        holds_none = (left <= self.PART) & (begun <= self.PART)
        word = torch.where(holds_second, second, first)
        of_word = share.gather(-1, word[..., None])[..., 0]
        judged = holds_first | holds_second | holds_none
        log_right = torch.where(holds_none, none, of_word)[judged]
        return -log_right.sum() / max(1, len(log_right))

    def recording_loss(self, share: Tensor, targets: Tensor) -> Tensor:
        """Of log probabilities (R, W, C) at the windows of recordings with these clips (R, n).

        The last clip's word may be held beyond the end: it is not judged.
        """
        hold = round(HOLD_SECONDS / self.model.config.seconds_per_step)
        held = torch.nn.functional.avg_pool1d(share.mT, hold, 1).amax(-1).clamp(max=-1e-4)
        said = torch.zeros_like(held).scatter(1, targets[:, :-1], 1.0)
        last = torch.zeros_like(held).scatter(1, targets[:, -1:], 1.0)
        judged = self.is_word & ~((last > 0) & (said == 0))
        loss = -(said * held + (1 - said) * torch.log1p(-held.exp()))
        return (loss * judged).sum() / targets.numel()


class Data(SpeechCommands):
    """The recipe's data, read once for all rows.

    Attributes:
        words: folder of rendered clips.
        more_talk: folder of more rendered talk.
    """

    words: Path | None = None
    more_talk: Path | None = None

    def compute_frames(self, mfcc: Mfcc) -> None:
        if self.frames:
            return
        super().compute_frames(mfcc)
        (talk, self.talk_share), (sounds, self.sounds_share) = self.recordings.items()
        everything, self.sound_pieces = self.pieces
        folders = sorted(path for path in Path(talk).iterdir() if path.is_dir())
        recorded = [folder for folder in folders if folder.name != RENDERED]
        length = self.frames["training"].shape[1]

        def pieces(*folders: Path) -> Pieces:
            return Pieces(read_recordings(mfcc, *folders), length, PIECES, True, self.draw_seed)

        self.talk_pieces = {"shipped": everything, "none": pieces(*recorded)}
        if self.more_talk is not None:
            self.talk_pieces["more"] = pieces(*folders, self.more_talk)
        clips, frames = self.clips["training"], self.frames["training"]
        self.clip_sets = {False: (clips, frames)}
        if self.words is not None:
            more = with_rendered(clips, self.words)
            rendered = log_mel_frames(mfcc, more.waves[len(clips) :])
            self.clip_sets[True] = more, torch.cat([frames, rendered])
        self.sounds = sounds
        self.whisper = self.answers
        self.noise_frames = log_mel_frames(mfcc, self.noise[None])[0].float()
        self.decays = room_decays(mfcc.config.hop, length, ROOM_SEED)

    def take(self, row: Row) -> None:
        """Draw as a row says."""
        self.recordings, self.pieces = {}, []
        self.answers = self.whisper if row.whisper else None
        self.clips["training"], self.frames["training"] = self.clip_sets[row.words]
        if row.talk:
            self.recordings[str(self.talk)] = self.talk_share
            self.pieces.append(self.talk_pieces[row.rendered])
        if row.sounds:
            self.recordings[self.sounds] = self.sounds_share
            self.pieces.append(self.sound_pieces)


def with_rendered(clips: Clips, folder: Path) -> Clips:
    """The clips, and behind them all of a folder `<word>/<clip>`; other words are unknown."""
    paths = find_audio([folder])
    waves = [loudest_second(to_int16(read_wave(path))) for path in paths]
    words = [path.parent.name if path.parent.name in clips.labels else UNKNOWN for path in paths]
    targets = [clips.labels.index(word) for word in words]
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    return Clips(
        np.concatenate([clips.waves, waves]), np.concatenate([clips.targets, targets]),
        clips.names + names, clips.labels,
    )  # fmt: skip


def read_data(
    corpus: Path,
    talk: Path,
    sounds: Path,
    answers: Path | None = None,
    words: Path | None = None,
    more_talk: Path | None = None,
) -> Data:
    """The clips and recordings that the recipe of the shipped `small` draws, with their frames."""
    settings = yaml.safe_load(RECIPE.read_text())["data"]
    settings |= {"folder": str(corpus), "talk": str(talk), "sounds": str(sounds)}
    settings["answers"] = None if answers is None else str(answers)
    data = Data(**settings, allow_partial=True)
    data.words, data.more_talk = words, more_talk
    data.setup("fit")
    data.compute_frames(Mfcc(ModelConfig(labels=data.labels)))
    return data


class Validation:
    """What every run is measured on.

    Args:
        data: whose validation clips are joined into a stream.
        talk: folder of recordings of running speech.
        sounds: folder of recordings of other sounds.
    """

    def __init__(self, data: SpeechCommands, talk: Path, sounds: Path) -> None:
        self.clips: Clips = data.clips["validation"]
        self.protocol = data.protocol
        noise = join_noises(load_noises(data.folder, "validation"))
        self.stream = JoinedRecording(self.clips, noise)
        self.background: dict[str, Background] = {
            "talk": read_background(talk),
            "sounds": read_background(sounds),
        }

    def measure(self, recogniser: Recogniser) -> dict[str, Any]:
        """Accuracy, and the curves of misses and of false alarms, as JSON can hold them."""
        result = evaluate_clips(recogniser, self.clips, self.protocol, "validation")
        (outputs,) = posteriors(recogniser, [self.stream])
        curve = score_curve(outputs, self.stream.words)
        found: dict[str, Any] = {
            "accuracy": result.accuracy,
            "mean_accuracy": result.mean_accuracy,
            "thresholds": [level for level, _ in curve],
            "missed": [scores[ALL].miss_rate for _, scores in curve],
        }
        for kind, background in self.background.items():
            measured = evaluate_background(recogniser, background, kind == "talk")
            found[kind] = [rate for _, rate in measured.curve]
            found[f"{kind}_random_seconds"] = measured.random_seconds
        return found


def run(row: Row, seed: int, data: Data, validation: Validation, start: str) -> dict[str, Any]:
    """Train and measure one row; the result as JSON can hold it."""
    seed_everything(seed, verbose=False)
    settings: dict[str, Any] = yaml.safe_load(RECIPE.read_text())["model"]
    settings |= {"learning_rate": 0.002, "matrix_learning_rate": 0.005, "start": start}
    augmentation = Augmentation(**{**settings.pop("augmentation"), **row.augmentation})
    settings |= {"labels": data.labels, "augmentation": augmentation, "teacher": row.teacher}
    training = Joined(row.loss, **settings) if row.loss else Training(**settings)
    if not row.silence:
        training.no_words = [data.labels.index(UNKNOWN)]
    started = time.monotonic()
    data.take(row)
    recogniser = fit(training, data, EPOCHS)
    seconds = time.monotonic() - started
    return {"row": row.name, "seed": seed, "epochs": EPOCHS, "seconds": round(seconds),
            **validation.measure(recogniser)}  # fmt: skip


def fit(training: Training, data: Data, epochs: int) -> Recogniser:
    """Train on what `data` draws; the recogniser of the last epoch."""
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=1.0, precision="bf16-mixed",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    training.noise, training.decays = data.noise_frames, data.decays
    training.log_prior = data.log_prior() if data.pieces else torch.zeros(len(data.labels))
    if training.start is None:
        set_feature_statistics(training.model.mfcc, data.frames["training"])
    trainer.fit(training, datamodule=data)
    model = training.model.eval()
    network = Network(model.config, model.arrays())
    return Recogniser(network, dict.fromkeys(model.config.words, DEFAULT_THRESHOLD))


def at_missed(result: dict[str, Any], kind: str) -> float:
    """False alarms an hour at the threshold that misses `MISSED` of the words."""
    return float(np.interp(MISSED, result["missed"], result[kind]))


def table() -> str:
    """All rows with their means over seeds, and half the distance of the furthest two."""
    results: dict[str, list[dict[str, Any]]] = {}
    for line in RESULTS.read_text().splitlines():
        result = json.loads(line)
        results.setdefault(result["row"], []).append(result)

    def cell(values: list[float], form: str) -> str:
        spread = (max(values) - min(values)) / 2
        return (
            f"{np.mean(values):{form}} ± {spread:{form}}"
            if len(values) > 1
            else f"{values[0]:{form}}"
        )

    rows = [
        [
            "change",
            "seeds",
            "accuracy, %",
            "talk, an hour",
            "sounds, an hour",
            "random seconds of talk, %",
        ]
    ]
    for name, runs in results.items():
        rows.append([
            name, str(len(runs)), cell([100 * r["accuracy"] for r in runs], ".2f"),
            *(cell([at_missed(r, kind) for r in runs], ".1f") for kind in ("talk", "sounds")),
            cell([100 * r["talk_random_seconds"] for r in runs], ".2f"),
        ])  # fmt: skip
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print the table of what was run")
    for name in ("corpus", "talk", "sounds", "validation-talk", "validation-sounds"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--start", help="model folder of version 0.1")
    parser.add_argument("--answers", type=Path, help="of Whisper, see whisper_answers.py")
    parser.add_argument("--words", type=Path, help="rendered clips, a folder a word")
    parser.add_argument("--more-talk", type=Path, help="as make_talk.py --more renders it")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--rows", nargs="+", help="parts of names")
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    places = options.corpus, options.talk, options.sounds, options.start
    if None in (*places, options.validation_talk, options.validation_sounds):
        parser.error(
            "expected --corpus, --talk, --sounds, --validation-talk, --validation-sounds and "
            "--start, or --table"
        )
    done = set()
    if RESULTS.is_file():
        lines = map(json.loads, RESULTS.read_text().splitlines())
        done = {(line["row"], line["seed"]) for line in lines}
    rows = [row for row in ROWS if not options.rows or any(p in row.name for p in options.rows)]
    if options.answers is None and any(row.whisper for row in rows):
        parser.error("a row is taught by Whisper: expected --answers, or --rows with others")
    if options.words is None and any(row.words for row in rows):
        parser.error("a row has rendered clips: expected --words, or --rows with others")
    if options.more_talk is None and any(row.rendered == "more" for row in rows):
        parser.error("a row has more rendered talk: expected --more-talk, or --rows with others")
    if options.more_talk is not None and options.talk in options.more_talk.parents:
        parser.error(f"{options.more_talk} is in {options.talk}, so that every row would hear it")
    data = read_data(
        options.corpus, options.talk, options.sounds, options.answers, options.words,
        options.more_talk,
    )  # fmt: skip
    validation = Validation(data, options.validation_talk, options.validation_sounds)
    for seed in options.seeds:
        for row in rows:
            if (row.name, seed) in done:
                continue
            result = run(row, seed, data, validation, options.start)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(row.name, seed, f"{result['accuracy']:.4f}",
                  *(f"{kind} {at_missed(result, kind):.1f}" for kind in ("talk", "sounds")),
                  f"{result['seconds']} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
