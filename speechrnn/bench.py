"""How fast the recurrence is beside other ways to compute it, and what of it reaches a user: inference and a training step.

In: sizes. Out: tables of times, each the median of calls that take turns with those they are compared with. Only the ratios of
one run count: machines differ, and so does one from hour to hour. It does not know pictures (plots).
"""

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn import checkpoint
from speechrnn.audio import SAMPLE_RATE
from speechrnn.augment import Augmentation
from speechrnn.model import CLIP_SAMPLES, Model
from speechrnn.recurrence import Backend, in_place, loop, on_chip
from speechrnn.stream import Stream
from speechrnn.training import Training

LAYERS, INPUTS = 4, 40  # of the stack: MFCC into four plain layers, as in published recurrences
DTYPES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "float16", "bfloat16")}
RIVALS = ("nn.RNN", "nn.RNN packed", "nn.RNN by 64")
SECONDS = 0.3  # of calls of each way, in a case; at least ROUNDS
ROUNDS = 3
BLOCK_SECONDS = 0.1  # of audio that a stream gets at once
TRAINING_BATCH = 128  # that of recipes/v2_12.yaml


@dataclass(frozen=True)
class Case:
    """One size of the stack, and how long each way of computing it took.

    Args:
        dtype: of numbers; `tf32` are float32 ones whose products are rounded by the tensor cores.
        hidden: H.
        batch: B.
        steps: T.
        backward: forward and backward, or forward alone.
        floor: s, less than which this machine cannot need, see `floor_seconds`.
        seconds: by the name of the way.
    """

    dtype: str
    hidden: int
    batch: int
    steps: int
    backward: bool
    floor: float
    seconds: dict[str, float] = field(default_factory=dict)

    def microseconds(self, way: str) -> float:
        """Of a step of a layer, one way; `floor` is one too."""
        seconds = self.floor if way == "floor" else self.seconds[way]
        return 1e6 * seconds / (self.steps * LAYERS)


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """What was measured on, with which versions, and when."""
    name = torch.cuda.get_device_name() if device().type == "cuda" else f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}"


def stacks(
    hidden: Sequence[int], batches: Sequence[int], steps: Sequence[int], dtypes: Sequence[str] | None = None
) -> tuple[list[Case], list[str]]:
    """Time every way on every size, and tell each on stderr as it is known.

    Args:
        hidden: H, units.
        batches: B, clips.
        steps: T.
        dtypes: of `DTYPES`; None for all of the device.

    Returns:
        The cases, and why some ways are missing.
    """
    on = device()
    cases, missing = [], []
    sizes = [(dtype, h, t, b) for dtype in dtypes or DTYPES[on.type] for h in hidden for t in steps for b in batches]
    limits: dict[str, tuple[float, float]] = {}
    for dtype, h, t, b in sizes:
        if b == batches[0]:
            torch._dynamo.reset()  # each H and T is compiled anew, and only a few can be kept
        _set_precision(dtype)
        kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        if dtype not in limits:
            limits[dtype] = product_rate(kind, on), copy_rate(on)
        torch.manual_seed(0)
        rnn = nn.RNN(INPUTS, h, LAYERS, batch_first=True, device=on, dtype=kind)
        inputs = [torch.randn(b, t, INPUTS, device=on, dtype=kind) for _ in range(3)]  # in turn, so that none stays in a cache
        for backward in (False, True):
            ways = {name: _call(way, rnn, inputs, backward) for name, way in _ways(on).items()}
            for name in list(ways):
                try:
                    ways[name]()
                except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:  # no compiler, or a kernel's obstacle
                    missing.append(f"{name}, {dtype}, H {h}, B {b}, T {t}: {' '.join(str(error).split())[:160]}")
                    del ways[name]
            floor = floor_seconds(h, b, t, backward, kind.itemsize, *limits[dtype])
            case = Case(dtype, h, b, t, backward, floor, times(ways, on))
            cases.append(case)
            found = ", ".join(f"{way} {case.microseconds(way):.1f}" for way in case.seconds)
            passes = "forward and backward" if backward else "forward"
            print(f"{dtype}, H {h}, T {t}, B {b}, {passes}: {found} µs a step and layer", file=sys.stderr)
    _set_precision("float32")
    return cases, missing


