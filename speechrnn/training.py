"""Training: the LightningModule around the model, and a run from a recipe to a model folder.

In: a recipe (YAML) and words that override it. Out: `runs/NAME/` with the recipe as it was run, checkpoints, logs, curves and
`model/`. Optimisation is Lightning's; here stand the loss, the augmentation's place, the seeds and what is kept.
"""

import argparse
import datetime
import difflib
import logging
import math
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

import speechrnn
from speechrnn import checkpoint, plots
from speechrnn.augment import Augmentation
from speechrnn.data import UNKNOWN, SpeechCommands, global_seed, load_noise, progress
from speechrnn.evaluation import Report, evaluate_clips, evaluate_stream
from speechrnn.features import Mfcc
from speechrnn.gradients import GradientFlow
from speechrnn.model import Model, ModelConfig, pool
from speechrnn.recurrence import Backend

FEATURE_BATCH = 256
FRONT_END = ("window_ms", "hop_ms", "fft_size", "mel_low_hz", "mel_high_hz", "mel_bands", "log_floor", "stack")
TEMPERATURE = 2.0  # of both softmaxes (Hinton et al. 2015, 2); times its square, gradients keep their size


class Training(LightningModule):
    """A model in training: cross-entropy of the pooled logits; Muon and AdamW, warm-up and cosine.

    Args:
        labels: of the classes; they come from the data.
        learning_rate: AdamW's highest, after the warm-up, for all but the matrices of the blocks.
        matrix_learning_rate: Muon's highest, for the matrices of the blocks: W_ih, W_hh and the feed-forward parts.
        weight_decay: of all matrices; biases and normalisations have none.
        warm_up: share of all steps in which the learning rates rise from 0; then they fall as a cosine to 0.
        label_smoothing: probability taken from the true label and spread over all.
        carry_state: share of the clips that start from the state the clip before left, as in a stream, not from silence (as
            `--rolling` in EdgeML's FastGRNN).
        start: a model whose weights and normalisation training begins with, as a shipped name or a folder; of the same shape,
            features and labels.
        teacher: a model whose answers are learned beside the labels (Hinton, Vinyals and Dean 2015, arXiv 1503.02531), as a
            shipped name or a folder; its labels and mel frames must be those of this model.
        teacher_share: share of the loss that is the teacher's.
        backend: how the recurrences are computed, see `Recurrence`: auto, torch, in_place, triton or loop.
        augmentation: how far training clips differ from the recorded ones.
        **model: shape and features, see `ModelConfig`.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        learning_rate: float = 4e-3,
        matrix_learning_rate: float = 0.01,
        weight_decay: float = 0.05,
        warm_up: float = 0.1,
        label_smoothing: float = 0.05,
        carry_state: float = 0.5,
        start: str | None = None,
        teacher: str | None = None,
        teacher_share: float = 0.7,
        backend: Backend = "auto",
        augmentation: Augmentation = Augmentation(),  # noqa: B008  # frozen
        **model: Any,
    ) -> None:
        super().__init__()
        self.model = Model(ModelConfig(labels=tuple(labels), **model))
        self.model.set_backend(backend)
        self.learning_rate, self.matrix_learning_rate = learning_rate, matrix_learning_rate
        self.weight_decay, self.warm_up = weight_decay, warm_up
        self.label_smoothing, self.carry_state = label_smoothing, carry_state
        self.start = start
        if start is not None:
            first = checkpoint.load(start)
            _require_same(f"start {start}", first.config, self.model.config, [field.name for field in fields(ModelConfig)])
            self.model.load_state_dict(first.state_dict())
        self.teacher_share = teacher_share
        self.teacher = None
        if teacher is not None:
            self.teacher = checkpoint.load(teacher).requires_grad_(False)
            _require_same(f"teacher {teacher}", self.teacher.config, self.model.config, ("labels", *FRONT_END))
        self.augmentation = augmentation
        self.unknown = labels.index(UNKNOWN) if UNKNOWN in labels else -1
        self.carried: Tensor | None = None  # h after the clips before
        self.epoch_started: float | None = None
        self.training_accuracy = MulticlassAccuracy(len(labels), average="micro")
        self.validation_accuracy = MulticlassAccuracy(len(labels), average="micro")
        self.validation_confusion = MulticlassConfusionMatrix(len(labels))

    def on_fit_start(self) -> None:
        """Compute the log mel frames of the training clips and of the noise, once, and keep them on the device.

        Their mean and deviation become the model's normalisation, unless a checkpoint or the model begun with brought one.
        """
        trainer: Any = self.trainer
        data = trainer.datamodule
        with trainer.profiler.profile("features"):
            self.log_mel = log_mel_frames(self.model.mfcc, data.clips["training"].waves)
            self.noise = log_mel_frames(self.model.mfcc, data.noise.unsqueeze(0))[0].float()
        if trainer.ckpt_path is None and self.start is None:
            set_feature_statistics(self.model.mfcc, self.log_mel)

    def on_train_epoch_start(self) -> None:
        """Begin each epoch from silence: a resumed run has no clip before."""
        self.carried = None
        self.epoch_started = time.monotonic()

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Seed each step, so that a resumed run draws what an unbroken one would."""
        step = self.current_epoch * 1_000_003 + batch_index
        torch.manual_seed(((global_seed() * 1_000_000_007 + step) * 1_009 + self.global_rank) % 2**63)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of the training clips with these indices (B,) and targets (B,)."""
        clips, targets = batch
        trainer: Any = self.trainer
        timed = trainer.profiler.profile
        with timed("augmentation"):
            log_mel = self.augmented(clips, targets)
        with timed("network"):
            loss, answer = self.loss(log_mel, targets)
        self.training_accuracy(answer, targets)
        self.log("training_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(targets))
        self.log("training_accuracy", self.training_accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def augmented(self, clips: Tensor, targets: Tensor) -> Tensor:
        """Log mel frames (B, T, M) of the training clips with these indices (B,), changed at random."""
        log_mel = self.augmentation.make_strange(self.log_mel[clips].float(), targets == self.unknown)
        return self.augmentation(log_mel, self.noise, self.model.config.log_floor)

    def loss(self, log_mel: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and answer (B, C), of log mel frames (B, T, M); some clips start from what the call before left."""
        logits, hidden = self.model.from_log_mel(log_mel, self._start(len(targets)))
        answer = self.answer(logits.float())
        loss = cross_entropy(answer, targets, label_smoothing=self.label_smoothing)
        if self.teacher is not None:
            loss = (1 - self.teacher_share) * loss + self.teacher_share * self._teacher_loss(log_mel, answer)
        self.carried = hidden.detach()
        return loss, answer

    def answer(self, logits: Tensor) -> Tensor:
        """One answer (B, C) from the logits of all steps (B, T, C)."""
        return pool(logits)

    def _teacher_loss(self, log_mel: Tensor, answer: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the teacher's answers, both softened."""
        teacher: Any = self.teacher
        with torch.no_grad():
            taught = pool(teacher.from_log_mel(log_mel, teacher.initial_state(len(log_mel)).hidden)[0].float())
        soft, target = ((logits / TEMPERATURE).log_softmax(-1) for logits in (answer, taught))
        return TEMPERATURE**2 * kl_div(soft, target, reduction="batchmean", log_target=True)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's speed; where no progress bar is shown, say how it went in a line."""
        if self.epoch_started is None:  # resumed from a checkpoint that the epoch's validation wrote: nothing is left to train
            return
        trainer: Any = self.trainer
        seconds = time.monotonic() - self.epoch_started
        self.log("epoch_seconds", seconds)
        groups = trainer.optimizers[0].param_groups
        self.log("matrix_learning_rate", groups[0]["lr"])
        self.log("learning_rate", groups[-1]["lr"])
        if trainer.is_global_zero and not sys.stderr.isatty():
            known = trainer.callback_metrics
            validated = (self.current_epoch + 1) % trainer.check_val_every_n_epoch == 0
            figures = ["training_loss", *(["validation_accuracy"] if validated and "validation_accuracy" in known else [])]
            said = ", ".join(f"{name.replace('_', ' ')} {known[name]:.4f}" for name in figures)
            print(f"epoch {self.current_epoch + 1} of {trainer.max_epochs}: {said}, {seconds:.1f} s", file=sys.stderr)

    def _start(self, batch: int) -> Tensor:
        """h before the first step: zero for some clips, what the clip before left for the others."""
        hidden = self.model.initial_state(batch).hidden
        carried = self.carried
        if not self.carry_state or carried is None or carried.shape != hidden.shape:
            return hidden
        return torch.where(torch.rand(batch, 1, device=self.device) < self.carry_state, carried.to(hidden), hidden)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Count right answers in a batch."""
        waves, targets = batch
        answer = self.answer(self.model(waves.float() / 32768)[0].float())
        self.validation_accuracy(answer, targets)
        self.validation_confusion.update(answer, targets)
        self.log("validation_loss", cross_entropy(answer, targets), sync_dist=True, batch_size=len(targets))
        self.log("validation_accuracy", self.validation_accuracy, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the classes that have clips; torchmetrics' macro average counts the others as wrong."""
        confusion = self.validation_confusion.compute()
        clips = confusion.sum(1)
        self.log("validation_mean_accuracy", (confusion.diag()[clips > 0] / clips[clips > 0]).mean())
        self.validation_confusion.reset()

    def optimizer_groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Parameter groups for Muon and for AdamW."""
        blocks: list[Tensor] = []
        decayed: list[Tensor] = []
        free: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (free if parameter.ndim < 2 else blocks if "blocks" in name else decayed).append(parameter)
        return [{"params": blocks}], [{"params": decayed}, {"params": free, "weight_decay": 0.0}]

    def optimizer(self) -> torch.optim.Optimizer:
        """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW (Loshchilov and Hutter 2019) for the rest."""
        matrices, rest = self.optimizer_groups()
        return _Together(
            *([torch.optim.Muon(matrices, lr=self.matrix_learning_rate, weight_decay=self.weight_decay)] if matrices else []),
            torch.optim.AdamW(rest, lr=self.learning_rate, weight_decay=self.weight_decay),
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with a linear warm-up and a cosine to zero."""
        optimizer = self.optimizer()
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError("max_epochs is -1: expected a number, for the learning rate falls to 0 at the end")
        rising = max(1, round(self.warm_up * steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _require_same(whose: str, theirs: ModelConfig, ours: ModelConfig, names: Iterable[str]) -> None:
    for name in names:
        if (found := getattr(theirs, name)) != (expected := getattr(ours, name)):
            raise ValueError(f"{whose} has {name} {found}: expected {expected}, as in the recipe; change one of them")


class _Together(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, as the one that Lightning steps and saves."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


@torch.no_grad()
def log_mel_frames(mfcc: Mfcc, waves: Tensor) -> Tensor:
    """Log mel frames (n, T, M) of clips (n, N) int16, on the device of `mfcc`; float16 is wrong by 0.02 dB at most."""
    frames = [
        mfcc.log_mel(mfcc.frames(part.to(mfcc.window.device).float() / 32768)[0]).half()
        for part in progress(torch.split(waves, FEATURE_BATCH), "features")
    ]
    return torch.cat(frames)


@torch.no_grad()
def set_feature_statistics(mfcc: Mfcc, log_mel: Tensor) -> None:
    """Mean and standard deviation of each coefficient over all log mel frames (n, T, M), into the buffers of `mfcc`."""
    mfcc.mean.zero_()
    mfcc.std.fill_(1)
    total, squares = torch.zeros(2, len(mfcc.mean), dtype=torch.float64)  # on the CPU: not every device has float64
    for part in torch.split(log_mel, FEATURE_BATCH):
        features = mfcc.cepstrum(part.float()).cpu().double()
        total += features.sum((0, 1))
        squares += features.square().sum((0, 1))
    frames = log_mel.shape[0] * log_mel.shape[1]
    mfcc.mean.copy_(total / frames)
    mfcc.std.copy_((squares / frames - (total / frames).square()).sqrt().clamp(min=1e-3))


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints are written beside their place and renamed; Lightning copies them from the system's temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        beside = Path(f"{path}.part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
            os.replace(beside, path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where a disk is full
            raise OSError(f"{path}: cannot be written: {error}; the checkpoint before it is as it was") from error
        finally:
            beside.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return dict(super().load_checkpoint(path, *arguments, **options))
        except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to begin the run anew") from error


class _TrainCli(LightningCLI):
    """`speechrnn train`: a recipe, the words that override it, and where the run is kept."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.labels", "model.labels", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self.config_init["trainer"]
        folder = trainer["default_root_dir"]
        # Lightning's `auto` for precision is float32; tensor cores want half. fp16 suits |h| <= 1 better than bf16's 8 bits.
        if trainer["precision"] is None:
            on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
            kwargs["precision"] = "16-mixed" if on_gpu else "32-true"
        if (trainer["max_epochs"] or 0) > 0:  # a run too short for its first validation would have no best epoch
            kwargs["check_val_every_n_epoch"] = min(trainer["check_val_every_n_epoch"] or 1, trainer["max_epochs"])
        kwargs["logger"] = [CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")]
        kwargs["plugins"] = [*(trainer["plugins"] or []), _WholeFiles()]
        kwargs["callbacks"] = [
            ModelCheckpoint(folder, "best", monitor="validation_accuracy", mode="max", enable_version_counter=False),
            # Not `save_last`: that is written only when the best is, and a run would resume from there.
            ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
            GradientFlow(),
            *(trainer["callbacks"] or []),
        ]
        if sys.stderr.isatty() and trainer["enable_progress_bar"] is not False:
            kwargs["callbacks"].append(RichProgressBar(console_kwargs={"stderr": True}))
        else:  # a line an epoch instead
            kwargs["enable_progress_bar"] = False
        return super().instantiate_trainer(**kwargs)


def run(recipe: str, overrides: list[str], resume: bool = False) -> Path | None:
    """Train as a recipe says.

    Args:
        recipe: path of a YAML file.
        overrides: words such as `--model.hidden_size 192`, as LightningCLI reads them.
        resume: go on from the last checkpoint of the run, if there is one.

    Returns:
        The model folder; None for a `fast_dev_run`, or where other processes than this one write.

    Raises:
        FileExistsError: if the run folder holds a run and `resume` is off.
        KeyboardInterrupt: if it was stopped.
    """
    if not Path(recipe).is_file():
        raise FileNotFoundError(f"no recipe {recipe!r}: expected a YAML file such as recipes/quickstart.yaml")
    log = logging.getLogger("pytorch_lightning")
    log.setLevel(logging.WARNING)  # its advice on loggers and devices
    # Lightning 2.6 calls what torch 2.11 and jsonargparse 4.49 deprecate, and finds the recipe in the run folder.
    warnings.filterwarnings("ignore", r"\s*(By default only one JsonargparseDeprecationWarning|.* was deprecated in v4\.49)")
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # the teacher
    cli = _parse(["--config", recipe, *overrides], Path("runs") / Path(recipe).stem)
    trainer: Any = cli.trainer
    if cli.config["trainer"]["profiler"]:
        log.setLevel(logging.INFO)  # that is where a profiler's report goes
    folder = Path(trainer.default_root_dir)
    last = folder / "last.ckpt"
    begun = last.is_file() and not trainer.fast_dev_run
    if begun and not resume:
        raise FileExistsError(
            f"{folder} holds a run: type --resume to go on with it, or --trainer.default_root_dir runs/OTHER for a new one"
        )
    if not isinstance(cli.config["seed_everything"], int) or cli.config["seed_everything"] is False:
        raise ValueError("seed_everything is false: expected a number, for a run that can be repeated and resumed")
    if not trainer.fast_dev_run:
        text = cli.parser.dump(cli.config, skip_unset=True)
        if begun:
            _require_same_recipe(text, folder)
        _write_recipe(text, folder)
    started = datetime.datetime.now(datetime.UTC)
    try:
        trainer.fit(cli.model, cli.datamodule, ckpt_path=last if begun else None, weights_only=False)
    except SystemExit:  # Lightning's answer to an interrupt from the keyboard
        raise KeyboardInterrupt("type --resume to go on from the last epoch that was complete") from None
    if trainer.fast_dev_run or trainer.global_rank:
        return None
    return _finish(cli, folder, started)


def _parse(arguments: list[str], folder: Path) -> _TrainCli:
    try:
        with warnings.catch_warnings():
            # It warns of every process whose own command line has words, as ours has.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
            return _TrainCli(
                Training,
                SpeechCommands,
                run=False,
                args=arguments,
                save_config_callback=None,  # written by `run`, which knows whether the folder is free
                auto_configure_optimizers=False,
                seed_everything_default=1,
                trainer_defaults={
                    "default_root_dir": str(folder),
                    "log_every_n_steps": 1,  # all figures are of an epoch; at 10 Lightning warns of short epochs
                    "use_distributed_sampler": False,
                    "enable_model_summary": False,
                },
                parser_kwargs={
                    "exit_on_error": False,  # else jsonargparse prints usage, tip and an error of up to ten lines
                    "allow_abbrev": False,  # else a misspelt `--trainer.max_epoch` is silently taken for `max_epochs`
                },
            )
    except (argparse.ArgumentError, UnicodeDecodeError) as error:
        said = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", " ".join(str(error).split()))
        hint = "see `speechrnn train --help`"
        if key := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)|unrecognized arguments: --([\w.]+)", said):
            parser = LightningArgumentParser()
            for group, kind in (("trainer", Trainer), ("model", Training), ("data", SpeechCommands)):
                parser.add_lightning_class_args(kind, group)
            near = difflib.get_close_matches(".".join(filter(None, key.groups())), parser.get_defaults().keys(), n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else hint
        raise argparse.ArgumentError(None, f"{arguments[1]}: {said}; {hint}") from error


def _require_same_recipe(recipe: str, folder: Path) -> None:
    """A run goes on as it began: same model, data and seed. Its corpus may have moved, trainer and backend may be others."""
    kept, given = (yaml.safe_load(text) for text in ((folder / "recipe.yaml").read_text(), recipe))
    for group in ("seed_everything", "model", "data"):
        before, now = ({"": part} if not isinstance(part, dict) else part for part in (kept[group], given[group]))
        for key in sorted({*before, *now} - {"folder", "allow_partial", "backend"}):
            if before.get(key) != now.get(key):
                raise ValueError(
                    f"{folder} was begun with {f'{group}.{key}'.rstrip('.')} {before.get(key)}, not {now.get(key)}: type that, "
                    "or --trainer.default_root_dir runs/OTHER for a new run"
                )


@rank_zero_only
def _write_recipe(text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(text)


def _finish(cli: _TrainCli, folder: Path, started: datetime.datetime) -> Path:
    """Write the best checkpoint as a model folder, and the pictures."""
    trainer: Any = cli.trainer
    training, data = cli.model, cli.datamodule
    best = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=False)
    hardware = torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else f"{platform.machine()} CPU"
    training.load_state_dict(best["state_dict"])
    model = training.model.cpu()
    clips, noise = data.clips["validation"], load_noise(data.folder, "validation")
    report = evaluate_clips(model, clips, data.protocol, "validation")
    stream = evaluate_stream(model, clips, noise, data.protocol, "validation")
    facts = {
        "recipe": (folder / "recipe.yaml").read_text(),
        "seed": global_seed(),
        "epochs": trainer.current_epoch,
        "best_epoch": best["epoch"] + 1,
        "clips": {split: len(clips) for split, clips in data.clips.items()},
        "corpus": data.folder.name,
        "date": started.date().isoformat(),
        "hardware": f"{trainer.world_size} x {hardware}, {trainer.precision}",
        "torch": torch.__version__,
    }
    checkpoint.save(
        model,
        folder / "model",
        training=facts,
        scores={"validation": report.figures(), "validation_stream": stream.figures()},
        card=model_card(model, facts, report, stream),
    )
    plots.save(plots.curves(folder, folder.name), folder / "curves.png")
    flow = next(callback for callback in trainer.callbacks if isinstance(callback, GradientFlow))
    plots.save(plots.gradients([(folder.name, flow.history, model.config.seconds_per_step)]), folder / "gradients.png")
    plots.save(
        plots.confusion(report, f"{folder.name}, {report.protocol} validation: {report.accuracy:.1%}"),
        folder / "confusion.png",
    )
    return folder / "model"


def model_card(model: Model, facts: dict[str, Any], report: Report, stream: Report) -> str:
    """A model card (Mitchell et al. 2019, arXiv 1810.03993) from the facts of a run."""
    config = model.config
    words = ", ".join(config.words)
    credit = " Speech Commands is Pete Warden's (arXiv 1804.03209), CC BY 4.0." if "speech_commands" in facts["corpus"] else ""
    return f"""# A speechrnn model

Recognises {len(config.words)} spoken words ({words}) in 16 kHz audio with {config.layers} vanilla recurrent layers of
{config.hidden_size} units, `h[t] = {config.activation}(W_ih x[t] + b + W_hh h[t-1])`: {model.parameter_count:,} parameters.

    speechrnn classify --model FOLDER a.wav

## Data

Trained on {facts["clips"]["training"]:,} clips of `{facts["corpus"]}`, protocol {report.protocol}; the epoch was chosen on
{report.clips:,} validation clips.{credit}

## Accuracy on the validation split, on which the epoch was chosen

- Each clip alone: {report.summary()}.
- All clips in one stream, with background between them and a state that is never reset: {stream.summary()}.

{report.table()}

## Limits

It hears the words above, spoken alone, in the accents and rooms of its corpus, and it answers with one of its labels to
anything it is given. It was not measured on children, on far microphones, or on other languages. Do not let it decide anything
that matters without asking back.

## The run

speechrnn {speechrnn.__version__}, torch {facts["torch"]}, seed {facts["seed"]}, {facts["epochs"]} epochs of which number
{facts["best_epoch"]} was the best, {facts["date"]}, {facts["hardware"]}.

```yaml
{facts["recipe"].strip()}
```
"""
