"""What `speechrnn.plots` promises, held against the data of the pictures: the report's counts, and the log's last word."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from speechrnn import plots
from speechrnn.audio import read_wave
from speechrnn.data import V2_WORDS
from speechrnn.evaluation import Report, wilson_interval
from speechrnn.events import Score, StreamReport
from speechrnn.model import Model, ModelConfig

COUNTS = np.array([[90, 10, 0], [0, 1, 3], [0, 0, 0]])
HEADER = "epoch,learning_rate,step,training_accuracy,training_loss,validation_accuracy,validation_loss\n"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def report_of(counts: np.ndarray, labels: tuple[str, ...] = ("yes", "no", "up")) -> Report:
    truth, answers = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
    names = tuple(map(str, range(len(truth))))
    return Report(labels, names, truth, answers, np.full(len(truth), 0.5), "own", "testing")


def many_words() -> Report:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 10, (35, 35)) + np.diag(generator.integers(150, 4_000, 35))
    return report_of(counts, V2_WORDS)


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.get_lines()}


def boxes(figure: Figure, texts: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.array([text.get_window_extent().extents for text in texts])


def write_log(run: Path, version: int, *rows: str) -> None:
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(HEADER + "".join(row + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of four epochs that was broken off in its third, after validation, and resumed there."""
    write_log(
        tmp_path,
        2,
        "0,,9,,,0.5,2.0",
        "0,,9,0.25,3.0,,",
        ",0.01,10,,,,",
        "1,,19,,,0.75,1.0",
        "1,,19,0.5,2.5,,",
        "2,,29,,,0.99,0.1",
    )
    write_log(tmp_path, 10, "2,,29,,,0.875,0.75", "2,,29,0.625,1.5,,", ",0.001,30,,,,", "3,,39,,,0.875,0.5", "3,,39,0.75,1.25,,")
    return tmp_path


# Confusion


@pytest.mark.parametrize("report", [report_of(COUNTS), many_words()], ids=["3", "35"])
def test_confusion_shows_the_counts_and_their_shares(report: Report) -> None:
    figure = plots.confusion(report, "a title")
    axes = figure.axes[0]
    counts = report.confusion
    shown = np.zeros_like(counts)
    for text in axes.texts:
        column, row = text.get_position()
        shown[row, column] = int(text.get_text())
    assert shown.tolist() == counts.tolist()
    assert len(axes.texts) == np.count_nonzero(counts), "zeros are left blank"
    share = np.asarray(axes.images[0].get_array())
    clips = counts.sum(1)
    np.testing.assert_allclose(share.sum(1), clips > 0)
    np.testing.assert_allclose(share * clips[:, None], counts)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(report.labels)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(report.labels)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("heard as", "spoken", "a title")
    assert axes.yaxis_inverted(), "the first label is on top"


def test_confusion_colours_mean_the_same_in_every_picture() -> None:
    image = plots.confusion(report_of(np.array([[5, 1], [1, 5]]), ("yes", "no")), "").axes[0].images[0]
    assert image.get_clim() == (0, 1)
    assert image.norm(0.0) == 0 and image.norm(1.0) == 1 and 0.05 < image.norm(0.01) < 0.2


