"""How fast the recurrence is beside other ways to compute it, and what a user notices of it.

In: sizes. Out: tables of times, each the median of calls that take turns with those they are
compared with. Only the ratios of one run count: machines differ, and so does one from hour to hour.
It draws nothing.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechrnn.audio import read_wave
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE
from speechrnn.folder import read_folder
from speechrnn.model import Model, TorchRuntime, best_device
from speechrnn.network import Network
from speechrnn.recogniser import Recogniser
from speechrnn.recurrence import Backend, in_place, loop, on_chip
from speechrnn.training.module import Training

LAYERS, INPUTS = 4, 40  # of the stack: MFCC into four plain layers, as in published recurrences
DTYPES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "float16", "bfloat16")}
RIVALS = ("nn.RNN", "nn.RNN packed", "nn.RNN by 64")
SECONDS = 0.3  # of calls of each way, in a case; at least ROUNDS
ROUNDS = 3
BLOCK_SECONDS = 0.1  # of audio that a stream gets at once
CLIPS = 64  # that are classified together
STREAM_SECONDS = 4
TRAINING_BATCH = 128  # that of recipes/v2_12.yaml
PROCESSES = 5  # of each kind that are started
# Run by a small process of its own: a child's peak of memory is never below its parent's.
START = """
import os, sys, time
begin = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - begin, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


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


def machine() -> str:
    """What was measured on, with which versions, and when."""
    if best_device().type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        threads = torch.get_num_threads()
        name = f"{_processor()}, {threads} thread{'s' * (threads > 1)}"
    versions = f"torch {torch.__version__}; NumPy {np.__version__}"
    return f"{name}; {versions}; {datetime.now(UTC):%Y-%m-%d}"


def tables(cases: Sequence[Case]) -> dict[str, list[list[str]]]:
    """Every table by its title: of the cases, and of what is timed for it here."""
    return {
        f"Forward, {LAYERS} layers": stack_rows(cases, backward=False),
        f"Forward and backward, {LAYERS} layers": stack_rows(cases, backward=True),
        "Inference with `base`": inference_rows(),
        "Start-up": start_rows(),
        "Training with the shape of `base`": training_rows(),
    }


def stacks(
    hidden: Sequence[int],
    batches: Sequence[int],
    steps: Sequence[int],
    dtypes: Sequence[str] | None = None,
) -> tuple[list[Case], list[str]]:
    """Time every way on every size, and print each to stderr as it is known.

    Args:
        hidden: H, units.
        batches: B, clips.
        steps: T.
        dtypes: of `DTYPES`; None for all of the device.

    Returns:
        The cases, and why some ways are missing.
    """
    on = best_device()
    cases: list[Case] = []
    missing: list[str] = []
    for dtype in dtypes or DTYPES[on.type]:
        _set_precision(dtype)
        kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        limits = product_rate(kind, on), copy_rate(on)
        for h in hidden:
            for t in steps:
                torch._dynamo.reset()  # each H and T is compiled anew; only a few can be kept
                for b in batches:
                    size = Case(dtype, h, b, t, False, 0.0)
                    cases += _time_size(size, kind, on, limits, missing)
    _set_precision("float32")
    return cases, missing


def _time_size(
    size: Case,
    kind: torch.dtype,
    on: torch.device,
    limits: tuple[float, float],
    missing: list[str],
) -> list[Case]:
    """The case of forward and that of forward and backward; why ways are missing is appended."""
    h, b, t = size.hidden, size.batch, size.steps
    torch.manual_seed(0)
    made: Any = {"device": on, "dtype": kind}
    rnn = nn.RNN(INPUTS, h, LAYERS, batch_first=True, **made)
    inputs = [torch.randn(b, t, INPUTS, **made) for _ in range(3)]  # so that none stays in a cache
    cases = []
    for backward in (False, True):
        ways = {name: _call(way, rnn, inputs, backward) for name, way in _ways(on).items()}
        for name in list(ways):
            try:
                ways[name]()
            except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
                # There is no compiler, or a kernel cannot be run.
                reason = " ".join(str(error).split())[:160]
                missing.append(f"{name}, {size.dtype}, H {h}, B {b}, T {t}: {reason}")
                del ways[name]
        floor = floor_seconds(h, b, t, backward, kind.itemsize, *limits)
        case = Case(size.dtype, h, b, t, backward, floor, times(ways, on))
        cases.append(case)
        each = ", ".join(f"{way} {case.microseconds(way):.1f}" for way in case.seconds)
        passes = "forward and backward" if backward else "forward"
        name = f"{size.dtype}, H {h}, T {t}, B {b}, {passes}"
        print(f"{name}: {each} µs a step and layer", file=sys.stderr)
    return cases


