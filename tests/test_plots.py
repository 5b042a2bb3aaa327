"""Pictures, held against the data that they show, and the files that they are written to."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from evaluation_examples import clip_result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from speechrnn.config import ModelConfig
from speechrnn.corpus import V2_WORDS
from speechrnn.evaluation import plots
from speechrnn.evaluation.clips import ClipResult
from speechrnn.evaluation.spotting import Score, SpottingResult
from speechrnn.evaluation.statistics import wilson_interval

COUNTS = np.array([[90, 10, 0], [0, 1, 3], [0, 0, 0]])
THREE = clip_result(COUNTS, ("yes", "no", "up"))
LABELS = ("_unknown_", "yes", "no", "up")
METRICS = {
    "validation_accuracy": {0: 0.5, 1: 0.75, 2: 0.875, 3: 0.875},
    "validation_loss": {0: 2.0, 1: 1.0, 2: 0.75, 3: 0.5},
    "training_accuracy": {0: 0.25, 1: 0.5, 2: 0.625, 3: 0.75},
    "training_loss": {0: 3.0, 1: 2.5, 2: 1.5, 3: 1.25},
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def many_words() -> ClipResult:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 10, (35, 35)) + np.diag(generator.integers(150, 4_000, 35))
    return clip_result(counts, V2_WORDS)


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
        for line in axes.get_lines()
    }


def boxes(figure: Figure, texts: Any) -> np.ndarray:
    FigureCanvasAgg(figure).draw()  # else each text would be measured on a canvas of its own
    return np.array([text.get_window_extent().extents for text in texts])


# Confusion


@pytest.mark.parametrize("result", [THREE, many_words()], ids=["3", "35"])
def test_confusion_shows_the_counts_and_their_shares(result: ClipResult):
    figure = plots.confusion(result, "a title")
    axes = figure.axes[0]
    counts = result.confusion
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
    assert [label.get_text() for label in axes.get_xticklabels()] == list(result.labels)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(result.labels)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "answered",
        "spoken",
        "a title",
    )
    assert axes.yaxis_inverted(), "the first label is on top"


def test_confusion_colours_mean_the_same_in_every_picture():
    image = (
        plots.confusion(clip_result(np.array([[5, 1], [1, 5]]), ("yes", "no")), "")
        .axes[0]
        .images[0]
    )
    assert image.get_clim() == (0, 1)
    assert image.norm(0.0) == 0 and image.norm(1.0) == 1 and 0.05 < image.norm(0.01) < 0.2


def luminance(colour: np.ndarray) -> np.ndarray:
    """Source: WCAG 2.1, relative luminance of sRGB."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_confusion_figures_have_the_contrast_that_wcag_asks_of_text():
    counts = (
        np.diag(np.arange(101)) + np.diag(100 - np.arange(101))[::-1]
    )  # every share from 0 to 1
    axes = plots.confusion(clip_result(counts, tuple(map(str, range(101)))), "").axes[0]
    image = axes.images[0]
    cells = luminance(image.cmap(image.norm(image.get_array()))[..., :3])
    for text in axes.texts:
        column, row = text.get_position()
        dark, light = sorted((luminance(np.array(to_rgb(text.get_color()))), cells[row, column]))
        assert (light + 0.05) / (dark + 0.05) > 4.5, text.get_text()


@pytest.mark.parametrize("result", [THREE, many_words()], ids=["3", "35"])
def test_confusion_labels_and_figures_do_not_overlap(result: ClipResult):
    figure = plots.confusion(result, "")
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / len(result.labels)
    figures = boxes(figure, axes.texts)
    assert (figures[:, 2] - figures[:, 0]).max() < cell and (
        figures[:, 3] - figures[:, 1]
    ).max() < cell
    down = boxes(figure, axes.get_yticklabels())
    assert (down[:-1, 1] >= down[1:, 3]).all()


# Reliability


