"""The textbook page: how it is built, what its mathematics gives, what it does in Chromium."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from chromium import Page, chromium, needs_chromium
from conftest import ROOT
from javascript import Evaluate, needs_node, node
from recipe_scripts import load_recipe
from torch import Tensor

from speechrnn.audio import to_int16
from speechrnn.config import ModelConfig
from speechrnn.evaluation.recordings import word_spans
from speechrnn.export.page import model_of, unpack
from speechrnn.network import Network, pool, softmax

RECIPES = ROOT / "recipes"
PAGE = RECIPES / "textbook.html"
BYTES = 3_000_000
APART = 1e-9  # of sums in float64, in another order


@pytest.fixture(scope="module")
def textbook() -> ModuleType:
    return load_recipe("textbook")


@pytest.fixture(scope="module")
def built(textbook: ModuleType) -> bytes:
    return bytes(textbook.build())


# --- the file


def without_weights(data: bytes) -> str:
    """A page without what follows from the shipped weights."""
    text = re.sub(r"<(\w+) data-weights>.*?</\1>", "", data.decode(), flags=re.DOTALL)
    for block in ("model", "recordings"):
        text = re.sub(rf'<script id="{block}".*?</script>', "", text, flags=re.DOTALL)

    def kept(found: re.Match[str]) -> str:
        measured = json.loads(found[2])
        del measured["shipped"]
        measured["systems"] = [s for s in measured["systems"] if not s["kind"].endswith("ours")]
        return found[1] + json.dumps(measured)

    block = r'(<script id="measurements" type="application/json">)(.*?)(?=</script>)'
    return re.sub(block, kept, text, flags=re.DOTALL)


def test_the_page_is_what_the_files_of_the_repository_give(built: bytes) -> None:
    """But for the weights, which change more often: then type `python recipes/textbook.py`."""
    assert without_weights(PAGE.read_bytes()) == without_weights(built)


def test_a_clean_clone_builds_the_page(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    page = tmp_path / "clone" / "recipes" / "textbook.html"
    page.unlink()
    command = [sys.executable, "-W", "error", "recipes/textbook.py"]
    done = subprocess.run(
        command, cwd=tmp_path / "clone", capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 100_000 < page.stat().st_size < BYTES


def test_the_page_is_small_and_asks_for_nothing(built: bytes) -> None:
    text = built.decode()
    assert len(built) < BYTES
    assert not re.findall(r"\b(?:src|srcset|action)\s*=\s*[\"']", text)
    assert {link[0] for link in re.findall(r'href="(.*?)"', text)} == {"#", "d"}  # and `data:`
    assert "default-src 'none'" in text and "connect-src" not in text


def test_no_number_of_the_text_is_typed() -> None:
    text = (RECIPES / "textbook" / "textbook.html").read_text()
    for what in (
        r"<style>.*?</style>",
        r"<sub>.*?</sub>",
        r"\{\{.*?\}\}",
        r"\{%.*?%\}",
        r"<[^>]*>",
    ):
        text = re.sub(what, " ", text, flags=re.DOTALL)
    typed = re.findall(r"\S*\d\S*", text)
    assert set(typed) <= {"\N{MINUS SIGN}1", "+1"}, "the ends of a scale of colours"


def test_every_measurement_tells_where_it_comes_from() -> None:
    measured = json.loads((RECIPES / "textbook.json").read_text())
    assert set(measured) == {"trained", "shipped", "speed"}
    assert set(measured["speed"]) == {"cpu", "cuda"}
    for part in (measured["trained"], measured["shipped"], measured["speed"]["cpu"]):
        assert re.fullmatch(r"[0-9a-f]{7,}", part["commit"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", part["date"])
        assert part["hardware"] and isinstance(part["seed"], int)
        assert part["command"].startswith("python recipes/textbook.py --measure")


def test_every_published_figure_has_its_source(textbook: ModuleType) -> None:
    for system in textbook.systems():
        assert re.fullmatch(r"arXiv \d{4}\.\d{5}|speechrnn/weights/\w+", system["source"])
        assert (system["talk"] is not None) == (system["kind"] == textbook.OURS)


def test_lines_of_code_are_read_and_lost_ones_are_refused(textbook: ModuleType) -> None:
    found = textbook.code("speechrnn/recurrence.py", "for step in x.unbind(1):", 3)
    assert "hidden = squash(step @ weight_ih.T + bias + hidden @ weight_hh.T)" in found["text"]
    with pytest.raises(ValueError, match="0 lines begin with 'no such line'"):
        textbook.code("speechrnn/recurrence.py", "no such line", 1)


def test_what_the_text_says_holds_in_the_measurements(textbook: ModuleType) -> None:
    measured = textbook.measurements()
    plain, recipe = (measured["trained"][name] for name in ("plain", "recipe"))
    for one in plain["history"][:1]:  # "the whole gradient has to come from the last step"
        assert one["gradient"][0][0] < 1e-3 * one["gradient"][0][-1]
    for one in recipe["history"]:  # "every step has a gradient of its own"
        for norms in one["gradient"]:
            assert min(norms) > 0.01 * max(norms)
    last, window = (measured["shipped"]["distance"][way] for way in ("last", "window"))
    assert max(last[5:]) < 0.5 * last[0], "read only from its last step, it forgets too"
    assert min(window) > 0.95 * window[0], "it can wait"
    cases = {(one["batch"], one["steps"]): one for one in measured["speed"]["cpu"]["cases"]}
    ratio = {size: one["steps_seconds"] / one["product_seconds"] for size, one in cases.items()}
    for steps in (33, 100, 300):  # "with many clips the waiting costs much less"
        assert ratio[256, steps] < 0.5 * ratio[1, steps]
    published = [one for one in measured["systems"] if one["kind"] != textbook.OURS]
    for ours in (one for one in measured["systems"] if one["kind"] == textbook.OURS):
        smaller = [one for one in published if one["parameters"] <= ours["parameters"]]
        convolutions = [one["accuracy"] for one in smaller if one["kind"] == "convolution"]
        assert max(convolutions) > ours["accuracy"], "the best convolution is ahead of us"


# --- the mathematics, under Node


@pytest.fixture(scope="module")
def evaluate() -> Iterator[Evaluate]:
    with node() as evaluate:
        source = (RECIPES / "textbook" / "mathematics.js").read_text()
        evaluate(f"(() => {{ {source}; globalThis.m = mathematics; }})()")
        yield evaluate


def torch_states(net: dict[str, Any], inputs: Any, squash: str = "tanh") -> list[Tensor]:
    """h[t] of every step, each a leaf of what follows, so that autograd gives its gradient."""
    weights = {name: torch.as_tensor(net[name], dtype=torch.float64) for name in net}
    squashed = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda x: x}[squash]
    hidden, states = torch.zeros(len(net["b"]), dtype=torch.float64), []
    for x in torch.as_tensor(inputs, dtype=torch.float64):
        hidden = squashed(weights["W_ih"] @ x + weights["b"] + weights["W_hh"] @ hidden)
        if hidden.requires_grad:
            hidden.retain_grad()
        states.append(hidden)
    return states


def torch_lesson(net: dict[str, Any], inputs: Any, target: float) -> dict[str, Any]:
    """Loss, gradients of the weights and dLoss/dh[t] of one row of the page's task."""
    weights = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in net.items()
    }
    states = torch_states(weights, inputs)
    y = weights["W_hy"] @ states[-1] + weights["b_y"]
    loss = torch.nn.functional.softplus(-target * y)
    loss.backward()
    return {
        "loss": loss.item(),
        "dh": [state.grad.tolist() for state in states],
        "gradient": {name: weight.grad.tolist() for name, weight in weights.items()},
    }