def luminance(colour: np.ndarray) -> np.ndarray:
    """Source: WCAG 2.1, relative luminance of sRGB."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_confusion_figures_have_the_contrast_that_wcag_asks_of_text() -> None:
    counts = np.diag(np.arange(101)) + np.diag(100 - np.arange(101))[::-1]  # every share from 0 to 1
    axes = plots.confusion(report_of(counts, tuple(map(str, range(101)))), "").axes[0]
    image = axes.images[0]
    cells = luminance(image.cmap(image.norm(image.get_array()))[..., :3])
    for text in axes.texts:
        column, row = text.get_position()
        dark, light = sorted((luminance(np.array(to_rgb(text.get_color()))), cells[row, column]))
        assert (light + 0.05) / (dark + 0.05) > 4.5, text.get_text()


@pytest.mark.parametrize("report", [report_of(COUNTS), many_words()], ids=["3", "35"])
def test_confusion_labels_and_figures_do_not_overlap(report: Report) -> None:
    figure = plots.confusion(report, "")
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / len(report.labels)
    figures = boxes(figure, axes.texts)
    assert (figures[:, 2] - figures[:, 0]).max() < cell and (figures[:, 3] - figures[:, 1]).max() < cell
    down = boxes(figure, axes.get_yticklabels())
    assert (down[:-1, 1] >= down[1:, 3]).all()


# Reliability


def test_reliability_shows_each_bin_with_its_interval_and_count() -> None:
    scores = np.array([*[0.98] * 90, *[0.6] * 10, *[0.35] * 4])
    report = replace(report_of(COUNTS), scores=scores)
    over, under = plots.reliability(report, "a title").axes
    dots = over.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(dots, [(0.35, 0.25), (0.6, 0.0), (0.98, 1.0)])
    (bars,) = over.containers[0].lines[2]
    intervals = [[low, high] for (_, low), (_, high) in bars.get_segments()]
    np.testing.assert_allclose(intervals, [wilson_interval(*pair) for pair in ((1, 4), (0, 10), (90, 90))])
    assert lines(over)["as sure as right"] == [(0, 0), (1, 1)]
    heights, edges, _ = under.patches[0].get_data()
    assert dict(zip(np.flatnonzero(heights).tolist(), heights[heights > 0].tolist(), strict=True)) == {5: 4, 8: 10, 14: 90}
    np.testing.assert_allclose(edges, np.arange(16) / 15)
    assert [text.get_text() for text in under.texts] == ["4", "10", "90"]
    expected = (4 * abs(0.35 - 0.25) + 10 * 0.6 + 90 * 0.02) / 104
    assert over.get_title() == f"a title\nexpected calibration error {expected:.1%}"


@pytest.mark.parametrize(
    "report", [report_of(COUNTS), replace(many_words(), scores=np.ones(many_words().clips))], ids=["3", "35"]
)
def test_reliability_counts_do_not_overlap_and_stay_inside(report: Report) -> None:
    scores = np.linspace(0.01, 1, report.clips) ** 0.2
    figure = plots.reliability(replace(report, scores=scores), "a title")
    under = figure.axes[1]
    figures = boxes(figure, under.texts)
    assert (figures[:-1, 2] <= figures[1:, 0]).all()
    assert figures[:, 3].max() <= under.get_window_extent().y1


# Curves


def test_metrics_are_the_later_log_where_a_run_was_resumed(run: Path) -> None:
    assert plots.read_metrics(run) == {
        "validation_accuracy": {0: 0.5, 1: 0.75, 2: 0.875, 3: 0.875},
        "validation_loss": {0: 2.0, 1: 1.0, 2: 0.75, 3: 0.5},
        "training_accuracy": {0: 0.25, 1: 0.5, 2: 0.625, 3: 0.75},
        "training_loss": {0: 3.0, 1: 2.5, 2: 1.5, 3: 1.25},
    }


def test_curves_show_the_metrics_from_epoch_1_on(run: Path) -> None:
    figure = plots.curves(run, "a run")
    loss, accuracy = figure.axes
    assert lines(loss) == {
        "training, augmented": [(1, 3.0), (2, 2.5), (3, 1.5), (4, 1.25)],
        "validation": [(1, 2.0), (2, 1.0), (3, 0.75), (4, 0.5)],
    }
    of = lines(accuracy)
    assert of["training, augmented"] == [(1, 0.25), (2, 0.5), (3, 0.625), (4, 0.75)]
    assert of["validation"] == [(1, 0.5), (2, 0.75), (3, 0.875), (4, 0.875)]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert figure.get_suptitle() == "a run"


def test_first_of_the_best_epochs_is_marked(run: Path) -> None:
    accuracy = plots.curves(run, "").axes[1]
    marks = [line.get_xydata().tolist() for line in accuracy.get_lines() if len(line.get_xydata()) == 1]
    assert marks == [[[3.0, 0.875]]]
    assert accuracy.get_title() == "best on validation: 87.5%, epoch 3"


def test_run_without_logs_gives_empty_curves(tmp_path: Path) -> None:
    assert plots.read_metrics(tmp_path) == {}
    plots.save(plots.curves(tmp_path, "nothing yet"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


# Gradients


def history(layers: int, steps: int, units: int, moments: tuple[int, ...] = (0, 200, 1_400)) -> list[dict[str, Any]]:
    """As `GradientFlow` keeps it, of random numbers."""
    generator = np.random.default_rng(units)
    return [
        {
            "step": moment,
            "gradient": (10 ** generator.uniform(-6, 0, (layers, steps))).tolist(),
            "singular_values": np.sort(generator.uniform(0.1, 3, (layers, units)))[:, ::-1].tolist(),
        }
        for moment in moments
    ]


def test_gradients_show_first_and_last_measurement_of_each_layer() -> None:
    measured = history(layers=3, steps=33, units=16)
    over_time, spectrum = plots.gradients([("a run", measured, 0.03)]).axes
    drawn = [line for line in over_time.get_lines() if len(line.get_xydata())]
    assert len(drawn) == len(spectrum.get_lines()) - 1 == 6, "two lines a layer, and the line at 1"
    for number, (line, values) in enumerate(zip(drawn, spectrum.get_lines(), strict=False)):
        layer, late = divmod(number, 2)
        moment = measured[-1] if late else measured[0]
        np.testing.assert_allclose(line.get_xdata(), 0.03 * np.arange(1, 34))
        np.testing.assert_allclose(line.get_ydata(), moment["gradient"][layer])
        np.testing.assert_allclose(values.get_xdata(), np.arange(1, 17))
        np.testing.assert_allclose(values.get_ydata(), moment["singular_values"][layer])
        assert line.get_linestyle() == values.get_linestyle() == ("-" if late else ":")
        assert to_rgb(line.get_color()) == to_rgb(values.get_color())
    assert len({to_rgb(line.get_color()) for line in drawn}) == 3, "a colour a layer"
    assert (over_time.get_yscale(), spectrum.get_yscale()) == ("log", "log")
    assert set(spectrum.get_lines()[-1].get_ydata()) == {1}, "where W_hh neither shrinks nor stretches"


def test_gradients_say_which_layers_and_which_steps() -> None:
    over_time = plots.gradients([("a run", history(2, 33, 8), 0.03)]).axes[0]
    legend = over_time.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["layer 1", "layer 2", "step 0", "step 1,400"]
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "-", ":", "-"]
    assert over_time.get_title() == "a run"
    assert "dLoss / dh[t]" in over_time.get_ylabel()


def test_gradients_of_several_runs_stand_side_by_side_on_one_scale() -> None:
    runs = [("tanh", history(1, 33, 8), 0.03), ("relu", history(4, 50, 12, (0,)), 0.02)]
    figure = plots.gradients(runs)
    (*upper,), (*lower,) = np.reshape(figure.axes, (2, 2))
    assert [axes.get_title() for axes in upper] == ["tanh", "relu"]
    for row in (upper, lower):
        assert row[0].get_ylim() == row[1].get_ylim()
    assert [sum(len(line.get_xydata()) > 0 for line in axes.get_lines()) for axes in upper] == [2, 8]


def test_systems_show_the_published_ones_and_ours_with_their_intervals() -> None:
    published = [
        {
            "system": "LSTM",
            "kind": "gated recurrence",
            "parameters": "53000",
            "accuracy": "92.3",
            "test": "V1-12",
            "side": "left",
        },
        {
            "system": "CRNN",
            "kind": "gated recurrence",
            "parameters": "467000",
            "accuracy": "97.4",
            "test": "V2-12",
            "side": "below",
        },
    ]
    ours = [
        {"system": "tiny", "parameters": 11_000, "accuracy": 94.0, "interval": (93.0, 95.0)},
        {"system": "base", "parameters": 240_000, "accuracy": 97.0, "interval": (96.5, 97.4)},
    ]
    axes = plots.systems(published, ours, "a title").axes[0]
    line = axes.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [(11_000, 0.94), (240_000, 0.97)])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose([[low, high] for (_, low), (_, high) in bars.get_segments()], [(0.93, 0.95), (0.965, 0.974)])
    names = [text.get_text() for text in axes.texts]
    assert names == ["LSTM", "CRNN", "tiny", "base"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "gated recurrence, published on V1-12" in labels and "vanilla recurrence, ours" in labels
    assert axes.get_xscale() == "log"


# One file


def test_way_of_one_wav_shows_the_states_and_the_answer_of_the_model(model: Model, recordings: Path) -> None:
    figure = plots.way_of_one_wav(model, recordings / "a.wav")
    wave, features, hidden, answer = figure.axes
    heard = model.classify(recordings / "a.wav")
    assert wave.get_title() == f"a.wav: {heard.label} {heard.score:.0%}"
    samples = torch.from_numpy(read_wave(recordings / "a.wav"))[None]
    with torch.inference_mode():
        _, state = model(samples)
        mfcc = model.mfcc(samples)[0][0]
    shown = np.asarray(hidden.images[0].get_array())
    assert shown.shape == (model.config.hidden_size, model.config.window_steps)
    np.testing.assert_allclose(shown[:, -1], state.hidden[-1, 0], atol=1e-5)
    np.testing.assert_allclose(np.asarray(features.collections[0].get_array()), mfcc.T, atol=1e-4)
    assert answer.get_xlim() == (0, 1)
    assert not model.blocks[-1].recurrence._forward_hooks, "the model is left as it was"


# Files


def test_pictures_are_written_as_png_and_closed(run: Path, tmp_path: Path) -> None:
    figures = {"new/folder/a.png": plots.confusion(report_of(COUNTS), "t"), "b.png": plots.curves(run, "t")}
    figures["c.png"] = plots.gradients([("t", history(2, 33, 8), 0.03)])
    for name, figure in figures.items():
        plots.save(figure, tmp_path / name)
        height, width, _ = plt.imread(tmp_path / name).shape
        assert height > 300 and width > 300
    assert plt.get_fignums() == []
    assert list(tmp_path.rglob("*.part")) == []


def test_failed_save_leaves_the_old_picture_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"the old one")

    def breaks(beside: Path, data: bytes) -> None:
        assert beside != path and path.read_bytes() == b"the old one"
        with beside.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", breaks)
    with pytest.raises(OSError, match="disk full") as caught:
        plots.save(plots.confusion(report_of(COUNTS), ""), path)
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"the old one"
    assert plt.get_fignums() == []


# Transcript


HEARD = [(0.5, 0.9, "no"), (2.0, 2.4, "yes"), (2.5, 2.8, "no")]
TRUTH = [(0.5, 1.0, "no"), (2.0, 2.5, "lights")]


def heard_of(thresholds: dict[str, float], truth: list[tuple[float, float, str]] | None = None) -> tuple[Figure, np.ndarray]:
    """Three seconds of which `yes` and `no` were probable, `up` never; and their probabilities."""
    model = Model(ModelConfig(labels=("_unknown_", "yes", "no", "up"), hidden_size=8, layers=1)).eval()
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 48_000).astype(np.float32)
    probabilities = np.random.default_rng(0).uniform(0, 1, (100, 3)) * (0.95, 0.9, 0.2)
    return plots.transcript(model, wave, probabilities, thresholds, HEARD, truth, "a talk"), probabilities


def bars(axes: Any) -> list[tuple[float, float, str, str]]:
    """Start and end of each bar, the word of its row, and its colour."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = []
    for collection in axes.collections:
        for path in collection.get_paths():
            (left, low), (right, high) = path.get_extents().get_points()
            colour = "heard" if to_rgb(collection.get_facecolor()[0]) == to_rgb(plots.ORANGE) else "said"
            found.append((round(float(left), 3), round(float(right), 3), names[round((low + high) / 2)], colour))
    return sorted(found)