def test_reliability_shows_each_bin_with_its_interval_and_count():
    scores = np.array([*[0.98] * 90, *[0.6] * 10, *[0.35] * 4])
    result = replace(THREE, scores=scores)
    over, under = plots.reliability(result, "a title").axes
    dots = over.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(dots, [(0.35, 0.25), (0.6, 0.0), (0.98, 1.0)])
    (bars,) = over.containers[0].lines[2]
    intervals = [[low, high] for (_, low), (_, high) in bars.get_segments()]
    np.testing.assert_allclose(
        intervals, [wilson_interval(*pair) for pair in ((1, 4), (0, 10), (90, 90))]
    )
    assert lines(over)["as sure as right"] == [(0, 0), (1, 1)]
    heights, edges, _ = under.patches[0].get_data()
    assert dict(
        zip(np.flatnonzero(heights).tolist(), heights[heights > 0].tolist(), strict=True)
    ) == {5: 4, 8: 10, 14: 90}
    np.testing.assert_allclose(edges, np.arange(16) / 15)
    assert [text.get_text() for text in under.texts] == ["4", "10", "90"]
    expected = (4 * abs(0.35 - 0.25) + 10 * 0.6 + 90 * 0.02) / 104
    assert over.get_title() == f"a title\nexpected calibration error {expected:.1%}"


@pytest.mark.parametrize(
    "result", [THREE, replace(many_words(), scores=np.ones(many_words().clips))], ids=["3", "35"]
)
def test_reliability_counts_do_not_overlap_and_stay_inside(result: ClipResult):
    scores = np.linspace(0.01, 1, result.clips) ** 0.2
    figure = plots.reliability(replace(result, scores=scores), "a title")
    under = figure.axes[1]
    figures = boxes(figure, under.texts)
    assert (figures[:-1, 2] <= figures[1:, 0]).all()
    assert figures[:, 3].max() <= under.get_window_extent().y1


# Curves


def test_curves_show_the_metrics_from_epoch_1_on():
    figure = plots.curves(METRICS, "a run")
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


def test_first_of_the_best_epochs_is_marked():
    accuracy = plots.curves(METRICS, "").axes[1]
    marks = [
        line.get_xydata().tolist() for line in accuracy.get_lines() if len(line.get_xydata()) == 1
    ]
    assert marks == [[[3.0, 0.875]]]
    assert accuracy.get_title() == "best on validation: 87.5%, epoch 3"


def test_run_without_metrics_gives_empty_curves(tmp_path: Path):
    plots.save(plots.curves({}, "nothing yet"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


# Gradients


def history(
    layers: int, steps: int, units: int, moments: tuple[int, ...] = (0, 200, 1_400)
) -> list[dict[str, Any]]:
    """As `GradientFlow` keeps it, of random numbers."""
    generator = np.random.default_rng(units)
    return [
        {
            "step": moment,
            "gradient": (10 ** generator.uniform(-6, 0, (layers, steps))).tolist(),
            "singular_values": np.sort(generator.uniform(0.1, 3, (layers, units)))[
                :, ::-1
            ].tolist(),
        }
        for moment in moments
    ]


def test_gradients_show_first_and_last_measurement_of_each_layer():
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
    assert set(spectrum.get_lines()[-1].get_ydata()) == {1}, (
        "where W_hh neither shrinks nor stretches"
    )


def test_gradients_say_which_layers_and_which_steps():
    over_time = plots.gradients([("a run", history(2, 33, 8), 0.03)]).axes[0]
    legend = over_time.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "layer 1",
        "layer 2",
        "step 0",
        "step 1,400",
    ]
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "-", ":", "-"]
    assert over_time.get_title() == "a run"
    assert "dLoss / dh[t]" in over_time.get_ylabel()


def test_gradients_of_several_runs_stand_side_by_side_on_one_scale():
    runs = [("tanh", history(1, 33, 8), 0.03), ("relu", history(4, 50, 12, (0,)), 0.02)]
    figure = plots.gradients(runs)
    (*upper,), (*lower,) = np.reshape(figure.axes, (2, 2))
    assert [axes.get_title() for axes in upper] == ["tanh", "relu"]
    for row in (upper, lower):
        assert row[0].get_ylim() == row[1].get_ylim()
    assert [sum(len(line.get_xydata()) > 0 for line in axes.get_lines()) for axes in upper] == [
        2,
        8,
    ]


# Files