@needs_node
@pytest.mark.parametrize("length", [1, 8, 30])
def test_gradients_of_the_task_are_those_of_torch(evaluate: Evaluate, length: int) -> None:
    found = evaluate(
        f"(() => {{ const r = m.chance(4), net = m.network(6, r), one = m.example({length}, r);"
        "return { net, one, ...m.lesson(net, one) }; })()"
    )
    expected = torch_lesson(found["net"], found["one"]["inputs"], found["one"]["target"])
    assert found["loss"] == pytest.approx(expected["loss"], abs=APART)
    np.testing.assert_allclose(found["dh"], expected["dh"], atol=APART)
    for name, gradient in expected["gradient"].items():
        np.testing.assert_allclose(found["gradient"][name], gradient, atol=APART, err_msg=name)


@needs_node
@pytest.mark.parametrize("squash", ["tanh", "identity", "relu"])
def test_states_and_gradients_of_each_squashing_are_those_of_torch(
    evaluate: Evaluate, squash: str
) -> None:
    found = evaluate(
        "(() => { const r = m.chance(2);"
        "const net = { W_ih: m.normal(5, 2, r), W_hh: m.scaled(m.normal(5, 5, r), 0.4),"
        "b: m.normal(1, 5, r)[0] }; const x = m.normal(7, 2, r), last = m.normal(1, 5, r)[0];"
        f"const states = m.forward(net, x, '{squash}');"
        f"return {{ net, x, last, states, ...m.backward(net, x, states, last, '{squash}') }}; }})()"
    )
    weights = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in found["net"].items()
    }
    states = torch_states(weights, found["x"], squash)
    (states[-1] @ torch.tensor(found["last"], dtype=torch.float64)).backward()
    np.testing.assert_allclose(found["states"], [h.detach() for h in states], atol=APART)
    np.testing.assert_allclose(found["dh"], [h.grad for h in states], atol=APART)
    for name, weight in weights.items():
        np.testing.assert_allclose(found["gradient"][name], weight.grad, atol=APART, err_msg=name)


