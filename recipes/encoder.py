"""Train an encoder, which hears words as Whisper hears them, and fill its bank.

Usage:
    python recipes/encoder.py data/words --ear data/kokoro/whisper --talk data/talk/training \\
        --sounds data/sounds/training --to speechrnn/encoder

The teacher is the encoder of Whisper tiny.en, which has learned from 680,000 hours of talk (Radford
et al. 2022, arXiv 2212.04356). What it makes of a clip is the mean of its states over time, in the
directions in which words differ. The network hears the clip changed, moved or in noise, in a room
or by telephone, and must pick it out of a batch by what the teacher makes of each (InfoNCE: van den
Oord et al. 2018, arXiv 1807.03748). So it needs no labels, and any speech can teach it. Gok et al.
2025 (arXiv 2506.17686) learn from wav2vec 2.0 likewise.

Then a bank is filled with embeddings of clips that are none of a user's words: other words, pieces
of talk and of sounds, background noise; and with how far apart two clips of one word lie.

A stopped run goes on where it was. Needs faster-whisper (`pip install 'speechrnn[speak]'`).
"""

import argparse
import datetime
import hashlib
import platform
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset

from speechrnn.audio import from_int16
from speechrnn.config import SAMPLE_RATE, SILENCE, UNKNOWN, ModelConfig
from speechrnn.corpus import Clips, join_noises, load_noises, load_split, progress, speaker
from speechrnn.enrolment import BANK, Bank, bank_bytes, embed
from speechrnn.evaluation.background import Background, random_seconds, read_background
from speechrnn.files import whole_file
from speechrnn.folder import save_folder
from speechrnn.network import Network
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import Batches
from speechrnn.training.frames import log_mel_frames, set_feature_statistics
from speechrnn.training.module import Training
from speechrnn.training.run import room_decays

AUGMENTATION = Augmentation(reverberation=0.15, band_limit=0.15, time_masks=1, mel_masks=1)
TALK_PIECES, SOUND_PIECES = 30_000, 2_000  # seconds that are cut out at random
SPLICES = 30_000  # words that nobody said
FRAME = SAMPLE_RATE // 100  # samples: of loudness, and of the fade where two words are joined
LOUD, ABOVE_QUIET = 0.1, 2.0  # a word's frames: as parts of the loudest, times the quiet ones
CUT = (0.3, 0.7)  # where a word is cut, as a part of it
BATCH, CLIP_GRADIENTS = 128, 1.0
MARGIN = SAMPLE_RATE // 4  # samples of silence on both sides of what the teacher hears
TEACHER_BATCH = 32
DIRECTIONS = 96  # of the teacher's states, those in which words differ most
TEMPERATURE = 0.1  # of the similarities in a batch
TEACHER_SHRINKAGE, TEACHER_LEAST = 0.1, 8  # of the metric of the teacher's states; clips of a word

WORDS, TALK, SOUNDS, SILENT = 800, 150, 50, 40  # embeddings of each
AUDIBLE = 300  # of 32,768: the loudest sample of a second that is more than a pause, -41 dB
SHRINKAGE, SHARPNESS = 0.25, 0.06  # of the metric
# For the spread within words: clips in all, and of a word. Those with fewer are mostly synthetic,
# and alike.
SPREAD_CLIPS, SPREAD_LEAST = 12_000, 50

CARD = """# An encoder of words

A vanilla recurrent network of {parameters:,} parameters, which has learned to make of a word what
the encoder of Whisper tiny.en (OpenAI, MIT) makes of it, from {clips:,} clips: of {words:,} words
said alone, of talk and of sounds. `speechrnn enrol` fits heads to it, for words of which there
are a few recordings. `bank.safetensors` holds embeddings of other words, of talk, sounds and
silence.

Data: Google Speech Commands (Pete Warden, CC BY 4.0); LibriSpeech (Panayotov et al., CC BY 4.0);
words synthesised by flite, espeak-ng and Kokoro-82M; talk and sounds from Debian packages, whose
licences stand in recipes/README.md of speechrnn.
"""