def test_pictures_are_written_as_png_and_closed(tmp_path: Path):
    figures = {"new/folder/a.png": plots.confusion(THREE, "t"), "b.png": plots.curves(METRICS, "t")}
    figures["c.png"] = plots.gradients([("t", history(2, 33, 8), 0.03)])
    for name, figure in figures.items():
        plots.save(figure, tmp_path / name)
        height, width, _ = plt.imread(tmp_path / name).shape
        assert height > 300 and width > 300
    assert plt.get_fignums() == []
    assert list(tmp_path.rglob("*.part")) == []


def test_failed_save_leaves_the_old_picture_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.png"
    path.write_bytes(b"the old one")

    def breaks(beside: Path, data: bytes):
        assert beside != path and path.read_bytes() == b"the old one"
        with beside.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", breaks)
    with pytest.raises(OSError, match="disk full") as caught:
        plots.save(plots.confusion(THREE, ""), path)
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"the old one"
    assert plt.get_fignums() == []


# Transcript


DETECTED = [(0.5, 0.9, "no"), (2.0, 2.4, "yes"), (2.5, 2.8, "no")]
SPOKEN = [(0.5, 1.0, "no"), (2.0, 2.5, "lights")]
CONFIG = ModelConfig(labels=LABELS)


def three_seconds(
    thresholds: dict[str, float], truth: list[plots.Word] | None = None
) -> tuple[Figure, np.ndarray]:
    """Three seconds in which `yes` and `no` were probable, `up` never; and their probabilities."""
    random = np.random.default_rng(0)
    wave = random.uniform(-0.3, 0.3, 48_000).astype(np.float32)
    features = random.standard_normal((300, 40))
    probabilities = np.random.default_rng(0).uniform(0, 1, (100, 3)) * (0.95, 0.9, 0.2)
    shown = wave, features, probabilities, CONFIG, thresholds, DETECTED, truth, "a talk"
    return plots.transcript(*shown), probabilities