def test_transcript_shows_probabilities_threshold_and_words() -> None:
    figure, probabilities = heard_of({"yes": 0.6, "no": 0.6, "up": 0.6})
    wave, mfcc, over_time, words = figure.axes
    assert wave.get_title() == "a talk" and words.get_xlim() == (0, 3)
    shown = [line for line in over_time.get_lines() if len(line.get_xdata()) > 2]
    for line, column in zip(shown, probabilities.T, strict=True):
        np.testing.assert_allclose(line.get_xdata(), 0.03 * np.arange(1, 101))
        np.testing.assert_array_equal(line.get_ydata(), column)
    legend = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert legend == ["yes", "no", "threshold 0.60"], "up was never probable"
    assert {tuple(line.get_ydata()) for line in over_time.get_lines() if len(line.get_xdata()) == 2} == {(0.6, 0.6)}
    assert len({(line.get_color(), line.get_linestyle()) for line in shown}) == 3
    assert bars(words) == [(start, end, word, "heard") for start, end, word in HEARD]
    assert [label.get_text() for label in words.get_yticklabels()] == ["yes", "no"]
    (image,) = mfcc.collections
    assert image.get_array().shape == (40, 300)


def test_transcript_shows_each_threshold_and_what_was_said() -> None:
    figure, _ = heard_of({"yes": 0.9, "no": 0.55, "up": 0.15}, TRUTH)
    over_time, words = figure.axes[2:]
    texts = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert texts == ["yes 0.90", "no 0.55", "up 0.15"], "up passed its threshold"
    curves = {line.get_label(): line.get_color() for line in over_time.get_lines() if len(line.get_xdata()) > 2}
    levels = {line.get_ydata()[0]: line.get_color() for line in over_time.get_lines() if len(line.get_xdata()) == 2}
    assert levels == {0.9: curves[texts[0]], 0.55: curves[texts[1]], 0.15: curves[texts[2]]}
    assert bars(words) == sorted([(*word, "heard") for word in HEARD] + [(*word, "said") for word in TRUTH])
    assert [text.get_text() for text in words.get_legend().get_texts()] == ["heard", "said"]
    assert [label.get_text() for label in words.get_yticklabels()] == ["yes", "no", "lights"]