class Distillation(Training):
    """A network that learns what a teacher makes of clips, in place of labels.

    Its head has an output for each of the teacher's numbers, and a last one that is taken from all:
    so the mean row, which weighs the steps of a clip (`network.pool`), is free, as it is in front
    of a softmax.
    """

    def __init__(self) -> None:
        outputs = (SILENCE, UNKNOWN, *(f"direction {number}" for number in range(DIRECTIONS - 1)))
        super().__init__(
            outputs, augmentation=AUGMENTATION, layers=4, hidden_size=96, feed_forward=128
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of a batch: log mel frames (B, T, M), and what the teacher makes of them (B, D)."""
        log_mel, taught = batch
        floor = self.model.config.log_floor
        changed = self.augmentation(log_mel.float(), self.noise, floor, self.decays)
        answer, hidden = self.answer(changed, self._start(len(changed)))
        self.carried = hidden.detach()
        given = normalize(answer[:, :-1] - answer[:, -1:], dim=1)
        likeness = given @ normalize(taught.float(), dim=1).T / TEMPERATURE
        loss = cross_entropy(likeness, torch.arange(len(given), device=given.device))
        self.log("training_loss", loss, on_step=False, on_epoch=True, batch_size=len(given))
        return loss


def digest(waves: np.ndarray) -> str:
    """By which clips know what the teacher made of them."""
    return hashlib.sha256(waves.data).hexdigest()


def teacher_states(ear: Path, waves: np.ndarray, cache: Path, parts: int = 1) -> np.ndarray:
    """Mean states (n, parts * 384) of the teacher's encoder in parts of clips (n, 16000) int16.

    They are kept in a file, for a run that is stopped and goes on.
    """
    if cache.is_file():
        with np.load(cache) as kept:
            if str(kept["digest"]) != digest(waves):
                raise ValueError(
                    f"{cache.parent} was begun with other clips: type --run FOLDER for a new run"
                )
            states: np.ndarray = kept["states"]
        return states
    if not (ear / "model.bin").is_file():
        raise FileNotFoundError(
            f"{ear}: no model.bin in this folder; expected Whisper tiny.en, which "
            "recipes/get_kokoro.sh fetches"
        )
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel

    teacher = WhisperModel(str(ear), device="cpu", compute_type="float32", cpu_threads=1)
    frames = teacher.feature_extractor
    length = (waves.shape[1] + 2 * MARGIN) // frames.hop_length
    found = []
    for start in progress(range(0, len(waves), TEACHER_BATCH), "teacher"):
        padded = np.pad(
            from_int16(waves[start : start + TEACHER_BATCH]), ((0, 0), (MARGIN, MARGIN))
        )
        heard = np.stack([frames(wave, padding=0)[:, :length] for wave in padded])
        encoded = teacher.model.encode(StorageView.from_array(heard.astype(np.float32)))
        each = np.split(np.array(encoded), parts, axis=1)
        found.append(np.concatenate([part.mean(1) for part in each], 1))
    states = np.concatenate(found)
    with whole_file(cache) as beside, beside.open("wb") as file:
        np.savez(file, digest=digest(waves), states=states)
    return states


def loud_part(wave: np.ndarray) -> tuple[int, int, float]:
    """First and last sample of the word in a clip (N,), and its loudness."""
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    loudness = np.sqrt((frames**2).mean(1))
    least = max(LOUD * loudness.max(), ABOVE_QUIET * np.quantile(loudness, 0.1))
    loud = np.flatnonzero(loudness >= least)
    if not len(loud):
        return 0, len(wave), float(loudness.mean())
    return int(loud[0]) * FRAME, int(loud[-1] + 1) * FRAME, float(loudness[loud].mean())


def splice(first: np.ndarray, second: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The beginning of one word and the end of another, of clips (N,), as a clip (N,)."""
    (begin, end, loudness), (begin_2, end_2, loudness_2) = loud_part(first), loud_part(second)
    cut, cut_2 = (
        int(np.clip(low + (high - low) * random.uniform(*CUT), FRAME, len(first) - FRAME))
        for low, high in ((begin, end), (begin_2, end_2))
    )
    head = first[: cut + FRAME].astype(np.float64)
    tail = second[cut_2 - FRAME :] * np.clip(loudness / max(loudness_2, 1.0), 0.2, 5.0)
    fade = np.linspace(0, 1, FRAME)
    head[-FRAME:] = head[-FRAME:] * (1 - fade) + tail[:FRAME] * fade
    joined = np.concatenate((head, tail[FRAME:]))
    joined = np.pad(joined, (0, max(0, len(first) - len(joined))), "reflect")
    middle = (begin + cut + end_2 - cut_2) // 2
    start = int(np.clip(middle - len(first) // 2, 0, len(joined) - len(first)))
    clip: np.ndarray = joined[start : start + len(first)].clip(-32768, 32767).astype(np.int16)
    return clip


def splices(clips: Clips, words: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Words that nobody said (count, 16000), each joined of two that one speaker said."""
    said = defaultdict(list)
    for number in words.tolist():
        said[speaker(clips.names[number])].append(number)
    speakers = [numbers for numbers in said.values() if len(np.unique(clips.targets[numbers])) > 1]
    made: list[np.ndarray] = []
    while len(made) < count:
        one, other = random.choice(speakers[random.integers(len(speakers))], 2)
        if clips.targets[one] != clips.targets[other]:
            made.append(splice(clips.waves[one], clips.waves[other], random))
    return np.stack(made)


def within_words(rows: np.ndarray, targets: np.ndarray, least: int) -> np.ndarray:
    """Covariance (H, H) of rows (n, H) around the mean of their word, of words with so many."""
    within, freedom = np.zeros((rows.shape[1],) * 2), 0
    for target in np.unique(targets):
        mine = rows[targets == target]
        if len(mine) >= least:
            centred = mine - mine.mean(0)
            within += centred.T @ centred
            freedom += len(mine) - 1
    return within / freedom


def metric(within: np.ndarray, shrinkage: float) -> np.ndarray:
    """Inverse of a covariance that is drawn towards a ball."""
    size = len(within)
    ball = np.trace(within) / size * np.eye(size)
    inverse: np.ndarray = np.linalg.inv((1 - shrinkage) * within + shrinkage * ball)
    return inverse


def word_directions(states: np.ndarray, words: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The teacher's states (n, 384) in the directions (n, D) in which words differ most.

    All directions are made alike within words, and then the widest are kept (linear discriminant
    analysis, Fisher 1936).

    Args:
        states: of all clips.
        words: numbers (m,) of those that hold one word.
        targets: (m,) which word.
    """
    states = states.astype(np.float64)
    within = within_words(states[words], targets, TEACHER_LEAST)
    whiten = np.linalg.cholesky(metric(within, TEACHER_SHRINKAGE))
    white = (states - states.mean(0)) @ whiten
    _, axes = np.linalg.eigh(np.cov(white.T))
    widest: np.ndarray = white @ axes[:, -DIRECTIONS:]
    return widest.astype(np.float32)


def train(
    waves: np.ndarray, taught: np.ndarray, noise: np.ndarray, run: Path, epochs: int, seed: int
) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """An encoder's settings and weights, from clips (n, 16000) int16 and the teacher's (n, D)."""
    seed_everything(seed)
    training = Distillation()
    mfcc = training.model.mfcc
    frames = log_mel_frames(mfcc, waves)
    training.noise = log_mel_frames(mfcc, noise[None])[0].float()
    training.decays = room_decays(mfcc.config.hop, frames.shape[1], seed)
    set_feature_statistics(mfcc, frames)
    draws = Batches(torch.ones(len(frames)), len(frames), BATCH, seed)
    clips = DataLoader(
        TensorDataset(frames, torch.from_numpy(taught)), sampler=draws, batch_size=None
    )
    each_epoch = ModelCheckpoint(
        run, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, precision="bf16-mixed", logger=False,
        callbacks=[each_epoch], gradient_clip_val=CLIP_GRADIENTS, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    last = run / "last.ckpt"
    trainer.fit(training, clips, ckpt_path=last if last.is_file() else None)
    config, weights = training.model.config, training.model.arrays()
    weigher = weights["head.1.weight"].mean(0)
    weights["head.1.weight"] = np.stack((weigher, weigher))
    weights["head.1.bias"] = np.zeros(2, np.float32)
    return replace(config, labels=(SILENCE, UNKNOWN)), weights


def one_of_each(
    targets: np.ndarray, among: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Numbers of clips of as many different words as there are, out of those `among` all."""
    places = random.permutation(among)
    times: Counter[int] = Counter()
    rank = np.zeros(len(places), np.int64)
    for number, target in enumerate(targets[places].tolist()):
        rank[number] = times[target]
        times[target] += 1
    chosen: np.ndarray = places[np.argsort(rank, kind="stable")[:count]]
    return chosen


def audible_seconds(recordings: Background, count: int, random: np.random.Generator) -> np.ndarray:
    """Seconds (count, 16000) int16 from random places, but for pauses, which are silence."""
    drawn = random_seconds(recordings, 4 * count, random)
    audible: np.ndarray = drawn[np.abs(drawn).max(1) > AUDIBLE][:count]
    return audible


def fill_bank(
    network: Network, clips: Clips, words: np.ndarray, talk: Background, sounds: Background
) -> Bank:
    """Embeddings of what is no word of a user, and how far apart clips of a word lie.

    Args:
        network: the encoder.
        clips: of words, and of silence.
        words: numbers of those that hold a word.
        talk, sounds: recordings.
    """
    random = np.random.default_rng(0)
    other = one_of_each(clips.targets, words, WORDS, random)
    unknown = [
        from_int16(clips.waves[other]),
        from_int16(audible_seconds(talk, TALK, random)),
        from_int16(audible_seconds(sounds, SOUNDS, random)),
    ]
    counts = np.bincount(clips.targets[words], minlength=len(clips.labels))
    often = words[counts[clips.targets[words]] >= SPREAD_LEAST]
    chosen = np.sort(random.permutation(often)[:SPREAD_CLIPS])
    spread = embed(network, from_int16(clips.waves[chosen]))
    silence = np.flatnonzero(clips.targets == clips.labels.index(SILENCE))
    digital_zero = np.zeros((1, clips.waves.shape[1]), np.int16)
    quiet = (digital_zero, clips.waves[random.permutation(silence)[: SILENT - 1]])
    within = within_words(spread, clips.targets[chosen], SPREAD_LEAST)
    return Bank(
        embed(network, np.concatenate(unknown)),
        embed(network, from_int16(np.concatenate(quiet))),
        metric(within, SHRINKAGE) * SHARPNESS,
        tuple(clips.labels[target] for target in clips.targets[other]),
    )


def recordings(folders: list[Path]) -> Background:
    """Those of all folders."""
    parts = [read_background(folder) for folder in folders]
    names = tuple(name for part in parts for name in part.names)
    return Background(names, tuple(wave for part in parts for wave in part.waves), {})


def main() -> int:
    parser = argparse.ArgumentParser(description="Train an encoder, and fill its bank.")
    parser.add_argument("words", type=Path, help="what recipes/get_words.py made")
    parser.add_argument("--ear", type=Path, required=True, help="folder of Whisper tiny.en")
    for name in ("talk", "sounds"):
        parser.add_argument(f"--{name}", type=Path, required=True, nargs="+", metavar="FOLDER")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument("--run", type=Path, default="runs/encoder", help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--unheard", nargs="+", metavar="WORD", default=[],
        help="words that are left out, for `speechrnn evaluate --few-shot` to tell them apart",
    )  # fmt: skip
    arguments = parser.parse_args()
    clips = load_split(arguments.words, "own", "training", allow_partial=True)
    if unknown := sorted(set(arguments.unheard) - set(clips.labels)):
        raise ValueError(
            f"--unheard {' '.join(unknown)}: expected words with a folder in {arguments.words}"
        )
    unheard = [clips.labels.index(word) for word in arguments.unheard]
    kept = np.flatnonzero(~np.isin(clips.targets, unheard))
    clips = clips.part(kept)
    rest = [clips.labels.index(label) for label in (SILENCE, UNKNOWN) if label in clips.labels]
    words = np.flatnonzero(~np.isin(clips.targets, rest))
    random = np.random.default_rng(0)
    talk, sounds = recordings(arguments.talk), recordings(arguments.sounds)
    waves = np.concatenate(
        (
            clips.waves,
            random_seconds(talk, TALK_PIECES, random),
            random_seconds(sounds, SOUND_PIECES, random),
            splices(clips, words, SPLICES, random),
        )
    )
    clips = replace(clips, waves=waves[: len(clips)])  # not twice in memory
    count = len(np.unique(clips.targets[words]))
    print(f"{len(waves):,} clips, of {count:,} words, of talk and of sounds", flush=True)
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    states = teacher_states(arguments.ear, waves, run / "teacher.npz")
    taught = word_directions(states, words, clips.targets[words])
    noise = join_noises(load_noises(arguments.words, "training"))
    config, weights = train(waves, taught, noise, run, arguments.epochs, arguments.seed)
    bank = fill_bank(Network(config, weights), clips, words, talk, sounds)
    facts = {
        "corpus": arguments.words.name,
        "teacher": "Whisper tiny.en",
        "clips": len(waves),
        "words": count,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "date": datetime.date.today().isoformat(),
        "hardware": f"1 x {platform.machine()} CPU, bf16-mixed",
        "torch": torch.__version__,
    }
    if unheard:
        facts["unheard"] = arguments.unheard
    save_folder(
        arguments.to, config, weights, training=facts, scores={},
        card=CARD.format(clips=len(waves), words=count, parameters=config.parameter_count),
        others={BANK: bank_bytes(bank)},
    )  # fmt: skip
    size = sum(path.stat().st_size for path in arguments.to.iterdir())
    print(f"written: {arguments.to}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"encoder.py: {error}")
