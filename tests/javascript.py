"""The network in JavaScript as a `Runtime`, in Node or in a page, and what else runs there."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from speechrnn.config import ModelConfig
from speechrnn.detection import Detection
from speechrnn.export.page import WEB, pack
from speechrnn.folder import ModelFolder
from speechrnn.network import State

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")
Evaluate = Callable[[str], Any]  # gives the value of a JavaScript expression

# One line of JSON in, one out, so that Node keeps its network from call to call.
LOOP = """
globalThis.speechrnn = require(process.argv[1]);
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  let answer;
  try { answer = { value: (0, eval)(JSON.parse(line)) }; }
  catch (error) { answer = { error: error.stack }; }
  console.log(JSON.stringify(answer));
});
"""
LOAD = """
(({ config, thresholds, arrays }) => {
  globalThis.network = new speechrnn.Network(config, speechrnn.unpack(arrays));
  globalThis.thresholds = thresholds;
})"""
STEP = """
(({ wave, audio, hidden }) => {
  const state = audio
    ? { audio: Float32Array.from(audio), hidden: hidden.map((h) => Float64Array.from(h)) }
    : network.initialState();
  const steps = network.step(Float32Array.from(wave), state);
  const logits = steps.map((step) => Array.from(step.logits));
  return { logits, audio: Array.from(state.audio), hidden: state.hidden.map((h) => Array.from(h)) };
})"""
WORDS = """
(({ wave, block }) => {
  const listener = new speechrnn.Listener(network, thresholds);
  const words = [];
  for (let at = 0; at < wave.length; at += block) {
    words.push(...listener.push(Float32Array.from(wave.slice(at, at + block))).words);
  }
  return [...words, ...listener.finish().words];
})"""


@contextmanager
def node() -> Iterator[Evaluate]:
    """Evaluates JavaScript beside `speechrnn.js` in a Node of its own."""
    assert NODE is not None
    command = [NODE, "-e", LOOP, str(WEB / "speechrnn.js")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:

        def evaluate(code: str) -> Any:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps(code) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "error" not in answer, answer["error"]
            return answer.get("value")

        yield evaluate


def as_float32(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as `speechrnn.js` takes them, none of them rounded."""
    flat = pack({f"mfcc.{name}": array for name, array in weights.items()})  # these are not packed
    return {name.removeprefix("mfcc."): entry for name, entry in flat.items()}


class JavaScript:
    """A network in JavaScript.

    Args:
        evaluate: in Node or in a page.
        config: of the model.
        arrays: packed.
        thresholds: of the words.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        config: ModelConfig,
        arrays: Mapping[str, Any],
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.config, self._evaluate = config, evaluate
        self._call(LOAD, config=vars(config), arrays=arrays, thresholds=thresholds or {})

    def _call(self, function: str, **argument: Any) -> Any:
        return self._evaluate(f"{function}({json.dumps(argument)})")

    def step(self, wave: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """Logits (1, T, C) of a wave (1, N), and the state to go on with."""
        before = {}
        if state is not None:
            before = {"audio": state.audio[0].tolist(), "hidden": state.hidden[:, 0].tolist()}
        answer = self._call(STEP, wave=wave[0].tolist(), **before)
        logits = np.array(answer["logits"], np.float32).reshape(1, -1, len(self.config.labels))
        hidden = np.array(answer["hidden"])[:, None]
        return logits, State(np.array(answer["audio"])[None], hidden)

    def words(self, wave: np.ndarray, block: int) -> list[Detection]:
        """What its own listener finds in a wave (N,) in blocks of so many samples."""
        found = self._call(WORDS, wave=wave.tolist(), block=block)
        return [Detection(**word) for word in found]


def unrounded(evaluate: Evaluate, folder: ModelFolder) -> JavaScript:
    """A model in JavaScript with its weights as they are."""
    return JavaScript(evaluate, folder.config, as_float32(folder.weights()), folder.thresholds)


def assert_same_words(
    found: list[Detection], expected: list[Detection], step: float, steps: float = 1
) -> None:
    """The same labels in the same order, at the same times to within so many steps of `step` s."""
    assert [word.label for word in found] == [word.label for word in expected]
    for word, other in zip(found, expected, strict=True):
        assert abs(word.start - other.start) < (steps + 0.01) * step
        assert abs(word.end - other.end) < (steps + 0.01) * step
