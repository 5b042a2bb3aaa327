"""A training run: from a recipe to a model folder.

In: a recipe (YAML) and words that override it. Out: `runs/NAME/` with the recipe as it was run,
checkpoints, logs, pictures and `model/`. The data flow one way: corpus, frames, batches,
augmentation, loss; what one part needs of another is handed over here, in `prepare`. Optimisation
itself is Lightning's.
"""

import argparse
import csv
import datetime
import difflib
import logging
import platform
import re
import sys
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from speechrnn.corpus import join_noises, load_noises
from speechrnn.evaluation import plots
from speechrnn.evaluation.clips import ClipResult, evaluate_clips
from speechrnn.evaluation.recordings import JoinedRecording, clip_answers, posteriors
from speechrnn.files import whole_file
from speechrnn.folder import save_folder
from speechrnn.model import best_device
from speechrnn.network import Network
from speechrnn.recogniser import Recogniser
from speechrnn.rooms import energy_decays, simulate_rooms
from speechrnn.training.batches import SpeechCommands, global_seed
from speechrnn.training.card import card_metadata, model_card
from speechrnn.training.frames import log_mel_frames, set_feature_statistics
from speechrnn.training.gradients import GradientFlow
from speechrnn.training.module import Training

# With more a picture of confusions has no room for them, a table of them fills many megabytes, and
# the posteriors of a stream fill the memory: an encoder is measured clip by clip.
MOST_LABELS = 100
ROOMS = 200  # in which a training hears its clips
RT60_SECONDS = (0.2, 1.0)  # of these rooms


def run(recipe: str, overrides: list[str], resume: bool = False) -> Path | None:
    """Train as a recipe says.

    Args:
        recipe: path of a YAML file.
        overrides: words such as `--model.hidden_size 192`, as LightningCLI reads them.
        resume: go on from the last checkpoint of the run, if there is one.

    Returns:
        The model folder; None for a `fast_dev_run`, and in all processes of a run but the first.

    Raises:
        FileNotFoundError: if there is no such recipe.
        FileExistsError: if the run folder holds a run and `resume` is off.
        KeyboardInterrupt: if it was stopped.
    """
    if not Path(recipe).is_file():
        raise FileNotFoundError(
            f"no recipe {recipe!r}: expected a YAML file such as recipes/quickstart.yaml"
        )
    log = _silence_lightning()
    cli = _parse(["--config", recipe, *overrides], Path("runs") / Path(recipe).stem)
    trainer: Any = cli.trainer
    if cli.config["trainer"]["profiler"]:
        log.setLevel(logging.INFO)  # that is where a profiler's report goes
    seed = cli.config["seed_everything"]
    if not isinstance(seed, int) or seed is False:
        raise ValueError(
            "seed_everything is false: expected a number, for a run that can be repeated and "
            "resumed"
        )
    folder, last = Path(trainer.default_root_dir), None
    if not trainer.fast_dev_run:
        last = _open_run_folder(folder, cli.parser.dump(cli.config, skip_unset=True), resume)
    started = datetime.datetime.now(datetime.UTC)
    with trainer.profiler.profile("features"):
        prepare(cli.model, cli.datamodule, trainer.strategy.root_device)
    _print_plan(cli.datamodule, trainer.max_epochs)
    try:
        trainer.fit(cli.model, cli.datamodule, ckpt_path=last, weights_only=False)
    except SystemExit:  # Lightning's answer to an interrupt from the keyboard
        raise KeyboardInterrupt(
            "type --resume to go on from the last epoch that was complete"
        ) from None
    if trainer.fast_dev_run or trainer.global_rank:
        return None
    return _finish(cli, folder, started)


