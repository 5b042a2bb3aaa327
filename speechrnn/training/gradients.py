"""What textbooks say of plain recurrences, measured: gradients that vanish or explode, and why.

In: a training run whose model has `Recurrence` layers. Out: every N steps, for each layer, the norm
of dLoss/dh[t] over t and the singular values of W_hh, in the logs and in `history`. It does not
know how to draw them.
"""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from speechrnn.recurrence import Recurrence, recurrences


class GradientFlow(Callback):
    """Measures every recurrence of a model in training, every `every` steps and at the last.

    `nn.RNN` gives of each h[t] only the gradient that comes from above, dLoss/dy[t]. What comes
    back
    from later steps is added here, by the recursion of backpropagation through time (Werbos 1990):

        dLoss/dh[t] = dLoss/dy[t] + W_hh^T (f'(h[t+1]) * dLoss/dh[t+1])

    Each step back multiplies by W_hh^T and by f' <= 1, so the singular values of W_hh say whether
    it can shrink or grow (Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013).

    Args:
        every: optimizer steps from one measurement to the next.

    Attributes:
        history: of each measurement its "step", "gradient" (L lists of T norms) and
            "singular_values" (L lists of H).
    """

    def __init__(self, every: int = 200) -> None:
        self.every = every
        self.history: list[dict[str, Any]] = []
        self._hooks: list[Any] = []
        self._norms: dict[int, Tensor] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch this step, if it is its turn."""
        step = trainer.global_step
        measured = self.history and self.history[-1]["step"] == step  # where batches accumulate
        last = step + 1 == trainer.estimated_stepping_batches
        if (last or step % self.every == 0) and not measured:
            self._norms = {}
            module: Any = pl_module
            for layer, recurrence in enumerate(recurrences(module.model)):  # not the teacher's
                self._hooks.append(recurrence.register_forward_hook(self._watch(layer)))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep and log what this step gave.

        Raises:
            ValueError: if a weight is no longer finite.
        """
        if not self._hooks:
            return
        while self._hooks:
            self._hooks.pop().remove()
        # Half precision scales the loss, so that small gradients do not become zero.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = (scaler.get_scale() if scaler else 1.0) / trainer.accumulate_grad_batches
        gradient = [(self._norms[layer] / scale).tolist() for layer in sorted(self._norms)]
        module: Any = pl_module
        weights = [r.weight_hh_l0.detach().float() for r in recurrences(module.model)]
        if not all(weight.isfinite().all() for weight in weights):
            raise ValueError(
                f"W_hh is not finite at step {trainer.global_step}: the training has diverged; "
                "begin it again with a lower model.learning_rate and model.matrix_learning_rate"
            )
        singular = [torch.linalg.svdvals(weight).tolist() for weight in weights]
        self.history.append(
            {"step": trainer.global_step, "gradient": gradient, "singular_values": singular}
        )
        for layer, (norms, values) in enumerate(zip(gradient, singular, strict=True), 1):
            pl_module.log(f"layer_{layer}_gradient_first", norms[0])
            pl_module.log(f"layer_{layer}_gradient_last", norms[-1])
            pl_module.log(f"layer_{layer}_singular_largest", values[0])
            pl_module.log(f"layer_{layer}_singular_smallest", values[-1])

    def _watch(self, layer: int) -> Callable[[Recurrence, Any, tuple[Tensor, Tensor]], None]:
        def forward(recurrence: Recurrence, _: Any, output: tuple[Tensor, Tensor]) -> None:
            states: Any = output[0]  # torch gives `register_hook` no types

            def backward(from_above: Tensor) -> None:
                self._norms[layer] = gradient_norms(recurrence, states.detach(), from_above)

            states.register_hook(backward)

        return forward

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same history."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.history = list(state_dict["history"])


@torch.no_grad()
def gradient_norms(recurrence: Recurrence, states: Tensor, from_above: Tensor) -> Tensor:
    """Norm (T,) of dLoss/dh[t], mean over the clips of a batch, for a loss that is their mean.

    Args:
        recurrence: the layer.
        states: (B, T, H), its h[t].
        from_above: (B, T, H), dLoss/dy[t]: the gradient that does not come through h[t+1].
    """
    weight = recurrence.weight_hh_l0.float()
    from_later = torch.zeros_like(from_above[:, 0], dtype=torch.float32)
    norms = []
    steps = zip(states.float().unbind(1), from_above.float().unbind(1), strict=True)
    for state, above in reversed(list(steps)):
        total = from_later + above
        norms.append(total.norm(dim=-1).mean() * len(states))
        slope = 1 - state.square() if recurrence.activation == "tanh" else (state > 0).float()
        from_later = (total * slope) @ weight
    return torch.stack(norms[::-1])
