"""The web page: what is in it, what it computes under Node, what it does in Chromium."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import golden_vectors
import numpy as np
import pytest
import soundfile
from chromium import Page, chromium, needs_chromium
from conftest import FACTS, SCORES, WORDS
from javascript import (
    Evaluate,
    JavaScript,
    as_float32,
    assert_same_words,
    needs_node,
    node,
    unrounded,
)
from tolerances import PROBABILITY, RUNTIMES

from speechrnn import Recogniser, load
from speechrnn.audio import to_int16
from speechrnn.config import ModelConfig
from speechrnn.detection import (
    BEHIND_SPEECH,
    HOLD_SECONDS,
    REFRACTORY_SECONDS,
    WIDEST_SECONDS,
    Detection,
    SlidingWindow,
    Trigger,
)
from speechrnn.export.page import model_of, pack, page, unpack, write_page
from speechrnn.folder import WEIGHTS, ModelFolder, read_folder, save_folder, shipped_models
from speechrnn.model import Model
from speechrnn.network import Network
from speechrnn.recogniser import PIECE_STEPS, TAIL_SECONDS

BYTES = 500_000  # of the page of `base`
STEP = 0.03  # s, of the shipped models


def arrays_of(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Those of a network that was never trained."""
    import torch

    torch.manual_seed(seed)
    return Model(config).arrays()


def folder_of(path: Path, config: ModelConfig, arrays: dict[str, np.ndarray]) -> ModelFolder:
    save_folder(path, config, arrays, training=FACTS, scores=SCORES, card="# A model\n")
    return read_folder(path)


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    return {name: page(read_folder(name))[0] for name in shipped_models()}


# --- the file


def test_page_of_base_is_small(pages: dict[str, bytes]) -> None:
    assert len(pages["base"]) < BYTES


@pytest.mark.parametrize("model", shipped_models())
def test_page_holds_the_model(pages: dict[str, bytes], model: str) -> None:
    folder, held = read_folder(model), model_of(pages[model])
    assert held["name"] == model
    assert held["config"] == json.loads(json.dumps(vars(folder.config)))
    assert held["thresholds"] == folder.thresholds
    assert (held["version"], held["sha256"]) == (folder.about["version"], folder.about["sha256"])


def test_rounding_moves_a_weight_by_half_a_step_of_its_row_and_leaves_the_rest_as_it_is() -> None:
    weights = read_folder("base").weights()
    back = unpack(pack(weights))
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        if array.ndim == 2 and not name.startswith("mfcc."):
            steps = np.abs(array).max(1, keepdims=True) / 127
            assert (np.abs(back[name] - array) <= 0.501 * steps).all()
        else:
            np.testing.assert_array_equal(back[name], array)


def test_a_matrix_with_a_row_of_zeros_and_a_band_without_bins_come_back() -> None:
    weights = {
        "head.1.weight": np.array([[0, 0], [1, -2]], np.float32),
        "mfcc.mel": np.array([[0, 0, 1], [0, 0, 0], [0, 2, 3]], np.float32),
    }
    back = unpack(pack(weights))
    np.testing.assert_array_equal(back["mfcc.mel"], weights["mfcc.mel"])
    np.testing.assert_allclose(back["head.1.weight"], weights["head.1.weight"], atol=0.01)


def test_write_page_says_how_far_it_is_from_the_model_and_leaves_nothing_else(
    tmp_path: Path, model_folder: Path
) -> None:
    to = tmp_path / "new" / "small.html"
    apart = write_page(read_folder(model_folder), to)
    assert 0 < apart < 0.1
    assert (to.read_bytes(), apart) == page(read_folder(model_folder))
    assert list(to.parent.iterdir()) == [to]


