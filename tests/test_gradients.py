"""What `speechrnn.training.gradients` promises: autograd's norms, and an unchanged training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from tolerances import GRADIENTS
from torch import Tensor, nn

from speechrnn.config import Activation
from speechrnn.recurrence import Recurrence
from speechrnn.training.gradients import GradientFlow, gradient_norms

# Lightning 2.6 calls what torch 2.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")

Loss = Callable[[Tensor], Tensor]  # of the states (B, T, H): one number

LOSSES: dict[str, Loss] = {
    "every step": lambda states: (
        states.square().sum((1, 2)) / 2 + states.sum(1).sin().sum(1)
    ).mean(),
    "the last step": lambda states: (states[:, -1] + 1).cos().sum(1).mean(),
    "one step in the middle": lambda states: states[:, states.shape[1] // 2].exp().sum(1).mean(),
}


def layer_with(weight_hh: Tensor, activation: Activation) -> Recurrence:
    layer = Recurrence(3, len(weight_hh), activation)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(weight_hh)
        nn.init.normal_(layer.bias_ih_l0)
    return layer


def orthogonal(size: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(size, size))


def states_of(layer: Recurrence, x: Tensor) -> list[Tensor]:
    """The equation, step by step: each h[t] (B, H) can be asked for its gradient."""
    squash = torch.tanh if layer.activation == "tanh" else torch.relu
    hidden, states = x.new_zeros(len(x), layer.hidden_size), []
    for step in x.unbind(1):
        hidden = squash(
            step @ layer.weight_ih_l0.T + layer.bias_ih_l0 + hidden @ layer.weight_hh_l0.T
        )
        hidden.retain_grad()
        states.append(hidden)
    return states


def norms_by_autograd(layer: Recurrence, x: Tensor, loss: Loss) -> Tensor:
    """Norm (T,) of dLoss/dh[t] for the loss of one clip: B times that of the mean over B clips."""
    states = states_of(layer, x)
    loss(torch.stack(states, 1)).backward()
    return torch.stack([(len(x) * state.grad).norm(dim=1).mean() for state in states])


def norms_by_recursion(layer: Recurrence, x: Tensor, loss: Loss) -> Tensor:
    states = torch.stack(states_of(layer, x), 1).detach().requires_grad_()
    (from_above,) = torch.autograd.grad(loss(states), states)
    return gradient_norms(layer, states.detach(), from_above)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("batch", "steps", "hidden"), [(5, 30, 16), (1, 1, 1), (2, 100, 7)])
def test_norms_are_those_of_autograd(
    activation: Activation, loss: Loss, batch: int, steps: int, hidden: int
) -> None:
    layer, x = layer_with(0.9 * orthogonal(hidden), activation), torch.randn(batch, steps, 3)
    expected = norms_by_autograd(layer, x, loss)
    found = norms_by_recursion(layer, x, loss)
    assert expected.max() > 0
    torch.testing.assert_close(
        found, expected, rtol=GRADIENTS, atol=GRADIENTS * expected.max().item()
    )


def test_norms_of_float64_are_computed_too() -> None:
    layer, x = layer_with(orthogonal(8), "tanh").double(), torch.randn(3, 20, 3).double()
    found, expected = (
        norms_by_recursion(layer, x, LOSSES["every step"]),
        norms_by_autograd(layer, x, LOSSES["every step"]),
    )
    torch.testing.assert_close(found.double(), expected, rtol=GRADIENTS, atol=0)


def test_steps_after_the_last_that_counts_have_no_gradient() -> None:
    layer, x = layer_with(orthogonal(8), "tanh"), torch.randn(3, 20, 3)
    norms = norms_by_recursion(layer, x, LOSSES["one step in the middle"])
    assert (norms[:11] > 0).all() and not norms[11:].any()


def test_norms_do_not_depend_on_the_size_of_the_batch() -> None:
    layer, x = layer_with(orthogonal(8), "tanh"), torch.randn(1, 20, 3)
    one, many = (
        norms_by_recursion(layer, clips, LOSSES["every step"]) for clips in (x, x.expand(7, -1, -1))
    )
    torch.testing.assert_close(one, many)


# What the textbook says


@pytest.mark.parametrize(
    ("activation", "weight", "low", "high"),
    [
        ("tanh", 0.5 * orthogonal(16), 0, 1e-3),
        ("relu", 0.5 * torch.eye(16), 0, 1e-3),
        ("relu", 2.0 * torch.eye(16), 1e3, float("inf")),
        ("relu", torch.eye(16), 1 - 1e-5, 1 + 1e-5),
    ],
    ids=[
        "contracting tanh vanishes",
        "contracting relu vanishes",
        "stretching relu explodes",
        "identity with relu keeps",
    ],
)
def test_gradients_over_30_steps_vanish_explode_or_stay_by_the_singular_values(
    activation: Activation, weight: Tensor, low: float, high: float
) -> None:
    layer = layer_with(weight, activation)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.bias_ih_l0.fill_(0.1)  # so that every relu is open
    norms = norms_by_recursion(
        layer, torch.zeros(4, 30, 3), lambda states: states[:, -1].sum(1).mean()
    )
    ratio = (norms[0] / norms[-1]).item()
    print(f"first to last of 30 steps: {ratio:.1e}")
    assert low <= ratio <= high


# In training


class Small(LightningModule):
    """Two recurrences whose weights stay as they are, and a third that is not of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleList(
            [layer_with(0.5 * orthogonal(8), "tanh"), Recurrence(8, 6, "relu")]
        )
        self.teacher = Recurrence(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.model:
            x, _ = layer(x, x.new_zeros(len(x), layer.hidden_size))
        return x

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        self.teacher(batch, batch.new_zeros(len(batch), 4))
        return LOSSES["every step"](self(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer_with(flow: GradientFlow, epochs: int, accumulate: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        callbacks=[flow],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Loader(list[Tensor]):
    """Batches in their order; Lightning takes a plain list for several loaders."""


@pytest.fixture
def batches() -> Loader:
    return Loader(torch.randn(5, 4, 20, 3))


def test_training_that_has_diverged_is_stopped_and_says_what_to_do(batches: Loader) -> None:
    module = Small()
    with torch.no_grad():
        module.model[1].weight_hh_l0[0, 0] = torch.inf
    with pytest.raises(
        ValueError,
        match=r"W_hh is not finite at step 0: the training has diverged; begin it again with",
    ):
        trainer_with(GradientFlow(every=3), 1).fit(module, batches)


def test_history_has_every_nth_step_with_a_norm_a_step_and_the_singular_values_of_each_layer(
    batches: Loader,
) -> None:
    module, flow = Small(), GradientFlow(every=3)
    trainer_with(flow, 2).fit(module, batches)
    assert [moment["step"] for moment in flow.history] == [0, 3, 6, 9]
    for moment in flow.history:
        assert [len(norms) for norms in moment["gradient"]] == [20, 20]
        assert [len(values) for values in moment["singular_values"]] == [8, 6]
        assert moment["singular_values"][0] == pytest.approx([0.5] * 8, abs=1e-5)
        assert moment["singular_values"][1] == pytest.approx([1.0] * 6, abs=1e-5)


def test_norms_measured_in_training_are_those_of_autograd(batches: Loader) -> None:
    module, flow = Small(), GradientFlow(every=2)
    trainer_with(flow, 1).fit(module, batches)
    lower, upper = module.model
    for moment, batch in zip(flow.history, batches[::2], strict=True):
        from_below = states_of(lower, batch)
        from_above = states_of(upper, torch.stack(from_below, 1))
        LOSSES["every step"](torch.stack(from_above, 1)).backward()
        for found, states in zip(moment["gradient"], (from_below, from_above), strict=True):
            expected = torch.stack(
                [(len(batch) * state.grad).norm(dim=1).mean() for state in states]
            )
            torch.testing.assert_close(torch.tensor(found), expected, rtol=GRADIENTS, atol=0)


def test_measuring_is_logged_and_leaves_no_hook(batches: Loader) -> None:
    module, flow = Small(), GradientFlow(every=2)
    trainer = trainer_with(flow, 1)
    trainer.fit(module, batches)
    logged = {name: value.item() for name, value in trainer.logged_metrics.items()}
    for layer in (1, 2):
        last = flow.history[-1]
        assert logged[f"layer_{layer}_gradient_first"] == pytest.approx(
            last["gradient"][layer - 1][0]
        )
        assert logged[f"layer_{layer}_gradient_last"] == pytest.approx(
            last["gradient"][layer - 1][-1]
        )
        assert logged[f"layer_{layer}_singular_largest"] == pytest.approx(
            last["singular_values"][layer - 1][0]
        )
        assert logged[f"layer_{layer}_singular_smallest"] == pytest.approx(
            last["singular_values"][layer - 1][-1]
        )
    assert not any(part._forward_hooks for part in module.modules())


def test_training_with_and_without_measuring_is_the_same(batches: Loader) -> None:
    gradients = []
    for every in (1, 1_000_000):
        torch.manual_seed(1)
        module = Small()
        trainer_with(GradientFlow(every), 1).fit(module, Loader(batches[:2]))
        gradients.append(
            [
                parameter.grad
                for parameter in module.model.parameters()
                if parameter.grad is not None
            ]
        )
    assert len(gradients[0]) == 6
    assert all(one.equal(other) for one, other in zip(*gradients, strict=True))


def test_resumed_run_goes_on_with_the_history_of_its_checkpoint(
    batches: Loader, tmp_path: Path
) -> None:
    module, begun, resumed = Small(), GradientFlow(every=3), GradientFlow(every=3)
    trainer = trainer_with(begun, 2)
    trainer.fit(module, batches)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer_with(resumed, 3).fit(
        module, batches, ckpt_path=tmp_path / "last.ckpt", weights_only=False
    )
    assert resumed.history[:4] == begun.history
    assert [moment["step"] for moment in resumed.history] == [0, 3, 6, 9, 12, 14], (
        "every third, and the last"
    )


def test_accumulated_batches_are_measured_once_a_step(batches: Loader) -> None:
    flow = GradientFlow(every=1)
    trainer_with(flow, 1, accumulate=2).fit(Small(), Loader(batches[:4]))
    assert [moment["step"] for moment in flow.history] == [0, 1]