def _ways(on: torch.device) -> dict[str, Callable[[nn.RNN, Tensor], Tensor]]:
    def layered(
        equation: Callable[..., tuple[Tensor, Tensor]],
    ) -> Callable[[nn.RNN, Tensor], Tensor]:
        def way(rnn: nn.RNN, x: Tensor) -> Tensor:
            hidden = x.new_zeros(len(x), rnn.hidden_size)
            for layer in range(rnn.num_layers):
                names = (f"{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_ih"))
                x, _ = equation(x, hidden, *(getattr(rnn, name) for name in names))
            return x

        return way

    def packed(rnn: nn.RNN, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        states = rnn(pack_padded_sequence(x, lengths, batch_first=True))[0]
        return pad_packed_sequence(states, batch_first=True)[0]

    def chunked(rnn: nn.RNN, x: Tensor) -> Tensor:
        return torch.cat([rnn(part)[0] for part in x.tensor_split(tuple(range(64, len(x), 64)))])

    rivals = dict(zip(RIVALS, (lambda rnn, x: rnn(x)[0], packed, chunked), strict=True))
    ours = layered(on_chip if on.type == "cuda" else in_place)
    return {"loop": layered(loop), **rivals, "compiled loop": layered(_compiled()), "ours": ours}


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(loop, dynamic=True)  # for any B


def _call(
    way: Callable[[nn.RNN, Tensor], Tensor], rnn: nn.RNN, inputs: list[Tensor], backward: bool
) -> Callable[[], None]:
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
    taken: dict[str, list[float]] = {name: [] for name in ways}
    rounds = 0
    while ways and rounds < 100 and (min(map(sum, taken.values())) < SECONDS or rounds < ROUNDS):
        for name, way in ways.items():
            taken[name].append(_seconds(way, on))
        rounds += 1
    return {name: median(seconds) for name, seconds in taken.items()}


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
    hidden: int,
    batch: int,
    steps: int,
    backward: bool,
    bytes_each: int,
    operations: float,
    bandwidth: float,
) -> float:
    """The time of the stack's products, or that of its memory traffic, whichever is longer.

    Traffic of a layer, in passes over (B, T, H): forward, z is written and read, h is written, and
    read by the next layer; backward, h and its gradient are read and dz is written, dz is read and
    dx written, and dz, x and h are read for the weights.

    Args:
        hidden: H.
        batch: B.
        steps: T.
        backward: forward and backward, or forward alone.
        bytes_each: of a number.
        operations: floating-point operations a second.
        bandwidth: bytes a second.
    """
    matrices = hidden * (INPUTS + hidden + (LAYERS - 1) * 2 * hidden)
    products = 2 * batch * steps * matrices * (3 if backward else 1)
    passes = LAYERS * (11 if backward else 4)
    return max(products / operations, passes * batch * steps * hidden * bytes_each / bandwidth)


def stack_rows(cases: Sequence[Case], backward: bool) -> list[list[str]]:
    """A table: microseconds of a step of a layer each way, and what ours reaches."""
    ways = list(dict.fromkeys(way for case in cases for way in case.seconds))
    reached = ["clips/s", "of the floor", "faster than the best nn.RNN"]
    rows = [["numbers", "H", "B", "T", *(f"{way}, µs" for way in ways), *reached]]
    for case in cases:
        if case.backward != backward:
            continue
        cells = [case.dtype, f"{case.hidden}", f"{case.batch:,}", f"{case.steps}"]
        cells += [f"{case.microseconds(way):.1f}" if way in case.seconds else "-" for way in ways]
        if (ours := case.seconds.get("ours")) is None:
            rows.append([*cells, "-", "-", "-"])
            continue
        rivals = [case.seconds[rival] for rival in RIVALS if rival in case.seconds]
        faster = f"{min(rivals) / ours:.2f}" if rivals else "-"
        rows.append([*cells, f"{case.batch / ours:,.0f}", f"{case.floor / ours:.0%}", faster])
    return rows