def test_write_page_leaves_nothing_half_written(tmp_path, model_folder, full_disk) -> None:
    with full_disk(20_000), pytest.raises(OSError, match=r"a\.html"):
        write_page(read_folder(model_folder), tmp_path / "a.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_page(read_folder(model_folder), tmp_path / "file" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_model_gives_no_page(tmp_path: Path, model: Model) -> None:
    folder = folder_of(tmp_path / "model", model.config, model.arrays())
    data = bytearray((folder.path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder.path / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="not the weights that were saved"):
        write_page(folder, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_model_that_int8_weights_would_spoil_gives_no_page(tmp_path: Path, model: Model) -> None:
    """One feature is divided by a million and its weights are as much larger: in float32 that is
    the same network, but in a row of int8 nothing is left of the other weights."""
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    arrays["mfcc.std"][0] *= 1e6
    arrays["input.weight"][:, :: model.config.coefficients] *= 1e6
    folder = folder_of(tmp_path / "model", model.config, arrays)
    with pytest.raises(ValueError, match=r"no page was made.* away, expected 3e-01"):
        write_page(folder, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_weights_that_are_no_numbers_give_no_page(tmp_path: Path, model: Model) -> None:
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    arrays["head.1.bias"][0] = np.nan
    with pytest.raises(ValueError, match="no page was made"):
        write_page(folder_of(tmp_path / "model", model.config, arrays), tmp_path / "a.html")


def test_page_asks_for_nothing_from_elsewhere(pages: dict[str, bytes]) -> None:
    text = pages["tiny"].decode()
    assert not re.findall(r"\b(?:src|srcset|action)\s*=\s*[\"']", text)
    assert re.findall(r"href=[\"'](.{5})", text) == ["data:"]
    assert "default-src 'none'" in text and "connect-src" not in text


# --- under Node


@pytest.fixture(scope="module")
def evaluate() -> Iterator[Evaluate]:
    with node() as evaluate:
        yield evaluate


@needs_node
@pytest.mark.parametrize("model", shipped_models())
def test_shipped_model_gives_the_golden_vectors_under_node(evaluate: Evaluate, model: str) -> None:
    runtime = unrounded(evaluate, read_folder(model))
    for wave in golden_vectors.WAVES:
        for chunk in (None, 4_801):
            apart = golden_vectors.largest_difference(runtime, model, wave, chunk)
            assert apart < RUNTIMES["javascript"], wave


@needs_node
@pytest.mark.parametrize("chunk", golden_vectors.CHUNKS)
def test_a_wave_in_chunks_gives_the_golden_vectors_under_node(
    evaluate: Evaluate, chunk: int
) -> None:
    runtime = unrounded(evaluate, read_folder("tiny"))
    wave = "short" if chunk < 100 else "odd"
    assert golden_vectors.largest_difference(runtime, "tiny", wave, chunk) < RUNTIMES["javascript"]


@needs_node
@pytest.mark.parametrize("model", shipped_models())
def test_words_of_the_golden_vectors_are_found_under_node(evaluate: Evaluate, model: str) -> None:
    """At the same step; only reported earlier, since a page computes each step as it comes."""
    runtime = unrounded(evaluate, read_folder(model))
    for block in (1_600, 80_000):
        found = runtime.words(golden_vectors.WAVES["speech"], block)
        assert len(found) == len(golden_vectors.WORDS[model])
        for word, (start, end, label, score, reported) in zip(
            found, golden_vectors.WORDS[model], strict=True
        ):
            assert (word.start, word.label) == (pytest.approx(start), label)
            assert word.end == pytest.approx(end)
            assert abs(word.score - score) < PROBABILITY
            assert reported - 0.24 < word.reported < reported + 0.001


@needs_node
@pytest.mark.parametrize("model", shipped_models())
def test_javascript_computes_with_the_rounded_weights_what_numpy_does(
    evaluate: Evaluate, pages: dict[str, bytes], model: str
) -> None:
    arrays = model_of(pages[model])["arrays"]
    config = read_folder(model).config
    wave = golden_vectors.WAVES["speech"][None, :48_000]
    expected = Network(config, unpack(arrays)).step(wave)[0]
    found = JavaScript(evaluate, config, arrays).step(wave)[0]
    assert np.abs(found - expected).max() < RUNTIMES["numpy"] * np.abs(expected).max()


@needs_node
@pytest.mark.parametrize("model", shipped_models())
def test_page_finds_the_words_of_its_weights_in_numpy_and_those_of_transcribe_under_node(
    evaluate: Evaluate, pages: dict[str, bytes], recording: np.ndarray, model: str
) -> None:
    folder = read_folder(model)
    arrays = model_of(pages[model])["arrays"]
    runtime = JavaScript(evaluate, folder.config, arrays, folder.thresholds)
    found = runtime.words(recording, 512)
    rounded = Recogniser(Network(folder.config, unpack(arrays)), folder.thresholds)
    assert_same_words(found, list(rounded.detect([recording])), STEP)
    if model != "tiny":  # which finds a word that is just below its threshold without rounding
        assert_same_words(found, list(load(model).detect([recording])), STEP)


@needs_node
@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "relu", "hidden_size": 7, "feed_forward": 5},
        {"fft_size": 400},  # 2^4 * 25
        {"window_ms": 20, "hop_ms": 12.5, "fft_size": 321, "stack": 2},  # odd
        {
            "window_ms": 10,
            "hop_ms": 10,
            "fft_size": 160,
            "stack": 8,
        },  # no past, 12.5 steps a window
        {"mel_bands": 80, "coefficients": 13, "log_floor": 1e-3, "stack": 1},  # bands without bins
    ],
    ids=str,
)
def test_any_configuration_gives_what_it_gives_in_numpy(evaluate: Evaluate, changes) -> None:
    config = ModelConfig(
        **{"labels": ("_silence_", "_unknown_", "yes", "no"), "hidden_size": 16, "layers": 2}
        | changes
    )
    arrays = arrays_of(config)
    wave = golden_vectors.WAVES["speech"][None, 8_000:24_000]
    expected, state = Network(config, {k: v.astype(float) for k, v in arrays.items()}).step(wave)
    found, theirs = JavaScript(evaluate, config, as_float32(arrays)).step(wave)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(theirs.hidden - state.hidden).max() < 1e-5 * np.abs(state.hidden).max()
    assert theirs.audio.shape == state.audio.shape
    lengths = evaluate("network.lengths")
    assert lengths["windowSteps"] == config.window_steps
    assert lengths["holdSteps"] == round(HOLD_SECONDS / config.seconds_per_step)
    assert lengths["widestSteps"] == round(WIDEST_SECONDS / config.seconds_per_step)


def test_constants_of_the_detector_are_those_of_python() -> None:
    script = (
        Path(__file__).parents[1] / "speechrnn" / "export" / "web" / "speechrnn.js"
    ).read_text()
    for name, value in {
        "HOLD_SECONDS": HOLD_SECONDS,
        "WIDEST_SECONDS": WIDEST_SECONDS,
        "BEHIND_SPEECH": BEHIND_SPEECH,
        "REFRACTORY_SECONDS": REFRACTORY_SECONDS,
        "PIECE_STEPS": PIECE_STEPS,
        "TAIL_SECONDS": TAIL_SECONDS,
    }.items():
        (found,) = re.findall(rf"const {name} = ([\d.]+);", script)
        assert float(found) == value


@needs_node
def test_window_and_trigger_decide_as_those_in_numpy_do(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On logits of words that are short, go on, overlap and follow closely."""
    config = ModelConfig(labels=("_silence_", "_unknown_", "yes", "no", "up"))
    thresholds = {"yes": 0.8, "no": 0.35, "up": 0.7}
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (3_000, 5))
    for start in range(0, 2_950, 15):
        sound = logits[start : start + random.integers(3, 40)]
        sound += random.uniform(0, 4)  # what weighs more
        sound[:, random.integers(0, 5)] += random.uniform(1, 9)
    window, trigger = SlidingWindow(config), Trigger(config, thresholds)
    posteriors = window.push(logits.astype(np.float32))
    expected = trigger.push(posteriors)
    assert len(expected) > 20 and {word.label for word in expected} == set(thresholds)
    monkeypatch.setattr("speechrnn.detection.BEHIND_SPEECH", 0)
    others = Trigger(config, thresholds).push(posteriors)
    assert len(set(others) ^ set(expected)) > 5, "it matters what was before"
    given = json.dumps({"config": vars(config), "logits": logits.tolist(), "levels": thresholds})
    found = evaluate(
        "(({ config, logits, levels }) => { const window = new speechrnn.SlidingWindow(config);"
        "const trigger = new speechrnn.Trigger(config, levels);"
        "return logits.map((step) => trigger.push(window.push(Float64Array.from(step))))"
        f".filter(Boolean); }})({given})"
    )
    assert [word["label"] for word in found] == [word.label for word in expected]
    for word, other in zip(found, expected, strict=True):
        for name in ("start", "end", "score", "reported"):
            assert word[name] == pytest.approx(getattr(other, name), abs=1e-4)


@needs_node
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000, 16_001])
def test_a_wave_at_another_rate_comes_to_16_khz_however_it_is_cut(
    evaluate: Evaluate, rate: int
) -> None:
    """A tone of 3 kHz stays what it is, to 60 dB; one above what 16 kHz can hold is gone."""

    def tone(hertz: float, rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * hertz * np.arange(rate // 4) / rate)

    def resampled(wave: np.ndarray, block: int) -> np.ndarray:
        given = json.dumps(wave.tolist())
        return np.array(
            evaluate(
                f"((wave) => {{ const to16 = new speechrnn.Resampler({rate}); const out = [];"
                f"for (let at = 0; at < wave.length; at += {block})"
                f"out.push(...to16.push(Float32Array.from(wave.slice(at, at + {block}))));"
                f"return out; }})({given})"
            )
        )

    found = resampled(tone(3_000, rate), 128)
    missing = 4_000 - len(found)
    assert 0 < missing < 100, "what stands so near the end needs samples to come"
    inside = slice(100, len(found) - 100)
    assert np.abs(found - tone(3_000, 16_000)[: len(found)])[inside].max() < 1e-3
    np.testing.assert_array_equal(found, resampled(tone(3_000, rate), 4_001)[: len(found)])
    if rate > 20_000:
        assert np.abs(resampled(tone(9_000, rate), 4_096)[inside]).max() < 1e-3


# --- in Chromium


class Served:
    """Pages on a port of this machine, `/NAME` for each.

    Args:
        pages: by name.
    """

    def __init__(self, pages: dict[str, bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = pages[self.path[1:]]
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def address(self, name: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{name}"


@pytest.fixture(scope="module")
def served(pages: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    labels = ("_silence_", "_unknown_", "<b>&amp;</script>", *(f"{n}" * n for n in range(1, 9)))
    labels += ("a_word_that_is_so_long_that_no_column_was_made_for_it", *WORDS)
    config = ModelConfig(labels=labels, hidden_size=16, layers=2)
    folder = folder_of(tmp_path_factory.mktemp("own") / "own", config, arrays_of(config))
    served = Served({**pages, "own": page(folder)[0]})
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser that gives no microphone unless it is allowed to."""
    with chromium(
        tmp_path_factory.mktemp("browser"), "--host-resolver-rules=MAP * 127.0.0.1"
    ) as one:
        yield one


@pytest.fixture
def opened(browser: Page, served: Served) -> Iterator[Page]:
    """The page of `tiny`, 1280 wide and light, of which the console must have nothing to say."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.size(1280)
    browser.open(served.address("tiny"))
    yield browser


def status(page: Page) -> str:
    return str(page.run("document.getElementById('status').textContent"))


def words_of(page: Page) -> list[Detection]:
    """The table of words, first to last."""
    rows = page.run(
        "[...document.querySelectorAll('#words tr')].map((row) =>"
        "[...row.cells].map((cell) => cell.textContent)).reverse()"
    )
    return [
        Detection(float(start), float(end), label, float(score.rstrip(" %")) / 100, 0)
        for start, end, label, score in rows
    ]


@needs_chromium
@pytest.mark.parametrize("model", shipped_models())
def test_shipped_model_gives_the_golden_vectors_in_chromium(
    browser: Page, served: Served, model: str
) -> None:
    browser.open(served.address(model))
    runtime = unrounded(browser.run, read_folder(model))
    for wave in golden_vectors.WAVES:
        apart = golden_vectors.largest_difference(runtime, model, wave)
        assert apart < RUNTIMES["javascript"], wave


@needs_chromium
def test_a_recording_that_is_dropped_is_played_and_its_words_are_those_of_transcribe(
    opened: Page, served: Served, recording: np.ndarray, tmp_path: Path
) -> None:
    """As a wav: of an Opus file browsers and libsndfile make samples that are a little apart."""
    soundfile.write(tmp_path / "recording.wav", to_int16(recording), 16_000)
    opened.open(served.address("base"))
    opened.drop(tmp_path / "recording.wav")
    opened.wait_for("document.getElementById('status').textContent.startsWith('Playing rec')")
    opened.run("document.getElementById('open').click()")  # Skip to its end
    opened.wait_for("document.getElementById('status').textContent.includes('is over')")
    assert status(opened) == "recording.wav is over, after 15.0 s."
    assert_same_words(words_of(opened), list(load("base").detect([recording])), STEP)
    assert opened.complaints == []
    assert opened.requests == [served.address("tiny"), served.address("base")]


@needs_chromium
def test_what_is_heard_is_shown(opened: Page, recording: np.ndarray, tmp_path: Path) -> None:
    """Level, mel bands, h[t] of each layer and probabilities change with what is heard."""
    soundfile.write(tmp_path / "yes.wav", recording[:19_200], 16_000)
    pictures = "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
    before = opened.run(pictures)
    opened.drop(tmp_path / "yes.wav")
    opened.wait_for("document.querySelector('#words tr')")
    opened.wait_for("document.getElementById('word').textContent === 'yes'")
    opened.wait_for("document.getElementById('status').textContent.includes('is over')")
    opened.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = opened.run(pictures)
    assert len(before) == 4 + read_folder("tiny").config.layers
    assert all(old != new for old, new in zip(before, after, strict=True))
    shares = opened.run(
        "[...document.querySelectorAll('.share')].map((s) => parseInt(s.textContent))"
    )
    assert len(shares) == 12 and 95 <= sum(shares) <= 105
    assert opened.complaints == []


@needs_chromium
def test_a_file_that_is_no_recording_is_refused_in_a_line(opened: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no sound")
    opened.drop(tmp_path / "notes.wav")
    opened.wait_for("document.getElementById('status').className === 'wrong'")
    assert status(opened).startswith("notes.wav: not a recording that this browser can read.")
    assert opened.run("document.getElementById('start').textContent") == "Start the microphone"
    assert opened.complaints == []


def _rejected(name: str) -> str:
    error = f"new DOMException('', '{name}')"
    return f"MediaDevices.prototype.getUserMedia = () => Promise.reject({error})"


@needs_chromium
@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", "The microphone was refused: allow it"),  # as the browser does by itself here
        (_rejected("NotFoundError"), "No microphone was found: plug one in"),
        (_rejected("NotReadableError"), "The microphone does not answer"),
        ("delete window.AudioWorkletNode", "This browser has no AudioWorklet"),
        (
            "MediaDevices.prototype.getUserMedia = async () =>"
            "new AudioContext().createMediaStreamDestination().stream;"
            "AudioWorklet.prototype.addModule = async () => { throw new DOMException('', 'X') }",
            "The microphone cannot be used",
        ),
    ],
    ids=["refused", "absent", "busy", "no worklet", "worklet refused"],
)
def test_a_microphone_that_cannot_be_had_is_explained_in_a_line(
    opened: Page, before: str, said: str
) -> None:
    opened.run(before)
    opened.press("Enter")  # the button has the focus
    opened.wait_for("document.getElementById('status').className === 'wrong'")
    assert said in status(opened)
    assert status(opened).endswith("Recordings can be opened or dropped here all the same.")
    assert opened.run("document.getElementById('start').textContent") == "Start the microphone"
    assert opened.complaints == []


@needs_chromium
def test_a_page_from_elsewhere_without_https_says_what_to_type(
    opened: Page, served: Served
) -> None:
    opened.open(served.address("tiny", host="elsewhere.example"))
    opened.press("Enter")
    opened.wait_for("document.getElementById('status').className === 'wrong'")
    assert "type `speechrnn demo`" in status(opened)
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", ["base", "own"])
def test_page_does_not_scroll_sideways(opened: Page, served: Served, name: str, width: int) -> None:
    """Nor does it with 22 labels of any length, with words heard, or with a long line of fault."""
    opened.size(width)
    opened.open(served.address(name))
    opened.press("Enter")
    opened.wait_for("document.getElementById('status').className === 'wrong'")
    assert opened.run("document.documentElement.scrollWidth") == width
    beyond = opened.run(
        "[...document.querySelectorAll('main *')].filter((e) => e.getClientRects().length &&"
        f"e.getBoundingClientRect().right > {width}).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


@needs_chromium
def test_labels_are_shown_as_they_are(opened: Page, served: Served) -> None:
    opened.open(served.address("own"))
    shown = opened.run("[...document.querySelectorAll('.label')].map((e) => e.textContent)")
    assert shown[0] == "<b>&amp;</script>"
    assert shown[-2:] == ["silence", "another"]
    assert len(shown) == 22


@needs_chromium
def test_colours_follow_the_screen(opened: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(colour)
    opened.size(1280, dark=True)
    assert opened.run(colour) != light


@needs_chromium
def test_page_cannot_send_and_keeps_nothing(opened: Page, served: Served, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-1, 1, 8_000), 16_000)
    opened.drop(tmp_path / "noise.wav")
    opened.wait_for("document.getElementById('status').textContent.includes('is over')")
    kept = "[localStorage.length, sessionStorage.length, document.cookie, document.title]"
    assert opened.run(kept) == [0, 0, "", "speechrnn tiny"]
    assert opened.run("indexedDB.databases().then((all) => all.length)") == 0
    assert opened.run("document.getElementById('load').textContent") != ""
    opened.run("window.dispatchEvent(new Event('pagehide'))")  # it is closed, or left
    opened.wait_for("document.getElementById('load').textContent === ''")
    assert opened.complaints == [] and opened.requests == [served.address("tiny")]
    assert opened.run("fetch('/tiny').then(() => 'sent', () => 'refused')") == "refused"
    assert opened.requests == [served.address("tiny")]


@needs_chromium
def test_buttons_work_by_keyboard(opened: Page) -> None:
    focus = "document.activeElement.textContent"
    assert opened.run(focus) == "Start the microphone"
    opened.press("Tab")
    assert opened.run(focus) == "Open a recording"
    opened.run("let clicks = 0; document.getElementById('file').click = () => clicks++")
    opened.press("Enter")
    opened.press("Space")
    opened.wait_for("clicks === 2")


# Keeps what the page hears, so that `transcribe` can be given the very same samples: a model's
# words depend on where in a step they begin, and when a microphone starts is chance.
KEEP = """
globalThis.kept = [];
const push = speechrnn.Listener.prototype.push;
speechrnn.Listener.prototype.push = function (block) {
  kept.push(...block);
  return push.call(this, block);
};
"""
# As Firefox does it with a microphone of another rate.
REFUSE_16_KHZ = """
const source = AudioContext.prototype.createMediaStreamSource;
AudioContext.prototype.createMediaStreamSource = function (stream) {
  if (this.sampleRate === 16000) throw new DOMException("", "NotSupportedError");
  return source.call(this, stream);
};
"""


def heard_by_microphone(
    tmp_path: Path, address: str, wave: np.ndarray, before: str = ""
) -> tuple[np.ndarray, list[Detection]]:
    """What the page at an address heard (N,) of a wave (N,), and its words."""
    soundfile.write(tmp_path / "microphone.wav", to_int16(wave), 16_000)
    options = (
        "--use-fake-ui-for-media-stream",  # allows the microphone
        f"--use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}%noloop",
    )
    with chromium(tmp_path, *options) as one:
        one.open(address)
        one.run(KEEP + before)
        one.press("Space")
        one.wait_for("document.getElementById('status').className === 'live'")
        assert one.run("document.getElementById('start').textContent") == "Stop"
        one.wait_for(f"kept.length > {len(wave) + 8_000}")
        one.press("Space")
        one.wait_for("document.getElementById('status').textContent === 'Stopped.'")
        heard = np.array(one.run("kept"), np.float32)
        one.wait_for("document.getElementById('start').textContent === 'Start the microphone'")
        assert len(one.run("kept")) == len(heard), "it goes on after it was stopped"
        assert one.complaints == []
        assert one.requests[0] == address and all("blob:" in other for other in one.requests[1:])
        return heard, words_of(one)


def assert_heard(heard: np.ndarray, wave: np.ndarray) -> None:
    """Most loud tenths of a second of the wave are in there; a busy machine may lose some."""
    pieces = wave.reshape(-1, 1_600)
    power = (pieces**2).mean(1)
    loud = pieces[power > power.mean()]
    energy = np.convolve(heard**2, np.ones(1_600), "valid")
    alike = [
        (np.correlate(heard, piece, "valid") / np.sqrt(energy * (piece**2).sum() + 1e-9)).max()
        for piece in loud
    ]
    assert np.median(alike) > 0.97


def heard_in_numpy(pages: dict[str, bytes], heard: np.ndarray) -> list[Detection]:
    """What NumPy finds with the weights of the page, which are rounded."""
    folder = read_folder("base")
    network = Network(folder.config, unpack(model_of(pages["base"])["arrays"]))
    found = Recogniser(network, folder.thresholds).listener().push(heard)
    assert found
    return found


@needs_chromium
@pytest.mark.parametrize("before", ["", REFUSE_16_KHZ], ids=["16 kHz", "resampled"])
def test_words_at_the_microphone_are_those_of_the_listener_in_numpy(
    pages: dict[str, bytes], served: Served, recording: np.ndarray, tmp_path: Path, before: str
) -> None:
    wave = recording[:56_000]
    heard, found = heard_by_microphone(tmp_path, served.address("base"), wave, before)
    assert_heard(heard, wave)
    assert_same_words(found, heard_in_numpy(pages, heard), STEP, steps=0.2)


@needs_chromium
@pytest.mark.slow
def test_words_of_the_whole_recording_at_the_microphone_are_those_of_the_listener_in_numpy(
    pages: dict[str, bytes], served: Served, recording: np.ndarray, tmp_path: Path
) -> None:
    heard, found = heard_by_microphone(tmp_path, served.address("base"), recording)
    assert_heard(heard, recording)
    assert_same_words(found, heard_in_numpy(pages, heard), STEP)