@needs_node
def test_singular_values_are_those_of_numpy(evaluate: Evaluate) -> None:
    matrix = np.random.default_rng(0).normal(size=(9, 9))
    matrix[:, 3] = 2 * matrix[:, 1]  # one of them is zero
    found = evaluate(f"m.singularValues({matrix.tolist()})")
    np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), atol=1e-9)


@needs_node
def test_an_orthogonal_matrix_keeps_every_length(evaluate: Evaluate) -> None:
    matrix = np.array(evaluate("m.orthogonal(16, m.chance(1))"))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-12)


@needs_node
def test_clipping_shortens_what_is_too_long_and_nothing_else(evaluate: Evaluate) -> None:
    assert evaluate("[m.clipping(4, 1), m.clipping(0.5, 1)]") == [0.25, 1]
    moved = evaluate("m.updated({ w: [0, 0] }, { w: [30, 40] }, 0.5).w")
    np.testing.assert_allclose(moved, [-0.3, -0.4])


# --- in Chromium


@pytest.fixture(scope="module")
def address(built: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "textbook.html"
    path.write_bytes(built)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(
    address: str, recording: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A browser with the page open, whose microphone hears the first words of the recording."""
    folder = tmp_path_factory.mktemp("browser")
    soundfile.write(folder / "microphone.wav", to_int16(recording[:56_000]), 16_000)
    options = (
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    )
    with chromium(folder, *options) as one:
        one.size(1280)
        one.open(address)
        yield one


@pytest.fixture
def opened(browser: Page, address: str) -> Iterator[Page]:
    """The page as the test before left it, 1280 wide and light; it must not complain or ask."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.size(1280)
    yield browser
    assert browser.complaints == []
    assert {asked.partition(",")[0] for asked in browser.requests} <= {
        address,
        "data:text/javascript",  # the microphone's script, which stands in the page
    }


def move(page: Page, control: str, value: float | str | bool) -> None:
    """Give a control this value, as a hand would."""
    assert page.run(
        f"((c) => {{ if (c.type === 'checkbox') c.checked = {json.dumps(value)};"
        f"else c.value = {json.dumps(value)}; c.dispatchEvent(new Event('input'));"
        f"return c.type === 'checkbox' || c.value === {json.dumps(str(value))}; }})"
        f"(document.getElementById('{control}'))"
    ), f"{control} cannot be {value}"


def data(page: Page, figure: str) -> Any:
    return page.run(f"textbook.figures.{figure}.data()")


def text(page: Page, element: str) -> str:
    return str(page.run(f"document.getElementById('{element}').textContent"))


@pytest.fixture(scope="module")
def measured(built: bytes) -> dict[str, Any]:
    """What the built page holds of measurements."""
    block = r'<script id="measurements" type="application/json">(.*?)</script>'
    found = re.search(block, built.decode(), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_window(opened: Page, address: str, width: int, dark: bool) -> None:
    opened.size(width, dark=dark)
    opened.open(address)
    assert opened.run("document.documentElement.scrollWidth") == width
    beyond = opened.run(
        "[...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length"
        " && !e.closest('.scroll, pre, .skip')"
        f" && e.getBoundingClientRect().right > {width} + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []
    drawn = opened.run("[...document.querySelectorAll('figure svg[role=img]')].length")
    assert drawn >= 12


@needs_chromium
def test_every_control_and_picture_has_a_name(opened: Page) -> None:
    nodes = opened.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("slider", "button", "combobox", "checkbox", "spinbutton", "image", "figure", "link",
             "region", "table", "navigation")  # fmt: skip
    named: dict[str, list[str]] = {role: [] for role in roles}
    for one in nodes:
        role = one.get("role", {}).get("value")
        if role in named and not one.get("ignored"):
            named[role].append(one.get("name", {}).get("value", ""))
    assert len(named["slider"]) == 9 and len(named["spinbutton"]) == 20
    assert len(named["combobox"]) == 4 and len(named["checkbox"]) == 2
    for role in set(roles) - {"table"}:
        assert named[role] and all(named[role]), role


@needs_chromium
def test_headings_come_in_order_and_links_lead_somewhere(opened: Page) -> None:
    levels = opened.run(
        "[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1 and levels.count(2) == 8
    assert all(later - level <= 1 for level, later in pairwise(levels))
    lost = opened.run(
        "[...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter((a) => !document.querySelector(a.getAttribute('href'))).length"
    )
    twice = opened.run(
        "[...document.querySelectorAll('[id]')].length"
        " - new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
    )
    assert (lost, twice) == (0, 0)
    assert opened.run("document.documentElement.lang") == "en"


def _luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(opened: Page, dark: bool) -> None:
    opened.size(1280, dark=dark)

    def luminance(name: str) -> float:
        return _luminance(
            opened.run(
                f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
            )
        )

    for behind in ("page", "raised"):
        for name, least in [("text", 7), ("soft", 4.5), ("accent", 4.5),
                            *((line, 3) for line in ("two", "three", "four", "five"))]:  # fmt: skip
            low, high = sorted((luminance(name), luminance(behind)))
            assert (high + 0.05) / (low + 0.05) >= least, (name, behind)


@needs_chromium
def test_sliders_are_moved_by_keys(opened: Page) -> None:
    move(opened, "recording", "0")
    opened.run("document.getElementById('cover').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    for kind in ("keyDown", "keyUp"):
        opened.send("Input.dispatchKeyEvent", type=kind, **key)
    assert data(opened, "remembers")["first"] == 1
    assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@needs_chromium
def test_page_prints(opened: Page) -> None:
    opened.send("Emulation.setEmulatedMedia", media="print")
    hidden = "getComputedStyle(document.querySelector('#play')).display"
    assert opened.run(hidden) == "none"
    opened.send("Emulation.setDeviceMetricsOverride", width=720, height=1000, deviceScaleFactor=1,
                mobile=False)  # fmt: skip  # about A4
    assert opened.run("document.documentElement.scrollWidth") == 720
    assert len(opened.send("Page.printToPDF", printBackground=True)["data"]) > 50_000
    opened.send("Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="module")
def network(built: bytes) -> Network:
    """The network of the page in NumPy."""
    model = model_of(built)
    config = ModelConfig(**{**model["config"], "labels": tuple(model["config"]["labels"])})
    weights = {name: array.astype(float) for name, array in unpack(model["arrays"]).items()}
    return Network(config, weights)


def assert_hears(found: dict[str, Any], network: Network) -> None:
    """States and probabilities are those of the network from the first step that is heard."""
    config = network.config
    wave = np.array(found["samples"])[found["first"] * config.step_samples :]
    logits, _ = network.step(wave[None])
    features, _ = network.frames(wave[None], network.initial_state(1).audio)
    hidden = network.initial_state(1).hidden
    assert len(found["hidden"]) == logits.shape[1]
    for t in (0, logits.shape[1] // 2, logits.shape[1] - 1):
        frames = features[:, : (t + 1) * config.stack]
        _, now = network.recur(network.features(frames), hidden)
        np.testing.assert_allclose(found["hidden"][t], now[:, 0], atol=1e-5)
        heard = logits[:, max(0, t + 1 - config.window_steps) : t + 1]
        expected = softmax(pool(heard))[0]
        np.testing.assert_allclose(found["probabilities"][t], expected, atol=1e-5)


@needs_chromium
def test_states_and_answers_are_those_of_the_network_wherever_the_present_and_the_cover_are(
    opened: Page, network: Network
) -> None:
    move(opened, "recording", "0")
    assert_hears(data(opened, "remembers"), network)
    move(opened, "present", 20)
    move(opened, "cover", 14)
    found = data(opened, "remembers")
    assert (found["present"], found["first"]) == (20, 14)
    assert_hears(found, network)
    best = network.config.labels[int(np.argmax(found["probabilities"][20 - 14 - 1]))]
    shown = {"_silence_": "silence", "_unknown_": "another word"}.get(best, best)
    assert found["answer"] == f"Answer so far: {shown}"


@needs_chromium
def test_every_word_is_heard_and_is_lost_when_its_beginning_is_covered(
    opened: Page, network: Network
) -> None:
    """The whole word is answered rightly; under some cover that leaves its end, it is not."""
    words = opened.run("[...document.getElementById('recording').options].map((o) => o.text)")
    assert len(words) >= 3
    for place, word in enumerate(words):
        move(opened, "recording", str(place))
        found = data(opened, "remembers")
        assert found["answer"] == f"Answer so far: {word}"
        wave = np.array(found["samples"])
        start, end = word_spans(wave[None])[0] // network.config.step_samples
        answers = []
        for cover in range(start, end):
            logits = network.step(wave[None, cover * network.config.step_samples :])[0][0]
            answers.append(network.config.labels[pool(logits).argmax()])
        assert set(answers) - {word}, word


@needs_chromium
def test_present_is_dragged_in_the_picture(opened: Page) -> None:
    opened.run("document.getElementById('strips').scrollIntoView({ behavior: 'instant' })")
    box = opened.run(
        "(({ left, top, width }) => [left, top, width])"
        "(document.getElementById('strips').getBoundingClientRect())"
    )
    at = {"x": box[0] + box[2] / 2, "y": box[1] + 60, "button": "left", "clickCount": 1}
    opened.send("Input.dispatchMouseEvent", type="mousePressed", buttons=1, **at)
    opened.send("Input.dispatchMouseEvent", type="mouseReleased", **at)
    assert data(opened, "remembers")["present"] in (16, 17)


@needs_chromium
def test_word_is_played_and_the_present_goes_with_it(opened: Page) -> None:
    move(opened, "recording", "0")
    opened.run("document.getElementById('play').click()")
    opened.wait_for("document.getElementById('present').value < 20")
    opened.wait_for("document.getElementById('play').textContent === 'Play'")
    assert data(opened, "remembers")["present"] == 33


@needs_chromium
def test_microphone_is_drawn_as_it_comes(opened: Page, network: Network) -> None:
    opened.run("document.getElementById('microphone').click()")
    opened.wait_for("document.getElementById('said').textContent.startsWith('This is your')")
    found = data(opened, "remembers")
    assert len(found["samples"]) > 40_000 and np.abs(found["samples"]).max() > 0.01
    assert_hears(found, network)
    move(opened, "recording", "0")
    assert len(data(opened, "remembers")["samples"]) == 16_000


@needs_chromium
def test_a_microphone_that_cannot_be_had_is_explained(opened: Page) -> None:
    opened.run(
        "navigator.mediaDevices.getUserMedia = () =>"
        "Promise.reject(new DOMException('', 'NotAllowedError'))"
    )
    opened.run("document.getElementById('microphone').click()")
    opened.wait_for("document.getElementById('said').textContent.includes('cannot be used')")


@needs_chromium
def test_three_units_are_those_of_torch_and_a_weight_changes_every_step(opened: Page) -> None:
    def expected(found: dict[str, Any]) -> np.ndarray:
        net = {name: found[name] for name in ("W_ih", "W_hh", "b")}
        return np.array([h.tolist() for h in torch_states(net, [[x] for x in found["x"]])])

    opened.run("document.getElementById('equation-again').click()")
    before = data(opened, "equation")
    np.testing.assert_allclose(before["states"], expected(before), atol=APART)
    for control, steps in (("W_ih-1-1", 5), ("b-2-1", 5), ("W_hh-3-1", 4), ("x-1-4", 2)):
        move(opened, control, "0.7")
        after = data(opened, "equation")
        np.testing.assert_allclose(after["states"], expected(after), atol=APART)
        changed = (np.array(before["states"]) != after["states"]).any(1)
        assert changed.sum() == steps
        assert text(opened, "changed").endswith(f"h changed at {steps} of 5 steps.")
        before = after
    cells = opened.run(
        "[...document.querySelectorAll('#products td:last-child')].map((c) => c.textContent)"
    )
    shown = [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells]
    np.testing.assert_allclose(np.reshape(shown, (5, 3)), after["states"], atol=0.0051)
    opened.run("document.getElementById('equation-again').click()")
    assert data(opened, "equation")["W_hh"][2][0] == -0.2


@needs_chromium
def test_lesson_goes_forward_back_and_updates_with_the_gradients_of_torch(opened: Page) -> None:
    move(opened, "length", "5")
    before = data(opened, "training")
    assert len(before["batch"][0]["inputs"]) == 5
    phases = []
    while data(opened, "training")["updates"] == 0:
        phases.append(data(opened, "training")["moment"]["phase"])
        opened.run("document.getElementById('next').click()")
    assert phases == ["forward"] * 5 + ["error"] + ["backward"] * 5
    after = data(opened, "training")
    lessons = [torch_lesson(before["net"], row["inputs"], row["target"]) for row in before["batch"]]
    assert after["losses"][0] == pytest.approx(np.mean([one["loss"] for one in lessons]))
    np.testing.assert_allclose(before["lesson"]["dh"], lessons[0]["dh"], atol=APART)
    mean = {n: np.mean([one["gradient"][n] for one in lessons], 0) for n in before["net"]}
    length = np.sqrt(sum((part**2).sum() for part in mean.values()))
    for name, gradient in mean.items():
        moved = np.array(before["net"][name]) - 0.3 * gradient / max(1, length)
        np.testing.assert_allclose(after["net"][name], moved, atol=APART, err_msg=name)


@needs_chromium
def test_small_training_converges_and_longer_rows_are_learned_later(opened: Page) -> None:
    begun = {}
    for length in ("8", "30"):
        move(opened, "length", length)
        if length == "8":
            opened.run("document.getElementById('run').click()")
        for updates in range(50, 301, 50):
            if length == "30":
                opened.run("for (let i = 0; i < 50; i++) document.getElementById('update').click()")
            opened.wait_for(f"textbook.figures.training.data().updates >= {updates}")
        found = data(opened, "training")
        assert found["updates"] == 300 and not found["running"]
        begun[length] = next(n for n, loss in enumerate(found["losses"]) if loss < 0.1)
        if length == "8":
            assert np.mean(found["losses"][-20:]) < 0.01 and found["right"] == 1
    assert begun["30"] > 2 * begun["8"]


@needs_chromium
@pytest.mark.parametrize(
    ("largest", "squash", "orthogonal", "clip", "fate"),
    [
        ("0.3", "tanh", False, False, "vanishes"),
        ("3", "identity", False, False, "explodes"),
        ("3", "identity", False, True, "explodes"),
        ("1", "identity", True, False, "survives"),
        ("1", "relu", True, False, "vanishes"),
    ],
)
def test_gradient_is_that_of_torch_and_dies_blows_up_or_survives(
    opened: Page, largest: str, squash: str, orthogonal: bool, clip: bool, fate: str
) -> None:
    for control, value in (("largest", largest), ("squash", squash), ("orthogonal", orthogonal),
                           ("clip", clip)):  # fmt: skip
        move(opened, control, value)
    found = data(opened, "gradients")
    singular = np.linalg.svd(found["W_hh"], compute_uv=False)
    np.testing.assert_allclose(found["singular"], singular, atol=APART)
    assert singular[0] == pytest.approx(float(largest))
    assert np.allclose(singular, singular[0]) == orthogonal
    weights = {
        name: torch.tensor(found[name], dtype=torch.float64, requires_grad=True)
        for name in ("W_ih", "W_hh")
    }
    weights["b"] = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    states = torch_states(weights, found["inputs"], squash)
    (states[-1] @ torch.tensor(found["wanted"], dtype=torch.float64)).backward()
    length = torch.cat([weight.grad.flatten() for weight in weights.values()]).norm().item()
    factor = min(1, 1 / length) if clip else 1
    assert found["length"] == pytest.approx(length)
    assert found["factor"] == pytest.approx(factor)
    expected = [factor * h.grad.norm().item() for h in states]
    np.testing.assert_allclose(found["norms"], expected, rtol=1e-9)
    assert text(opened, "fate").endswith(f"It {fate}.")


@needs_chromium
def test_measured_figures_show_the_measurement_that_is_chosen(
    opened: Page, measured: dict[str, Any]
) -> None:
    trained = measured["trained"]
    last = len(trained["plain"]["history"]) - 1
    for place in (0, last):
        move(opened, "moment", place)
        for name, shown in data(opened, "flows").items():
            assert shown == trained[name]["history"][place]
    seconds = trained["plain"]["distance"]["seconds"]
    for place in (0, len(seconds) - 1):
        move(opened, "seconds", place)
        assert data(opened, "distance") == {
            "seconds": seconds[place],
            "shares": [
                trained["plain"]["distance"]["last"][place],
                trained["recipe"]["distance"]["window"][place],
                measured["shipped"]["distance"]["window"][place],
                measured["shipped"]["distance"]["last"][place],
            ],
        }


@needs_chromium
def test_share_of_a_part_is_that_of_the_ablation(opened: Page) -> None:
    rows = [json.loads(line) for line in (RECIPES / "ablation.jsonl").read_text().splitlines()]
    accuracy = {row["row"]: row["accuracy"] for row in rows if row["seed"] == 1}
    for place in range(5):
        move(opened, "part", str(place))
        found = data(opened, "shares")
        lost = accuracy["the recipe"] - accuracy[found["chosen"]]
        assert found["lost"] == pytest.approx(lost)
        assert f"{abs(100 * lost):.1f} points" in text(opened, "part-told")


@needs_chromium
def test_times_of_steps_and_products_are_those_measured(
    opened: Page, measured: dict[str, Any]
) -> None:
    cases = measured["speed"]["cpu"]["cases"]
    for batch, steps, place in ((0, 0, 0), (4, 2, -1)):
        move(opened, "batch", batch)
        move(opened, "steps", steps)
        found = data(opened, "speed")
        ratio = found.pop("ratio")
        assert found == cases[place]
        assert ratio == pytest.approx(found["steps_seconds"] / found["product_seconds"])
    if measured["speed"]["cuda"] is None:
        assert text(opened, "gpu") == "On a GPU: not measured yet."
    opened.run("document.getElementById('here').click()")
    assert "times as fast as you speak" in text(opened, "here-told")


@needs_chromium
def test_best_networks_are_those_up_to_the_size(opened: Page, textbook: ModuleType) -> None:
    systems = textbook.systems()
    sizes = [one["parameters"] for one in systems]
    for place in (4, len(systems) - 1):
        move(opened, "size", place)
        found = data(opened, "worth")
        assert found["limit"] == sizes[place]
        best: dict[str, dict[str, Any]] = {}
        for one in systems:
            if one["parameters"] <= sizes[place]:
                other = best.get(one["kind"])
                if other is None or one["accuracy"] > other["accuracy"]:
                    best[one["kind"]] = one
        assert set(found["best"]) == {one["system"] for one in best.values()}
    move(opened, "system", "0")
    assert text(opened, "chosen").startswith(f"{systems[0]['system']}: {sizes[0]:,} parameters")
