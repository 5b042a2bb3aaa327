"""What a training step does: the loss of a batch, its gradients' way to the weights, its figures.

In: batches of log mel frames (B, T, M) and targets (B,), and beforehand the frames of background
noise and the decays of rooms. Out: a model that has learned. It does not know corpora, where
batches come from, or files other than the model folders that it may start or learn from.
"""

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from speechrnn.config import FRAME_SETTINGS, SILENCE, UNKNOWN, ModelConfig
from speechrnn.enrolment import ENCODER
from speechrnn.model import Model
from speechrnn.recurrence import Backend
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import NO_WORD, global_seed

# Of both softmaxes (Hinton et al. 2015, 2); with its square as factor, gradients keep their size.
TEMPERATURE = 2.0


class Training(LightningModule):
    """A model in training.

    The loss is the cross-entropy of the pooled logits; Muon and AdamW take the steps, with a
    warm-up and a cosine.

    Args:
        labels: of the classes; they come from the data.
        learning_rate: AdamW's highest, after the warm-up, for all but the matrices of the blocks.
        matrix_learning_rate: Muon's highest, for the matrices of the blocks: W_ih, W_hh and the
            feed-forward parts.
        weight_decay: of all matrices; biases and normalisations have none.
        warm_up: share of all steps in which the learning rates rise from 0; then they fall as a
            cosine to 0.
        label_smoothing: probability taken from the true label and spread over all.
        carry_state: share of the clips that start from the state which the clip before left, as in
            a stream, and not from silence (as `--rolling` in EdgeML's FastGRNN).
        start: a model whose weights and normalisation the training begins with, as a shipped name
            or a folder, or `encoder` for the one that `speechrnn enrol` uses; of the same shape and
            features. Where its labels are not these, all but its head is taken over.
        teacher: a model whose answers are learned beside the labels (Hinton, Vinyals and Dean 2015,
            arXiv 1503.02531), as a shipped name or a folder; its labels and mel frames must be
            those of this model.
        teacher_share: share of the loss that is the teacher's.
        backend: how the recurrences are computed, see `Recurrence`: auto, torch, in_place, triton
            or loop.
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
            self._begin_with(Model.load(ENCODER if start == "encoder" else start))
        self.teacher_share = teacher_share
        self.teacher = None
        if teacher is not None:
            self.teacher = Model.load(teacher).requires_grad_(False)
            names = ["labels", *FRAME_SETTINGS]
            _require_same(f"teacher {teacher}", self.teacher.config, self.model.config, names)
        self.augmentation = augmentation
        self.unknown = labels.index(UNKNOWN) if UNKNOWN in labels else None
        self.no_words = [labels.index(label) for label in (UNKNOWN, SILENCE) if label in labels]
        # Log mel frames (K, M) of background noise, on the training's device; none, until given.
        self.noise = torch.zeros(0, self.model.config.mel_bands)
        # Energy (R, K) in each frame of R rooms, on the training's device; none, until given.
        self.decays = torch.zeros(0, 1)
        # Logarithm (C,) of how much more often a label is drawn than it is met; none, until given.
        self.log_prior = torch.zeros(len(labels))
        self.carried: Tensor | None = None  # h after the clips before
        self.epoch_started: float | None = None
        self.training_accuracy = MulticlassAccuracy(
            len(labels), average="micro", ignore_index=NO_WORD
        )
        self.validation_accuracy = MulticlassAccuracy(len(labels), average="micro")
        self.validation_confusion = MulticlassConfusionMatrix(len(labels))

    def _begin_with(self, first: Model) -> None:
        """Take over its weights; for other labels, with a new head that weighs steps as its did."""
        names = [field.name for field in fields(ModelConfig) if field.name != "labels"]
        _require_same(f"start {self.start}", first.config, self.model.config, names)
        weights = first.state_dict()
        if first.config.labels != self.model.config.labels:
            new = {name: self.model.state_dict()[name] for name in ("head.1.weight", "head.1.bias")}
            rows = new["head.1.weight"]  # random, and small
            # Of all the rows it is the mean that weighs the steps of a clip, see `Model.answer`.
            new["head.1.weight"] = rows - rows.mean(0) + weights["head.1.weight"].mean(0)
            weights |= new
        self.model.load_state_dict(weights)

    def on_train_epoch_start(self) -> None:
        """Begin each epoch from silence: a resumed run has no clip before."""
        self.carried = None
        self.epoch_started = time.monotonic()

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Seed each step, so that a resumed run draws what an unbroken one would."""
        step = self.current_epoch * 1_000_003 + batch_index
        seed = (global_seed() * 1_000_000_007 + step) * 1_009 + self.global_rank
        torch.manual_seed(seed % 2**63)

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> Tensor:
        """Loss of a batch: log mel frames (B, T, M), targets (B,), and answers (B, C) if any."""
        log_mel, targets, *answers = batch
        trainer: Any = self.trainer
        timed = trainer.profiler.profile
        with timed("augmentation"):
            log_mel = self.augmented(log_mel, targets)
        with timed("network"):
            loss, answer = self.loss(log_mel, targets, *answers)
        self.training_accuracy(answer, targets)
        in_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True}
        self.log("training_loss", loss, **in_epoch, sync_dist=True, batch_size=len(targets))
        self.log("training_accuracy", self.training_accuracy, **in_epoch, prog_bar=True)
        return loss

    def augmented(self, log_mel: Tensor, targets: Tensor) -> Tensor:
        """Log mel frames (B, T, M) of clips with these targets (B,), changed at random; float32."""
        log_mel = log_mel.float()
        if self.unknown is not None:
            log_mel = self.augmentation.make_pseudo_words(log_mel, targets == self.unknown)
        return self.augmentation(log_mel, self.noise, self.model.config.log_floor, self.decays)

    def loss(
        self, log_mel: Tensor, targets: Tensor, others: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss, and answers (B, C), of log mel frames (B, T, M) with targets (B,).

        Some clips start from the state that the call before left.

        Args:
            log_mel: as the model hears the clips.
            targets: of the clips.
            others: log probabilities (B, C) from another model, learned beside the teacher's; NaN
                for clips that have none.
        """
        answer, hidden = self.answer(log_mel, self._start(len(targets)))
        expected = answer + self.log_prior.to(answer)
        loss = self._label_loss(expected, targets)
        if self.teacher is not None:
            from_teacher = self._teacher_loss(log_mel, answer, others)
            loss = (1 - self.teacher_share) * loss + self.teacher_share * from_teacher
        self.carried = hidden.detach()
        return loss, answer

    def _label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C), smoothed; for `NO_WORD` unknown and silence are right."""
        log_share = logits.log_softmax(-1)
        right = log_share.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        if self.no_words:
            no_word = log_share[:, self.no_words].logsumexp(-1)
            right = torch.where(targets == NO_WORD, no_word, right)
        smoothed = torch.lerp(right, log_share.mean(-1), self.label_smoothing)
        return -smoothed.mean()

    def answer(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One answer (B, C), float32, for each clip (B, T, M), and the last h (L, B, H)."""
        answer, hidden = self.model.answer(log_mel, hidden)
        return answer.float(), hidden

    def _teacher_loss(
        self, log_mel: Tensor, answer: Tensor, others: Tensor | None = None
    ) -> Tensor:
        """Kullback-Leibler divergence from the teacher's answers, both softened.

        With answers of another model, from the mean of both logarithms.
        """
        teacher: Any = self.teacher
        with torch.no_grad():
            hidden = teacher.initial_state(len(log_mel)).hidden
            taught = teacher.answer(log_mel, hidden)[0].float()
        if others is not None:
            known = others.isfinite().all(-1, keepdim=True)
            taught = torch.where(known, (taught.log_softmax(-1) + others) / 2, taught)
        soft, target = ((logits / TEMPERATURE).log_softmax(-1) for logits in (answer, taught))
        return TEMPERATURE**2 * kl_div(soft, target, reduction="batchmean", log_target=True)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's speed; where no progress bar is shown, print a line."""
        # Resumed from the checkpoint that an epoch's validation wrote, nothing is left to train.
        if self.epoch_started is None:
            return
        trainer: Any = self.trainer
        seconds = time.monotonic() - self.epoch_started
        self.log("epoch_seconds", seconds)
        groups = trainer.optimizers[0].param_groups
        self.log("matrix_learning_rate", groups[0]["lr"])
        self.log("learning_rate", groups[-1]["lr"])
        if trainer.is_global_zero and not sys.stderr.isatty():
            self._print_epoch(seconds)

    def _print_epoch(self, seconds: float) -> None:
        trainer: Any = self.trainer
        epoch, metrics = self.current_epoch + 1, trainer.callback_metrics
        names = ["training_loss"]
        if epoch % trainer.check_val_every_n_epoch == 0 and "validation_accuracy" in metrics:
            names.append("validation_accuracy")
        figures = ", ".join(f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names)
        line = f"epoch {epoch} of {trainer.max_epochs}: {figures}, {seconds:.1f} s"
        print(line, file=sys.stderr)

    def _start(self, batch: int) -> Tensor:
        """h before the first step: for some clips what the clip before left, else zero."""
        hidden = self.model.initial_state(batch).hidden
        carried = self.carried
        if not self.carry_state or carried is None or carried.shape != hidden.shape:
            return hidden
        goes_on = torch.rand(batch, 1, device=self.device) < self.carry_state
        return torch.where(goes_on, carried.to(hidden), hidden)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Count the right answers in a batch, whose clips all start from silence."""
        log_mel, targets = batch
        hidden = self.model.initial_state(len(targets)).hidden
        answer, _ = self.answer(log_mel.float(), hidden)
        self.validation_accuracy(answer, targets)
        self.validation_confusion.update(answer, targets)
        loss = cross_entropy(answer, targets)
        self.log("validation_loss", loss, sync_dist=True, batch_size=len(targets))
        self.log("validation_accuracy", self.validation_accuracy, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the mean accuracy of the classes that have clips.

        The macro average of torchmetrics counts the others as wrong.
        """
        confusion = self.validation_confusion.compute()
        clips = confusion.sum(1)
        mean = (confusion.diag()[clips > 0] / clips[clips > 0]).mean()
        self.log("validation_mean_accuracy", mean)
        self.validation_confusion.reset()

    def optimizer_groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Parameter groups for Muon and for AdamW."""
        blocks: list[Tensor] = []
        decayed: list[Tensor] = []
        free: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim < 2:
                free.append(parameter)
            elif "blocks" in name:
                blocks.append(parameter)
            else:
                decayed.append(parameter)
        return [{"params": blocks}], [{"params": decayed}, {"params": free, "weight_decay": 0.0}]

    def optimizer(self) -> torch.optim.Optimizer:
        """Muon for the matrices of the blocks, AdamW for the rest.

        Source: Jordan et al. 2024; Loshchilov and Hutter 2019.
        """
        matrices, rest = self.optimizer_groups()
        decay = self.weight_decay
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            lr = self.matrix_learning_rate
            parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=decay))
        parts.append(torch.optim.AdamW(rest, lr=self.learning_rate, weight_decay=decay))
        return JointOptimizer(*parts)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with a linear warm-up and a cosine to zero."""
        optimizer = self.optimizer()
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                "max_epochs is -1: expected a number, for the learning rate falls to 0 at the end"
            )
        rising = max(1, round(self.warm_up * steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class JointOptimizer(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, that Lightning steps and saves as
    one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        """Let each optimizer take its step."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of all optimizers."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the states of a checkpoint."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _require_same(whose: str, theirs: ModelConfig, ours: ModelConfig, names: Iterable[str]) -> None:
    for name in names:
        if (got := getattr(theirs, name)) != (expected := getattr(ours, name)):
            raise ValueError(
                f"{whose} has {name} {got}: expected {expected}, as in the recipe; change one of "
                "them"
            )
