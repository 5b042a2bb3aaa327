"""The pictures that only the README and the recipes show."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from recipe_scripts import load_recipe

from speechrnn import Recogniser
from speechrnn.audio import read_wave
from speechrnn.network import mfcc


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    return load_recipe("pictures")


def test_systems_show_the_published_ones_and_ours_with_their_intervals(pictures):
    published = [
        {
            "system": "LSTM",
            "kind": "gated recurrence",
            "parameters": "53000",
            "accuracy": "92.3",
            "test": "V1-12",
            "silence": "",
            "side": "left",
        },
        {
            "system": "CRNN",
            "kind": "gated recurrence",
            "parameters": "467000",
            "accuracy": "97.4",
            "test": "V2-12",
            "silence": "zeros",
            "side": "below",
        },
    ]
    ours = [
        {"system": "tiny", "parameters": 11_000, "accuracy": 94.0, "interval": (93.0, 95.0)},
        {"system": "base", "parameters": 240_000, "accuracy": 97.0, "interval": (96.5, 97.4)},
    ]
    axes = pictures.systems(published, ours, "a title").axes[0]
    line = axes.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [(11_000, 0.94), (240_000, 0.97)])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose(
        [[low, high] for (_, low), (_, high) in bars.get_segments()], [(0.93, 0.95), (0.965, 0.974)]
    )
    names = [text.get_text() for text in axes.texts]
    note = names.pop(2)
    assert names == ["LSTM", "CRNN†", "tiny", "base"], "CRNN's silence was digital zero"
    assert note.startswith("†")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "gated recurrence, published on V1-12" in labels and "vanilla recurrence, ours" in labels
    assert axes.get_xscale() == "log"


def test_way_of_one_wav_shows_the_states_and_the_answer_of_the_model(
    pictures: ModuleType, model_folder: Path, recogniser: Recogniser, recordings: Path
):
    figure = pictures.way_of_one_wav(model_folder, recordings / "a.wav")
    wave, features, states, answers = figure.axes
    prediction = recogniser.classify(recordings / "a.wav")
    assert wave.get_title() == f"a.wav: {prediction.label} {prediction.score:.0%}"
    samples = read_wave(recordings / "a.wav")
    _, state = recogniser.runtime.step(samples[None])
    config = recogniser.config
    shown = np.asarray(states.images[0].get_array())
    assert shown.shape == (config.hidden_size, config.window_steps)
    np.testing.assert_allclose(shown[:, -1], state.hidden[-1, 0], atol=1e-5)
    expected = mfcc(recogniser.runtime, samples).T
    np.testing.assert_allclose(np.asarray(features.images[0].get_array()), expected, atol=1e-4)
    assert answers.get_xlim() == (0, 1)


def test_way_of_one_wav_is_drawn_by_the_script(
    pictures: ModuleType, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["pictures.py", str(recordings / "a.wav"), str(tmp_path / "way.png")]
    monkeypatch.setattr("sys.argv", words)
    pictures.main()
    assert (tmp_path / "way.png").read_bytes().startswith(b"\x89PNG")