def panels(
    cases: Sequence[Case],
) -> dict[tuple[str, int], dict[str, list[tuple[int, float]]]]:
    """What `plots.speed` draws: forward and backward, for the longest T."""
    longest = max(case.steps for case in cases)
    shown: dict[tuple[str, int], dict[str, list[tuple[int, float]]]] = {}
    for case in cases:
        if case.backward and case.steps == longest:
            panel = shown.setdefault((case.dtype, case.hidden), {})
            for way in (*case.seconds, "floor"):
                panel.setdefault(way, []).append((case.batch, case.microseconds(way)))
    return shown


def inference_rows(name: str = "base") -> list[list[str]]:
    """A table: how much faster than real time one CPU core recognises, features included."""
    folder, model = read_folder(name), Model.load(name)
    recognisers = {
        "torch, nn.RNN": Recogniser(TorchRuntime(model), folder.thresholds),
        "torch": Recogniser(TorchRuntime(model), folder.thresholds),
        "NumPy": Recogniser(Network(folder.config, folder.weights()), folder.thresholds),
    }
    backends: dict[str, Backend] = {"torch, nn.RNN": "torch"}
    random = np.random.default_rng(0)
    audio = (0.05 * random.standard_normal(STREAM_SECONDS * SAMPLE_RATE)).astype(np.float32)
    head = [f"{way}, times real time" for way in recognisers]
    rows = [["one core", *head, "NumPy faster than torch"]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as place, threadpool_limits(1, "blas"):
            for job, (seconds, work) in _jobs(audio, Path(place)).items():
                ways = {
                    way: _with_backend(
                        model, backends.get(way, "auto"), functools.partial(work, recogniser)
                    )
                    for way, recogniser in recognisers.items()
                }
                taken = times(ways, torch.device("cpu"))
                cells = [f"{seconds / taken[way]:.0f}" for way in ways]
                rows.append([job, *cells, f"{taken['torch'] / taken['NumPy']:.2f}"])
    finally:
        torch.set_num_threads(threads)
    return rows


def _jobs(
    audio: np.ndarray, folder: Path
) -> dict[str, tuple[float, Callable[[Recogniser], object]]]:
    """Seconds of audio of each job, and the job; the files for one are written into a folder."""
    clip = audio[:CLIP_SAMPLES]
    for number in range(CLIPS):
        soundfile.write(folder / f"{number}.wav", clip, SAMPLE_RATE)
    files = sorted(folder.iterdir())
    size = round(BLOCK_SECONDS * SAMPLE_RATE)
    blocks = [audio[start : start + size] for start in range(0, len(audio), size)]
    return {
        "one clip": (1.0, lambda recogniser: recogniser.classify_waves([clip])),
        f"{CLIPS} clips": (CLIPS, lambda recogniser: recogniser.classify_waves([clip] * CLIPS)),
        f"a folder of {CLIPS} files (`classify FOLDER`)": (
            CLIPS,
            lambda recogniser: recogniser.classify_waves([read_wave(file) for file in files]),
        ),
        "a stream in blocks of 100 ms, with its words": (
            STREAM_SECONDS,
            lambda recogniser: list(recogniser.detect(blocks)),
        ),
    }


def start_rows() -> list[list[str]]:
    """A table: how long a process takes from its start to its end, and its peak of memory."""
    with tempfile.TemporaryDirectory() as place:
        clip = Path(place) / "one.wav"
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, CLIP_SAMPLES)
        soundfile.write(clip, noise, SAMPLE_RATE)
        jobs = {
            "`import numpy, soundfile, soxr, safetensors`": [
                "-c", "import numpy, soundfile, soxr, safetensors",
            ],
            "`speechrnn classify one.wav`": ["-m", "speechrnn", "classify", str(clip)],
            "`import torch`": ["-c", "import torch"],
        }  # fmt: skip
        runs_of: dict[str, list[tuple[float, float]]] = {job: [] for job in jobs}
        for _ in range(PROCESSES):
            for job, words in jobs.items():
                runs_of[job].append(_start(words))
    seconds = {job: median(took for took, _ in runs) for job, runs in runs_of.items()}
    first = next(iter(seconds.values()))
    rows = [["a process", "s", "times the first", "peak of memory, MB"]]
    for job, took in seconds.items():
        memory = max(peak for _, peak in runs_of[job])
        rows.append([job, f"{took:.2f}", f"{took / first:.2f}", f"{memory:.0f}"])
    return rows