def test_transcript_averages_the_frames_of_a_long_recording() -> None:
    model = Model(ModelConfig(labels=("yes", "no"), hidden_size=8, layers=1)).eval()
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 121 * 16_000).astype(np.float32)
    figure = plots.transcript(model, wave, np.zeros((4_000, 2)), {"yes": 0.6, "no": 0.6}, [], None, "")
    with torch.inference_mode():
        features = model.mfcc(torch.from_numpy(wave[None]))[0][0].numpy()
    shown = np.asarray(figure.axes[1].collections[0].get_array())
    together = -(-len(features) // 4_000)
    np.testing.assert_allclose(shown[:, 5], features[5 * together : 6 * together].mean(0), atol=1e-4)
    assert shown.shape[1] <= 4_000


@pytest.mark.parametrize("samples", [1, 500])
def test_transcript_of_hardly_any_sound_is_drawn(samples: int, tmp_path: Path) -> None:
    model = Model(ModelConfig(labels=("yes", "no"), hidden_size=8, layers=1)).eval()
    wave = np.zeros(samples, dtype=np.float32)
    plots.save(
        plots.transcript(model, wave, np.zeros((0, 2)), {"yes": 0.6, "no": 0.6}, [], None, "a$^b$.wav"), tmp_path / "out.png"
    )
    assert (tmp_path / "out.png").is_file()


def test_detection_errors_show_the_fewest_misses_for_the_false_alarms_and_where_the_thresholds_are() -> None:
    def scored(hits: int, alarms: int) -> dict[str, Score]:
        return dict.fromkeys(("all", "yes"), Score(10, hits, 0, alarms, 2.0, ()))

    curve = ((0.2, scored(9, 8)), (0.5, scored(10, 4)), (0.7, scored(8, 4)), (0.9, scored(5, 0)))
    found = StreamReport({"yes": 0.7}, scored(8, 4), curve, 2.0)
    axes = plots.detection_errors(found, "t").axes[0]
    drawn = lines(axes)
    assert drawn["all"] == drawn["yes"] == [(0.25, 0.5), (2, 0), (2, 0), (4, 0)]
    assert drawn["thresholds used"] == [(2, pytest.approx(0.2))]


def test_noise_shows_accuracy_against_the_ratio_for_each_noise_and_as_recorded() -> None:
    rates = {"as recorded": 0.9, "a_hiss, 20 dB": 0.8, "a_hiss, -5 dB": 0.3, "30 dB quieter": 0.7, "a_hiss alone, -20 dB": 1.0}
    drawn = lines(plots.noise(rates, "t").axes[0])
    assert drawn["a hiss"] == [(-5, 0.3), (20, 0.8)]
    assert set(drawn) == {"a hiss", "as recorded: 90.0%"}