def prepare(training: Training, data: SpeechCommands, device: torch.device) -> None:
    """Compute all frames once, before the training, and hand each part what it needs of them.

    The data module gets the frames of the clips; the module those of the noise, the decays of rooms
    where the augmentation asks for them, and the priors of the labels; and the front end of the
    model their mean and deviation, unless it begins with a trained model's. (A checkpoint from
    which the training goes on brings its own.)

    Args:
        training: the module.
        data: its clips are read if they are not yet.
        device: where the training will run; the frames are computed and kept there.
    """
    data.setup("fit")
    if data.answers is not None and training.teacher is None:
        raise ValueError(
            f"answers {data.answers_file} are learned beside a teacher's: expected a teacher too"
        )
    mfcc = training.model.mfcc.to(device)
    data.compute_frames(mfcc)
    training.noise = log_mel_frames(mfcc, data.noise[None])[0].float()
    if training.augmentation.reverberation:
        frames = data.frames["training"].shape[1]  # no decay is heard for longer
        training.decays = room_decays(mfcc.config.hop, frames, global_seed()).to(device)
    if data.pieces:  # which make unknown words much more frequent than they are in use
        training.log_prior = data.log_prior().to(device)
    if training.start is None:
        set_feature_statistics(mfcc, data.frames["training"])


def room_decays(hop: int, frames: int, seed: int) -> torch.Tensor:
    """Energy (R, K) in each of so many frames, every `hop` samples, of the rooms of a training."""
    return torch.from_numpy(energy_decays(simulate_rooms(ROOMS, RT60_SECONDS, seed), hop, frames))


def read_metrics(run_folder: str | Path) -> dict[str, dict[int, float]]:
    """Metrics of a run by name and epoch, from its CSV logs.

    Where a run was resumed, the later log holds.
    """
    metrics: dict[str, dict[int, float]] = {}
    logs = Path(run_folder).glob("csv/version_*/metrics.csv")
    for log in sorted(logs, key=lambda path: int(path.parent.name.split("_")[1])):
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and row["epoch"] and name not in {"epoch", "step"}:
                        metrics.setdefault(name, {})[int(row["epoch"])] = float(value)
    return metrics


def streamed_result(recogniser: Recogniser, data: SpeechCommands) -> ClipResult:
    """The answers on the validation clips, each once, all in one stream with background between."""
    clips = data.clips["validation"]
    noise = join_noises(load_noises(data.folder, "validation"))
    recording = JoinedRecording(clips, noise)
    (result,) = posteriors(recogniser, [recording])
    return clip_answers(result, recording, data.protocol, "validation")


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all.

    Lightning itself copies them from the system's temporary folder to their place.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: if it cannot be written; the one before it is as it was.
        """
        try:
            with whole_file(path) as beside, beside.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where a disk is full
            reason = getattr(error, "strerror", None) or error
            raise OSError(
                f"{path}: cannot be written: {reason}; the checkpoint before it is as it was"
            ) from error

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            ValueError: if it is damaged.
        """
        try:
            return dict(super().load_checkpoint(path, *arguments, **options))
        except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it to begin the run anew"
            ) from error


