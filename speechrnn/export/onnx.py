"""The chain as an ONNX file: a graph built by hand, the features inside, the state outside.

In: a model folder. Out: a file that any ONNX runtime computes, with what a program must know of the
model in its metadata. Inputs: `audio` (B, N), N samples of whole steps, `past` (B, P), the samples
before them, and `state` (L, B, H), h of each layer. Outputs: `logits` (B, T, C), and `past_out` and
`state_out` to go on with. It does not know how a file is run.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from speechrnn import __version__
from speechrnn.config import SAMPLE_RATE, ModelConfig
from speechrnn.export.check import largest_difference
from speechrnn.export.rounding import ROUNDED, round_weights
from speechrnn.files import whole_file
from speechrnn.folder import ModelFolder
from speechrnn.network import NORM_EPSILON, Network
from speechrnn.onnx_runtime import FORMAT, MODEL_TYPE, OnnxNetwork, expected_shapes

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # of ONNX 1.12, which brought this opset: a newer one shuts older runtimes out
# Logits of the file against the NumPy network of the same weights, as a share of the largest.
SAME = 1e-4
SCORES = (
    "protocol", "split", "streamed", "clips", "correct", "accuracy", "mean_accuracy",
)  # fmt: skip  # of the figures of a split


def write_onnx(folder: ModelFolder, to: Path, int8: bool = False) -> float:
    """Write a model as an ONNX file, whole or not at all, and only if it computes what NumPy does.

    Args:
        folder: the model.
        to: path of the file.
        int8: round each matrix of the network to 8 bits, with one scale for each of its rows.

    Returns:
        How far its logits, or states, are from the model's at most, as a share of the largest.

    Raises:
        OSError: if it cannot be written, or weights are missing.
        ValueError: if the folder is damaged, or the file does not compute what NumPy does.
    """
    config, weights = folder.config, folder.weights()
    rounded = round_weights(weights) if int8 else {}
    model = build(config, weights, rounded)
    helper.set_model_props(model, metadata(folder, int8))
    onnx.checker.check_model(model, full_check=True)
    with whole_file(to) as beside:
        beside.write_bytes(model.SerializeToString())
        runtime = OnnxNetwork(beside)
        held = {**weights, **{name: scale * array for name, (array, scale) in rounded.items()}}
        apart = largest_difference(Network(config, held), runtime)
        _require(apart, SAME, f"{to}: not written: what it computes", "")
        if int8:
            apart = largest_difference(Network(config, weights), runtime)
            _require(
                apart, ROUNDED, f"{to}: not written: with int8 weights it", ": leave out --int8"
            )
    return apart


def _require(apart: float, limit: float, what: str, hint: str) -> None:
    if not apart <= limit:  # NaN is not
        raise ValueError(
            f"{what} is {apart:.1e} of the largest logit or state away from NumPy's, expected "
            f"{limit:.0e} or less{hint}"
        )


def metadata(folder: ModelFolder, int8: bool) -> dict[str, str]:
    """What a program must know of a model, and what a person may ask; lists and tables as JSON."""
    config, about = folder.config, folder.about
    shape = {name: value for name, value in asdict(config).items() if name != "labels"}
    training = {name: value for name, value in about["training"].items() if name != "recipe"}
    scores = {
        split: {name: score[name] for name in SCORES if name in score}
        for split, score in about["scores"].items()
    }
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "version": __version__,
        "license": folder.license,
        "sha256": str(about["sha256"]),
        "weights": "int8" if int8 else "float32",
        "labels": json.dumps(config.labels),
        "thresholds": json.dumps(folder.thresholds),
        "sample_rate": str(SAMPLE_RATE),
        "step_samples": str(config.step_samples),
        "window_steps": str(config.window_steps),
        "config": json.dumps(shape),
        "training": json.dumps(training),
        "scores": json.dumps(scores),
    }


def build(
    config: ModelConfig,
    weights: Mapping[str, np.ndarray],
    rounded: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Any:
    """The file, an `onnx.ModelProto` without metadata.

    Args:
        config: shape of the model.
        weights: its arrays, as `ModelConfig.shapes` names them.
        rounded: what `round_weights` gives of those that are to be int8.
    """
    graph = _Graph(config, weights, rounded)
    graph.recur(graph.features(graph.power(graph.frames())))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in expected_shapes(config).items()
    ]
    return helper.make_model(
        helper.make_graph(graph.nodes, MODEL_TYPE, ports[:3], ports[3:], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=MODEL_TYPE,
        producer_version=__version__,
        doc_string=(
            f"Spoken words in audio at {SAMPLE_RATE} Hz, full scale +-1. past and state begin as "
            "zeros and are given back as they come out; audio is any number of whole steps of "
            f"{config.step_samples} samples."
        ),
    )


class _Graph:
    """Nodes and constants of the chain; its methods add what those of `Network` compute.

    A method takes and gives names of values. Weights keep the names of `ModelConfig.shapes`.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, np.ndarray],
        rounded: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self.config, self.weights, self.rounded = config, weights, rounded
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def frames(self) -> str:
        """Windowed frames (B, T, b, rows) of `audio` behind `past`, and `past_out`; see `power`."""
        config, (_, columns) = self.config, self.factors
        # Samples that fill no step are refused here: they would be lost without a word.
        step = self.numbers("step", 0, -1, config.step_samples)
        whole = self.add("Reshape", "audio", step, to="audio_in_whole_steps")
        audio = self.add("Reshape", whole, self.numbers("samples", 0, -1))
        signal = self.add("Concat", "past", audio, axis=1)
        count = self.add("Shape", audio, start=1, end=2)
        end, axis = self.numbers("end", np.iinfo(np.int64).max), self.numbers("axis", 1)
        self.add("Slice", signal, count, end, axis, to="past_out")
        # Behind the window whole rows are filled with what comes there, times 0.
        rows = -(-config.window_size // columns)
        beyond = rows * columns - config.window_size
        signal = self.add("Pad", signal, self.numbers("pads", 0, 0, 0, beyond))
        hop, begin = self.constant("hop", np.int64(config.hop)), self.constant("0", np.int64(0))
        starts = self.add("Range", begin, self.add("Squeeze", count), hop)
        starts = self.add("Reshape", starts, self.numbers("starts", -1, 1, 1))
        places = np.arange(rows * columns).reshape(rows, columns).T
        inside = self.cast(self.integers("inside", places), TensorProto.INT64)
        frames = self.add("Gather", signal, self.add("Add", starts, inside), axis=1)
        window = np.pad(self.weights["mfcc.window"], (0, beyond)).reshape(rows, columns).T
        return self.add("Mul", frames, self.constant("mfcc.window", window))

    def power(self, frames: str) -> str:
        """Power (B, T, a K) of the spectra of frames (B, T, b, rows), its bins as in `bins`.

        With n = b n1 + n2 and k = k1 + a k2, the Fourier transform of a b points is one over n1,
        a turn by n2 k1 / (a b), and one over n2 (Cooley and Tukey 1965). As products it is faster
        for a step than onnxruntime's STFT, serves any size, and rounds less: in the mel bands
        beside a pure tone STFT's rounding shows, four times more in the logits.
        """
        (a, b), last = self.factors, self.bins.shape[1]
        rows = -(-self.config.window_size // b)
        first = _turns(np.outer(np.arange(rows), np.arange(a)) / a)
        middle = _turns(np.outer(np.arange(a), np.arange(b)) / (a * b))
        second = _turns(np.outer(np.arange(b), np.arange(last)) / b)
        spectra = self.add("MatMul", frames, self.constant("fourier.first", np.hstack(first)))
        spectra = self.add("Transpose", spectra, perm=[0, 1, 3, 2])
        parts = ["fourier.real", "fourier.imaginary"]
        self.nodes.append(helper.make_node("Split", [spectra], parts, axis=2))
        turns = [
            self.constant(f"fourier.turn.{part}", matrix)
            for part, matrix in zip(("real", "imaginary"), middle, strict=True)
        ]
        products = [[self.add("Mul", part, turn) for turn in turns] for part in parts]
        real = self.add("Sub", products[0][0], products[1][1])
        imaginary = self.add("Add", products[0][1], products[1][0])
        both = np.block([[second[0], second[1]], [-second[1], second[0]]])
        spectra = self.add("Concat", real, imaginary, axis=-1)
        spectra = self.add("MatMul", spectra, self.constant("fourier.second", both))
        spectra = self.add("Reshape", spectra, self.numbers("fourier.parts", 0, 0, a, 2, last))
        power = self.add("ReduceSumSquare", spectra, axes=[3], keepdims=0)
        return self.add("Reshape", power, self.numbers("fourier.bins", 0, 0, a * last))

    @property
    def factors(self) -> tuple[int, int]:
        """a and b of `power`: their product is the size of the transform, a is not above b."""
        size = self.config.fft_size
        a = max(n for n in range(1, math.isqrt(size) + 1) if size % n == 0)
        return a, size // a

    @property
    def bins(self) -> np.ndarray:
        """(a, K) k = k1 + a k2, with as many k2 as reach the last bin; some go beyond it."""
        a, _ = self.factors
        last = self.config.fft_size // 2
        return np.arange(a)[:, None] + a * np.arange(last // a + 1)

    def features(self, power: str) -> str:
        """Normalised cepstra (B, T, F) of the power (B, T, a K) of the spectra."""
        floor = self.constant("log_floor", np.float32(self.config.log_floor))
        mel = self.add("Add", self.add("MatMul", power, self.mel()), floor)
        cepstra = self.add("MatMul", self.add("Log", mel), self.weight("mfcc.dct"))
        centred = self.add("Sub", cepstra, self.weight("mfcc.mean"))
        return self.add("Div", centred, self.weight("mfcc.std"))

    def mel(self) -> str:
        """The mel matrix (a K, M), from what is not zero in it: 3 KB in place of 41.

        A sparse constant would do the same, but not every runtime reads one.
        """
        bins = self.bins.ravel()
        matrix = np.pad(self.weights["mfcc.mel"], ((0, int(bins.max())), (0, 0)))[bins]
        places = np.flatnonzero(matrix)
        return self.add(
            "Reshape",
            self.add(
                "ScatterElements",
                self.add("ConstantOfShape", self.numbers("mfcc.mel.size", matrix.size)),
                self.cast(self.integers("mfcc.mel.places", places), TensorProto.INT64),
                self.constant("mfcc.mel.values", matrix.ravel()[places]),
            ),
            self.numbers("mfcc.mel.shape", *matrix.shape),
        )

    def recur(self, features: str) -> None:
        """`logits` and `state_out`, from features (B, T, F) and `state`."""
        config = self.config
        joined = self.numbers("joined", 0, -1, config.stack * config.coefficients)
        x = self.add("Transpose", self.add("Reshape", features, joined), perm=[1, 0, 2])
        x = self.linear("input", x)
        first = self.numbers("direction", 1)
        before = [f"state_{layer}" for layer in range(config.layers)]
        after = [f"after_{layer}" for layer in range(config.layers)]
        self.nodes.append(helper.make_node("Split", ["state"], before, axis=0))
        for layer in range(config.layers):
            block = f"blocks.{layer}"
            states = self.recurrence(
                f"{block}.recurrence",
                self.norm(f"{block}.recurrence_norm", x),
                before[layer],
                after[layer],
            )
            x = self.add("Add", x, self.add("Squeeze", states, first))
            x = self.add("Add", x, self.feed_forward(f"{block}.feed_forward", x))
        x = self.linear("head.1", self.norm("head.0", x))
        self.add("Transpose", x, perm=[1, 0, 2], to="logits")
        self.add("Concat", *after, axis=0, to="state_out")

    def recurrence(self, name: str, x: str, before: str, after: str) -> str:
        """Every h[t] (T, 1, B, H) = tanh(W_ih x[t] + b + W_hh h[t-1]); the last becomes `after`."""
        biases = [self.weights[f"{name}.{bias}"] for bias in ("bias_ih_l0", "bias_hh_l0")]
        inputs = [
            x,
            self.matrix(f"{name}.weight_ih_l0", lambda array: array[None]),
            self.matrix(f"{name}.weight_hh_l0", lambda array: array[None]),
            self.constant(f"{name}.bias", np.concatenate(biases)[None]),
            "",  # lengths: all are whole
            before,
        ]
        self.nodes.append(
            helper.make_node(
                "RNN",
                inputs,
                [f"{name}.states", after],
                name,
                hidden_size=self.config.hidden_size,
                activations=[self.config.activation.capitalize()],
            )
        )
        return f"{name}.states"

    def feed_forward(self, name: str, x: str) -> str:
        """W_out (silu(W_gate n) * W_value n), n = norm(x)."""
        normed = self.norm(f"{name}.norm", x)
        gate = self.linear(f"{name}.gate", normed)
        gate = self.add("Mul", gate, self.add("Sigmoid", gate))
        gated = self.add("Mul", gate, self.linear(f"{name}.value", normed))
        return self.linear(f"{name}.outward", gated)

    def linear(self, name: str, x: str) -> str:
        """W x + b for every row of x."""
        product = self.add("MatMul", x, self.matrix(f"{name}.weight", np.transpose))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def norm(self, name: str, x: str) -> str:
        """Mean 0 and variance 1 over the last axis, then a weight and a bias for each unit."""
        weights = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=NORM_EPSILON)

    def matrix(self, name: str, turn: Callable[[np.ndarray], np.ndarray]) -> str:
        """A matrix of the network, its axes put by `turn` where the operator wants them.

        int8 is Cast and Mul, which a runtime computes once, when it loads the file. onnxruntime
        (since pull request 27769) would make one operator of DequantizeLinear and MatMul, in which
        inputs are rounded too: a stream was then 0.007 of the largest logit away from the whole.
        """
        if name not in self.rounded:
            return self.constant(name, turn(self.weights[name]))
        integers, scale = (turn(array) for array in self.rounded[name])
        floats = self.cast(self.constant(f"{name}.int8", integers), TensorProto.FLOAT)
        return self.add("Mul", floats, self.constant(f"{name}.scale", scale))

    def weight(self, name: str) -> str:
        """An array of the network as it is."""
        return self.constant(name, self.weights[name])

    def numbers(self, name: str, *numbers: int) -> str:
        """Whole numbers (n,), as shapes and axes are given."""
        return self.constant(name, np.array(numbers, np.int64))

    def integers(self, name: str, array: np.ndarray) -> str:
        """Integers from 0 on, of the smallest type that holds them."""
        return self.constant(name, array.astype(np.min_scalar_type(-int(array.max()) - 1)))

    def constant(self, name: str, array: Any) -> str:
        """An array that is kept in the file."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def cast(self, x: str, kind: int) -> str:
        """The same numbers as another kind of number."""
        to = f"{x}.cast"
        self.nodes.append(helper.make_node("Cast", [x], [to], to, to=kind))
        return to

    def add(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """A node with one output, which is named `to`, or after the operator and its place."""
        to = to or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [to], to, **attributes))
        return to


def _turns(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(-2 pi i angle), angles in turns: its real and its imaginary parts, float32."""
    radians = 2 * np.pi * angles
    return np.cos(radians).astype(np.float32), -np.sin(radians).astype(np.float32)