def _start(words: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak of memory (MB) of a Python process with these arguments."""
    command = [sys.executable, "-c", START, sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    took, kilobytes = map(float, done.stdout.split())
    # Linux counts in kB, macOS in bytes.
    return took, kilobytes / (1e6 if sys.platform == "darwin" else 1e3)


def training_rows(name: str = "base") -> list[list[str]]:
    """A table: a training step with the settings of `Training` and the shape of a shipped model.

    It shows the whole step and its network alone, and both against a large matrix product.
    """
    on = best_device()
    shape = asdict(read_folder(name).config)
    training = Training(shape.pop("labels"), **shape).to(on)
    config = training.model.config
    # A multiplication and an addition each, forward, and twice that backward.
    operations = 6 * config.step_multiplications * TRAINING_BATCH * config.window_steps
    backends: dict[str, Backend] = {"loop": "loop", "nn.RNN": "torch", "ours": "auto"}
    head = [f"a step of {TRAINING_BATCH} clips", *(f"{way}, ms" for way in backends), "clips/s"]
    rows = [[*head, "of the speed of the network alone", "of the rate of a large product"]]
    for dtype in (torch.float32, torch.float16 if on.type == "cuda" else torch.bfloat16):
        jobs = _training_jobs(training, dtype, on)
        ways = {
            f"{job} {way}": _with_backend(training.model, backend, call)
            for job, call in jobs.items()
            for way, backend in backends.items()
        }
        taken = times(ways, on)
        rate = product_rate(dtype, on)
        for job in jobs:
            seconds = taken[f"{job} ours"]
            cells = [f"{1000 * taken[f'{job} {way}']:.1f}" for way in backends]
            cells += [f"{TRAINING_BATCH / seconds:,.0f}", f"{taken['network ours'] / seconds:.0%}"]
            kind = str(dtype).removeprefix("torch.")
            rows.append([f"{job}, {kind}", *cells, f"{operations / seconds / rate:.0%}"])
    return rows


def _training_jobs(
    training: Training, dtype: torch.dtype, on: torch.device
) -> dict[str, Callable[[], None]]:
    """A step's network, and the whole step, on random frames."""
    torch.manual_seed(0)
    config, optimizer = training.model.config, training.optimizer()
    frames = config.window_steps * config.stack
    log_mel = torch.randn(TRAINING_BATCH, frames, config.mel_bands, device=on)
    training.noise = torch.randn(10_000, config.mel_bands, device=on)
    targets = torch.randint(0, len(config.labels), (TRAINING_BATCH,), device=on)
    half = torch.autocast(on.type, dtype, enabled=dtype != torch.float32)

    def network() -> None:
        with half:
            loss, _ = training.loss(log_mel, targets)
        training.zero_grad()
        torch.autograd.backward(loss)

    def whole() -> None:
        with half:
            loss, _ = training.loss(training.augmented(log_mel, targets), targets)
        training.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(training.parameters(), 1.0)
        optimizer.step()

    return {"network": network, "whole step": whole}


def _with_backend(
    model: Model, backend: Backend, call: Callable[[], object]
) -> Callable[[], object]:
    def switched() -> object:
        model.set_backend(backend)
        return call()

    return switched


def _set_precision(dtype: str) -> None:
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def _processor() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