def _ways(on: torch.device) -> dict[str, Callable[[nn.RNN, Tensor], Tensor]]:
    def layered(equation: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[nn.RNN, Tensor], Tensor]:
        def way(rnn: nn.RNN, x: Tensor) -> Tensor:
            hidden = x.new_zeros(len(x), rnn.hidden_size)
            for layer in range(rnn.num_layers):
                weights = (getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih"))
                x, _ = equation(x, hidden, *weights)
            return x

        return way

    def packed(rnn: nn.RNN, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        return pad_packed_sequence(rnn(pack_padded_sequence(x, lengths, batch_first=True))[0], batch_first=True)[0]

    def chunked(rnn: nn.RNN, x: Tensor) -> Tensor:
        return torch.cat([rnn(part)[0] for part in x.tensor_split(tuple(range(64, len(x), 64)))])

    rivals = dict(zip(RIVALS, (lambda rnn, x: rnn(x)[0], packed, chunked), strict=True))
    ours = on_chip if on.type == "cuda" else in_place
    return {"loop": layered(loop), **rivals, "compiled loop": layered(_compiled()), "ours": layered(ours)}


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(loop, dynamic=True)  # for any B


def _call(way: Callable[[nn.RNN, Tensor], Tensor], rnn: nn.RNN, inputs: list[Tensor], backward: bool) -> Callable[[], None]:
    # nn.RNN's second biases are zero here and not trained, as in `Recurrence`.
    trained = [weight for name, weight in rnn.named_parameters() if "bias_hh" not in name]
    for name, weight in rnn.named_parameters():
        if "bias_hh" in name:
            weight.requires_grad_(False).zero_()
    calls = 0

    def forward() -> None:
        nonlocal calls
        calls += 1
        with torch.inference_mode():
            way(rnn, inputs[calls % len(inputs)])

    def both() -> None:
        nonlocal calls
        calls += 1
        torch.autograd.grad(way(rnn, inputs[calls % len(inputs)]).sum(), trained)

    return both if backward else forward


def times(ways: Mapping[str, Callable[[], object]], on: torch.device) -> dict[str, float]:
    """Median seconds of each call, which take turns; on a GPU by its own clock."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    while ways and (min(map(sum, found.values())) < SECONDS or len(next(iter(found.values()))) < ROUNDS):
        for name, way in ways.items():
            found[name].append(_seconds(way, on))
        if len(next(iter(found.values()))) >= 100:
            break
    return {name: median(seconds) for name, seconds in found.items()}


def _seconds(way: Callable[[], object], on: torch.device) -> float:
    if on.type == "cpu":
        start = time.perf_counter()
        way()
        return time.perf_counter() - start
    event: Any = torch.cuda.Event  # torch gives it no types
    begin, end = (event(enable_timing=True) for _ in range(2))
    begin.record()
    way()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def product_rate(kind: torch.dtype, on: torch.device) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if on.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=on, dtype=kind) for _ in range(2))
    return 2 * size**3 / times({"product": lambda: left @ right}, on)["product"]


def copy_rate(on: torch.device) -> float:
    """Bytes a second that are read or written when a large block is copied."""
    source = torch.zeros(2**28, dtype=torch.uint8, device=on)
    target = torch.empty_like(source)
    return 2 * source.nbytes / times({"copy": lambda: target.copy_(source)}, on)["copy"]


def floor_seconds(
    hidden: int, batch: int, steps: int, backward: bool, bytes_each: int, operations: float, bandwidth: float
) -> float:
    """The time of the stack's products at a rate, or of its memory traffic at another, whichever is longer.

    Traffic of a layer, in passes over (B, T, H): forward, z is written and read, h is written, and read by the next layer;
    backward, h and its gradient are read and dz is written, dz is read and dx written, and dz, x and h are read for the weights.
    """
    products = 2 * batch * steps * hidden * (INPUTS + hidden + (LAYERS - 1) * 2 * hidden) * (3 if backward else 1)
    passes = LAYERS * (11 if backward else 4)
    return max(products / operations, passes * batch * steps * hidden * bytes_each / bandwidth)


def stack_rows(cases: Sequence[Case], backward: bool) -> list[list[str]]:
    """A table: microseconds of a step of a layer each way, and what ours reaches."""
    ways = list(dict.fromkeys(way for case in cases for way in case.seconds))
    head = ["numbers", "H", "B", "T", *(f"{way}, µs" for way in ways), "clips/s", "of the floor", "faster than the best nn.RNN"]
    rows = [head]
    for case in cases:
        if case.backward != backward:
            continue
        cells = [case.dtype, f"{case.hidden}", f"{case.batch:,}", f"{case.steps}"]
        cells += [f"{case.microseconds(way):.1f}" if way in case.seconds else "-" for way in ways]
        ours = case.seconds.get("ours")
        best = min((case.seconds[rival] for rival in RIVALS if rival in case.seconds), default=None)
        cells += ["-"] * 3 if ours is None else [f"{case.batch / ours:,.0f}", f"{case.floor / ours:.0%}"]
        if ours is not None:
            cells.append("-" if best is None else f"{best / ours:.2f}")
        rows.append(cells)
    return rows


def inference_rows(name: str = "base") -> list[list[str]]:
    """A table: how much faster than real time one CPU core hears, features included, by `nn.RNN` and by ours."""
    model = checkpoint.load(name)
    torch.manual_seed(0)
    audio = torch.randn(4 * CLIP_SAMPLES).numpy() * 0.05
    block = round(BLOCK_SECONDS * SAMPLE_RATE)
    blocks = [audio[start : start + block] for start in range(0, len(audio), block)]

    def stream() -> None:
        hearing = Stream(model)
        for block in blocks:
            hearing.push(block)

    jobs: dict[str, tuple[Callable[[], object], float]] = {
        "64 clips at once (`classify FOLDER`)": (lambda: model.classify_waves([audio[:CLIP_SAMPLES]] * 64), 64.0),
        "one clip": (lambda: model.classify_waves([audio[:CLIP_SAMPLES]]), 1.0),
        "a stream in blocks of 100 ms": (stream, len(audio) / SAMPLE_RATE),
        "its words (`transcribe`), likewise": (lambda: list(Stream(model).detect(blocks)), len(audio) / SAMPLE_RATE),
    }
    rows = [["one core", "nn.RNN, times real time", "ours, times real time", "ratio"]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job, (call, seconds) in jobs.items():
            ways = {"nn.RNN": _with_backend(model, "torch", call), "ours": _with_backend(model, "auto", call)}
            found = times(ways, torch.device("cpu"))
            rows.append([job, *(f"{seconds / found[way]:.0f}" for way in ways), f"{found['nn.RNN'] / found['ours']:.2f}"])
    finally:
        torch.set_num_threads(threads)
    return rows


def training_rows(name: str = "base") -> list[list[str]]:
    """A table: a training step of a shipped model's recipe, its network alone, and both against a large matrix product."""
    on = device()
    recipe = yaml.safe_load(checkpoint.read_config(checkpoint.model_folder(name))["training"]["recipe"])["model"]
    shape = checkpoint.load(name).config
    recipe = {key: value for key, value in recipe.items() if key not in ("start", "teacher")}
    training = Training(shape.labels, **{**recipe, "augmentation": Augmentation(**recipe["augmentation"])}).to(on)
    torch.manual_seed(0)
    frames = shape.window_steps * shape.stack
    training.log_mel = torch.randn(4 * TRAINING_BATCH, frames, shape.mel_bands, device=on).half()
    training.noise = torch.randn(10_000, shape.mel_bands, device=on)
    clips = torch.randperm(len(training.log_mel), device=on)[:TRAINING_BATCH]
    targets = torch.randint(0, len(shape.labels), (TRAINING_BATCH,), device=on)
    still = training.log_mel[clips].float()
    optimizer = training.optimizer()
    # A multiplication and an addition each, forward, and twice that backward.
    operations = 6 * training.model.step_multiplications * TRAINING_BATCH * shape.window_steps
    backends: dict[str, Backend] = {"loop": "loop", "nn.RNN": "torch", "ours": "auto"}
    head = [f"a step of {TRAINING_BATCH} clips", *(f"{name}, ms" for name in backends), "clips/s"]
    rows = [[*head, "of the speed of the network alone", "of the rate of a large product"]]
    for dtype in (torch.float32, torch.float16 if on.type == "cuda" else torch.bfloat16):
        half = torch.autocast(on.type, dtype, enabled=dtype != torch.float32)

        def network(half: torch.autocast = half) -> None:
            with half:
                loss, _ = training.loss(still, targets)
            training.zero_grad()
            torch.autograd.backward(loss)

        def whole(half: torch.autocast = half) -> None:
            with half:
                loss, _ = training.loss(training.augmented(clips, targets), targets)
            training.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(training.parameters(), 1.0)
            optimizer.step()

        jobs = {"network": network, "whole step": whole}
        ways = {f"{job} {name}": _with_backend(training.model, backends[name], jobs[job]) for job in jobs for name in backends}
        found = times(ways, on)
        rate = product_rate(dtype, on)
        for job in jobs:
            seconds = found[f"{job} ours"]
            cells = [f"{1000 * found[f'{job} {name}']:.1f}" for name in backends]
            cells += [f"{TRAINING_BATCH / seconds:,.0f}", f"{found['network ours'] / seconds:.0%}"]
            rows.append([f"{job}, {str(dtype).removeprefix('torch.')}", *cells, f"{operations / seconds / rate:.0%}"])
    return rows


def _with_backend(model: Model, backend: Backend, call: Callable[[], object]) -> Callable[[], object]:
    def switched() -> object:
        model.set_backend(backend)
        return call()

    return switched


def _set_precision(dtype: str) -> None:
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def _processor() -> str:
    import platform
    from pathlib import Path

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