class _RecipeCli(LightningCLI):
    """`speechrnn train`: a recipe, the words that override it, and where the run is kept."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.labels", "model.labels", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self.config_init["trainer"]
        folder = trainer["default_root_dir"]
        # Lightning's `auto` for precision is float32; tensor cores want half. |h| <= 1 suits the 11
        # bits of fp16 better than the 8 of bf16.
        if trainer["precision"] is None:
            may_use_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda")
            on_gpu = may_use_gpu and best_device().type == "cuda"
            kwargs["precision"] = "16-mixed" if on_gpu else "32-true"
        epochs, every = trainer["max_epochs"] or 0, trainer["check_val_every_n_epoch"] or 1
        if epochs > 0:  # a run too short for its first validation would have no best epoch
            kwargs["check_val_every_n_epoch"] = min(every, epochs)
        kwargs["logger"] = [
            CSVLogger(folder, name="csv"),
            TensorBoardLogger(folder, name="tensorboard"),
        ]
        kwargs["plugins"] = [*(trainer["plugins"] or []), WholeCheckpoints()]
        best: dict[str, Any] = {"monitor": "validation_accuracy", "mode": "max"}
        kwargs["callbacks"] = [
            ModelCheckpoint(folder, "best", **best, enable_version_counter=False),
            # Not `save_last`: that is written with the best only, and a run would resume from
            # there.
            ModelCheckpoint(
                folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
            ),
            GradientFlow(),
            *(trainer["callbacks"] or []),
        ]
        if sys.stderr.isatty() and trainer["enable_progress_bar"] is not False:
            kwargs["callbacks"].append(RichProgressBar(console_kwargs={"stderr": True}))
        else:  # a line an epoch instead
            kwargs["enable_progress_bar"] = False
        return super().instantiate_trainer(**kwargs)


def _silence_lightning() -> logging.Logger:
    """Turn off what Lightning advises and warns of where nothing is wrong; gives its logger."""
    log = logging.getLogger("pytorch_lightning")
    log.setLevel(logging.WARNING)
    for pattern in (
        # Lightning 2.6 calls what torch 2.11 and jsonargparse 4.49 deprecate.
        r"\s*(By default only one JsonargparseDeprecationWarning|.* was deprecated in v4\.49)",
        "`isinstance.treespec, LeafSpec.` is deprecated",
        "Checkpoint directory .* exists and is not empty",  # the recipe is there
        r"Found \d+ module\(s\) in eval mode",  # the teacher
    ):
        warnings.filterwarnings("ignore", pattern)
    return log


def _parse(arguments: list[str], folder: Path) -> _RecipeCli:
    try:
        with warnings.catch_warnings():
            # It warns of every process whose own command line has words, as ours has.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
            return _RecipeCli(
                Training,
                SpeechCommands,
                run=False,
                args=arguments,
                save_config_callback=None,  # `run` writes it, once it knows that the folder is free
                auto_configure_optimizers=False,
                seed_everything_default=1,
                trainer_defaults={
                    "default_root_dir": str(folder),
                    # All figures are of an epoch; at its 10 Lightning warns of short epochs.
                    "log_every_n_steps": 1,
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                },
                parser_kwargs={
                    # Else jsonargparse prints usage, a tip, and an error of up to ten lines.
                    "exit_on_error": False,
                    # Else a misspelt `--trainer.max_epoch` is silently taken for `max_epochs`.
                    "allow_abbrev": False,
                },
            )
    except (argparse.ArgumentError, UnicodeDecodeError) as error:
        reason = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", " ".join(str(error).split()))
        raise argparse.ArgumentError(None, f"{arguments[1]}: {reason}; {_hint(reason)}") from error


def _hint(reason: str) -> str:
    """What to type instead of a key that the recipe's parser does not know."""
    key = re.search(
        r"Group '([\w.]+)' does not accept option '([\w.]+)|unrecognized arguments: --([\w.]+)",
        reason,
    )
    if key:
        parser = LightningArgumentParser()
        for group, kind in (("trainer", Trainer), ("model", Training), ("data", SpeechCommands)):
            parser.add_lightning_class_args(kind, group)
        name, known = ".".join(filter(None, key.groups())), parser.get_defaults().keys()
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            return f"did you mean {near[0]}?"
    return "see `speechrnn train --help`"


def _open_run_folder(folder: Path, recipe: str, resume: bool) -> Path | None:
    """Write the recipe into the run folder; gives the checkpoint from which the run goes on."""
    last = folder / "last.ckpt"
    begun = last.is_file()
    if begun and not resume:
        raise FileExistsError(
            f"{folder} holds a run: type --resume to go on with it, or --trainer.default_root_dir "
            "runs/OTHER for a new one"
        )
    if begun:
        _require_same_recipe(recipe, folder)
    _write_recipe(recipe, folder)
    return last if begun else None