def bars(axes: Any) -> list[tuple[float, float, str, str]]:
    """Start and end of each bar, the word of its row, and its kind."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = []
    for collection in axes.collections:
        for path in collection.get_paths():
            (left, low), (right, high) = path.get_extents().get_points()
            orange = to_rgb(collection.get_facecolor()[0]) == to_rgb(plots.ORANGE)
            kind = "detected" if orange else "spoken"
            word = names[round((low + high) / 2)]
            found.append((round(float(left), 3), round(float(right), 3), word, kind))
    return sorted(found)


def test_transcript_shows_probabilities_threshold_and_words():
    figure, probabilities = three_seconds({"yes": 0.6, "no": 0.6, "up": 0.6})
    wave, mfcc, over_time, words = figure.axes
    assert wave.get_title() == "a talk" and words.get_xlim() == (0, 3)
    shown = [line for line in over_time.get_lines() if len(line.get_xdata()) > 2]
    for line, column in zip(shown, probabilities.T, strict=True):
        np.testing.assert_allclose(line.get_xdata(), 0.03 * np.arange(1, 101))
        np.testing.assert_array_equal(line.get_ydata(), column)
    legend = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert legend == ["yes", "no", "threshold 0.60"], "up was never probable"
    levels = [line for line in over_time.get_lines() if len(line.get_xdata()) == 2]
    assert {tuple(line.get_ydata()) for line in levels} == {(0.6, 0.6)}
    assert len({(line.get_color(), line.get_linestyle()) for line in shown}) == 3
    assert bars(words) == [(*word, "detected") for word in DETECTED]
    assert [label.get_text() for label in words.get_yticklabels()] == ["yes", "no"]
    (image,) = mfcc.images
    assert image.get_array().shape == (40, 300) and image.get_extent() == [0, 3, 0, 40]


def test_transcript_shows_each_threshold_and_the_spoken_words():
    figure, _ = three_seconds({"yes": 0.9, "no": 0.55, "up": 0.15}, SPOKEN)
    over_time, words = figure.axes[2:]
    texts = [text.get_text() for text in over_time.get_legend().get_texts()]
    assert texts == ["yes 0.90", "no 0.55", "up 0.15"], "up passed its threshold"
    lines = over_time.get_lines()
    curves = {line.get_label(): line.get_color() for line in lines if len(line.get_xdata()) > 2}
    levels = {line.get_ydata()[0]: line.get_color() for line in lines if len(line.get_xdata()) == 2}
    assert levels == {0.9: curves[texts[0]], 0.55: curves[texts[1]], 0.15: curves[texts[2]]}
    detected = [(*word, "detected") for word in DETECTED]
    assert bars(words) == sorted([*detected, *((*word, "spoken") for word in SPOKEN)])
    legend = [text.get_text() for text in words.get_legend().get_texts()]
    assert legend == ["detected", "spoken"]
    assert [label.get_text() for label in words.get_yticklabels()] == ["yes", "no", "lights"]


def test_wave_of_a_short_recording_shows_every_sample():
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 3_000)
    axes = Figure().add_subplot()
    plots.draw_wave(axes, wave)
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), wave)
    np.testing.assert_allclose(line.get_xdata(), np.arange(3_000) / 16_000)


def test_wave_of_a_long_recording_shows_the_extremes_of_each_column():
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 100_000)
    wave[50_005], wave[80_000] = 1, -1
    axes = Figure().add_subplot()
    plots.draw_wave(axes, wave)
    (area,) = axes.collections
    corners = np.concatenate([path.vertices for path in area.get_paths()])
    assert corners[:, 1].max() == 1 and corners[:, 1].min() == -1
    assert corners[corners[:, 1].argmax(), 0] == pytest.approx(50_005 / 16_000, abs=26 / 16_000)
    assert corners[corners[:, 1].argmin(), 0] == pytest.approx(80_000 / 16_000, abs=26 / 16_000)
    assert len(np.unique(corners[:, 0])) <= plots.COLUMNS


def test_features_of_a_long_recording_are_means_of_their_columns():
    features = np.random.default_rng(0).standard_normal((12_100, 40))
    axes = Figure().add_subplot()
    plots.draw_features(axes, features, CONFIG)
    shown = np.asarray(axes.images[0].get_array())
    together = -(-len(features) // 4_000)
    column = features[5 * together : 6 * together].mean(0)
    np.testing.assert_allclose(shown[:, 5], column, atol=1e-4)
    assert shown.shape[1] <= 4_000


@pytest.mark.parametrize("samples", [1, 500])
def test_transcript_of_hardly_any_sound_is_drawn(samples: int, tmp_path: Path):
    wave, thresholds = np.zeros(samples, np.float32), {"yes": 0.6, "no": 0.6, "up": 0.6}
    nothing = np.zeros((0, 40)), np.zeros((0, 3))
    figure = plots.transcript(wave, *nothing, CONFIG, thresholds, [], None, "a$^b$.wav")
    plots.save(figure, tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()


def test_detection_errors_show_the_fewest_misses_and_where_the_thresholds_are():
    def scored(hits: int, alarms: int) -> dict[str, Score]:
        return dict.fromkeys(("all", "yes"), Score(10, hits, 0, alarms, 2.0, ()))

    curve = ((0.2, scored(9, 8)), (0.5, scored(10, 4)), (0.7, scored(8, 4)), (0.9, scored(5, 0)))
    result = SpottingResult({"yes": 0.7}, scored(8, 4), curve, 2.0)
    axes = plots.detection_errors(result, "t").axes[0]
    drawn = lines(axes)
    assert drawn["all"] == drawn["yes"] == [(0.25, 0.5), (2, 0), (2, 0), (4, 0)]
    assert drawn["thresholds used"] == [(2, pytest.approx(0.2))]


def test_noise_shows_accuracy_against_the_ratio_for_each_noise_and_as_recorded():
    rates = {
        "as recorded": 0.9,
        "a_hiss, 20 dB": 0.8,
        "a_hiss, -5 dB": 0.3,
        "30 dB quieter": 0.7,
        "a_hiss alone, -20 dB": 1.0,
    }
    drawn = lines(plots.noise(rates, "t").axes[0])
    assert drawn["a hiss"] == [(-5, 0.3), (20, 0.8)]
    assert set(drawn) == {"a hiss", "as recorded: 90.0%"}