def _require_same_recipe(recipe: str, folder: Path) -> None:
    """A run goes on as it began: same model, data and seed.

    Its corpus may have moved, and trainer and backend may be others.
    """
    kept, given = map(yaml.safe_load, ((folder / "recipe.yaml").read_text(), recipe))
    for group in ("seed_everything", "model", "data"):
        parts = (kept[group], given[group])
        before, now = (part if isinstance(part, dict) else {"": part} for part in parts)
        for key in sorted({*before, *now} - {"folder", "allow_partial", "backend"}):
            if before.get(key) != now.get(key):
                name = f"{group}.{key}".rstrip(".")
                raise ValueError(
                    f"{folder} was begun with {name} {before.get(key)}, not {now.get(key)}: type "
                    "that, or --trainer.default_root_dir runs/OTHER for a new run"
                )


@rank_zero_only
def _write_recipe(text: str, folder: Path) -> None:
    with whole_file(folder / "recipe.yaml") as beside:
        beside.write_text(text)


@rank_zero_only
def _print_plan(data: SpeechCommands, epochs: int) -> None:
    """Say how many clips there are, and how often a training hears them."""
    clips, draws = len(data.clips["training"]), data.draws()
    print(
        f"{clips:,} clips for training, {len(data.clips['validation']):,} for validation; "
        f"{epochs} x {draws:,} draws: each is heard {epochs * draws / clips:.1f} times on average",
        file=sys.stderr,
    )


def _finish(cli: _RecipeCli, folder: Path, started: datetime.datetime) -> Path:
    """Write the best checkpoint as a model folder, and the pictures."""
    training, data, trainer = cli.model, cli.datamodule, cli.trainer
    best_file = folder / "best.ckpt"  # not there where the run ended before its first validation
    checkpoint = best_file if best_file.is_file() else folder / "last.ckpt"
    best = torch.load(checkpoint, map_location="cpu", weights_only=False)
    training.load_state_dict(best["state_dict"])
    config, weights = training.model.config, training.model.arrays()
    recogniser = Recogniser(Network(config, weights), {})
    alone = evaluate_clips(recogniser, data.clips["validation"], data.protocol, "validation")
    streamed = None
    if len(config.labels) <= MOST_LABELS:
        streamed = streamed_result(recogniser, data)
    results = [alone, streamed] if streamed else [alone]
    facts = {
        "recipe": (folder / "recipe.yaml").read_text(),
        "seed": global_seed(),
        "epochs": trainer.current_epoch,
        "best_epoch": best["epoch"] + 1,
        "clips": {split: len(clips) for split, clips in data.clips.items()},
        "corpus": data.folder.name,
        "date": started.date().isoformat(),
        "hardware": f"{trainer.world_size} x {_hardware(trainer)}, {trainer.precision}",
        "torch": torch.__version__,
    }
    scores = {"validation" + "_stream" * result.streamed: result.figures() for result in results}
    if len(config.labels) > MOST_LABELS:
        del scores["validation"]["confusion"]
    save_folder(
        folder / "model",
        config,
        weights,
        training=facts,
        scores=scores,
        card=card_metadata(folder.name, data.folder.name, results)
        + model_card(config, facts, alone, streamed),
    )
    _draw(trainer, folder, alone, config.seconds_per_step)
    return folder / "model"


def _hardware(trainer: Any) -> str:
    if trainer.strategy.root_device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU"


def _draw(trainer: Any, folder: Path, result: ClipResult, seconds_per_step: float) -> None:
    """Draw the run: its losses and accuracies, its gradients, and the answers of its model."""
    name = folder.name
    plots.save(plots.curves(read_metrics(folder), name), folder / "curves.png")
    (flow,) = (callback for callback in trainer.callbacks if isinstance(callback, GradientFlow))
    figure = plots.gradients([(name, flow.history, seconds_per_step)])
    plots.save(figure, folder / "gradients.png")
    if len(result.labels) <= MOST_LABELS:
        title = f"{name}, {result.protocol} validation: {result.accuracy:.1%}"
        plots.save(plots.confusion(result, title), folder / "confusion.png")
