"""Holds the rendering of speech from text with a synthesiser that hums, and with Kokoro.

SPEECHRNN_KOKORO names the folder that `recipes/get_kokoro.sh` wrote.
"""

import argparse
import hashlib
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.cli import speak as cli_speak
from speechrnn.synthesis import intelligibility, rendering
from speechrnn.synthesis import kokoro as kokoro_room
from speechrnn.synthesis.kokoro import KOKORO_RATE, Kokoro, speak_text, speak_words
from speechrnn.synthesis.rendering import render_sentences, render_words

FRAME = KOKORO_RATE // kokoro_room.FRAMES_A_SECOND
WORDS = ["go", "nine", "house", "wow", "tree", "learn", "visual", "follow", "seven"]
VOICES = ["af_one", "bm_two"]


class Humming:
    """Hums each letter for 75 ms, and is silent at a mark and a space."""

    voices = ("af_one", "bm_two", "zf_three")
    checksum = "0" * 64

    def __init__(self, stop_at: int = -1, pauses: bool = True) -> None:
        self.spoken = 0
        self._stop_at = stop_at
        self._pauses = pauses

    def phonemes(self, text: str, voice: str) -> str:
        return text.replace("xx", "")

    def speak(
        self, phonemes: str, voice: str, speed: float, least: np.ndarray, most: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.spoken == self._stop_at:
            raise KeyboardInterrupt
        self.spoken += 1
        frames = np.array([1, *np.clip(3, least, np.maximum(least, most)), 1], int)
        silent = [True, *(self._pauses and letter in ". " for letter in phonemes), True]
        times = np.arange(frames.sum() * FRAME) / KOKORO_RATE
        loud = np.repeat(~np.array(silent), frames * FRAME)
        return (0.1 * loud * np.sin(2 * np.pi * 300 * times)).astype(np.float32), frames


def understand_all(wave: np.ndarray, word: str) -> bool:
    return True


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def render(folder: Path, synthesiser: Humming | None = None, clips: int = 3, seed: int = 1) -> None:
    render_words(
        WORDS, folder, synthesiser or Humming(), understand_all, VOICES, clips=clips, seed=seed
    )


def test_a_list_is_cut_into_its_words() -> None:
    pieces = speak_words(Humming(), ["go", "house", "it"], "af_one", 1.0)
    seconds = [len(piece) / 16_000 for piece in pieces if piece is not None]
    letters = np.array([2, 5, 2])
    assert seconds == pytest.approx(letters * 0.075 + 0.04, abs=0.06)


def test_words_without_a_pause_between_them_are_not_cut() -> None:
    assert speak_words(Humming(pauses=False), ["go", "on"], "af_one", 1.0) == [None, None]


def test_last_consonants_are_kept_short_and_pauses_long() -> None:
    phonemes = "ɡˈoʊ. stˈɑːp. ɹˈɛd."  # noqa: RUF001
    least, most = kokoro_room._limits(phonemes)
    marks = [i for i, phoneme in enumerate(phonemes) if phoneme == "."]
    assert (least[marks] == kokoro_room.PAUSE_FRAMES).all()
    assert most[phonemes.index("p")] == kokoro_room.STOP_FRAMES
    assert most[phonemes.index("s")] > 100  # the first consonant of a word is left alone
    assert least[0] == 1


def test_clips_are_seconds_in_the_layout_of_speech_commands(tmp_path: Path) -> None:
    render(tmp_path)
    clips = sorted(tmp_path.glob("*/*.wav"))
    assert {path.parent.name for path in clips} == set(WORDS)
    assert all(path.name.partition("_nohash_")[0] in VOICES for path in clips)
    for path in clips:
        info = soundfile.info(path)
        assert (info.samplerate, info.frames, info.subtype) == (16_000, 16_000, "PCM_16")
    assert {len(list((tmp_path / word).iterdir())) for word in WORDS} == {3}


def test_provenance_names_every_clip_once(tmp_path: Path) -> None:
    render(tmp_path)
    head, *rows = [
        line.split("\t") for line in (tmp_path / "provenance.tsv").read_text().splitlines()
    ]
    assert head == ["file", "text", "voice", "speed", "seed"]
    clips = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.wav")}
    assert sorted(row[0] for row in rows) == sorted(clips)
    assert all(row[0].startswith(f"{row[1]}/{row[2]}_nohash_") for row in rows)
    assert Humming.checksum in (tmp_path / "README.md").read_text()


def test_levels_of_clips_differ_and_none_is_clipped(tmp_path: Path) -> None:
    render(tmp_path)
    peaks = [np.abs(soundfile.read(path)[0]).max() for path in tmp_path.glob("*/*.wav")]
    assert max(peaks) < 1
    assert max(peaks) > 2 * min(peaks)


@pytest.mark.parametrize("stop_at", [0, 1, 2, 3])
def test_a_stopped_rendering_of_words_goes_on_to_the_same_files(
    tmp_path: Path, stop_at: int
) -> None:
    render(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "stopped", Humming(stop_at))
    render(tmp_path / "stopped")
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_a_rendering_stopped_within_a_list_goes_on_to_the_same_files(tmp_path: Path) -> None:
    answers = iter([True] * 10)

    def understand_ten(wave: np.ndarray, word: str) -> bool:
        if not next(answers, False):
            raise KeyboardInterrupt
        return True

    render(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        render_words(WORDS, tmp_path / "stopped", Humming(), understand_ten, VOICES, 3, 1)
    render(tmp_path / "stopped")
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_a_rendering_killed_within_a_line_goes_on_to_the_same_files(tmp_path: Path) -> None:
    render(tmp_path)
    whole = files_of(tmp_path)
    table = tmp_path / "provenance.tsv"
    table.write_bytes(table.read_bytes()[:-9])
    render(tmp_path)
    assert files_of(tmp_path) == whole


def test_a_finished_rendering_speaks_its_last_list_alone_again(tmp_path: Path) -> None:
    render(tmp_path)
    again = Humming()
    render(tmp_path, again)
    assert again.spoken == 1


def test_a_rendering_of_something_else_is_refused(tmp_path: Path) -> None:
    render(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"other seed .* another folder behind --to"):
        render(tmp_path, seed=2)
    assert files_of(tmp_path) == before


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty and holds no rendering\.json"):
        render(tmp_path)
    assert list(files_of(tmp_path)) == ["mine.txt"]


def test_clips_that_are_not_understood_are_thrown_away_and_the_word_given_up(
    tmp_path: Path,
) -> None:
    def deaf_to_house(wave: np.ndarray, word: str) -> bool:
        return word != "house"

    tally = render_words(WORDS, tmp_path, Humming(), deaf_to_house, VOICES, clips=2, seed=0)
    assert tally.kept["house"] == 0
    assert tally.said["house"] >= 2 * rendering.LISTS_A_CLIP
    assert not (tmp_path / "house").exists()
    assert {tally.kept[word] for word in WORDS if word != "house"} == {2}


@pytest.mark.parametrize("word", ["7up", "Go", "", "a.b", "../up", "xx", "wa wa"])
def test_what_is_no_word_is_refused_before_anything_is_written(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match=r"is no word|cannot be pronounced"):
        render_words(["go", word], tmp_path / "to", Humming(), understand_all, VOICES, 1, 0)
    assert not (tmp_path / "to").exists()


def test_a_voice_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such voice: af_four; expected some of af_one"):
        render_words(["go"], tmp_path / "to", Humming(), understand_all, ["af_four"], 1, 0)
    assert not (tmp_path / "to").exists()


def test_a_clip_that_cannot_be_written_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / "whole")

    def full(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"RIFF")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as error:
        patch.setattr(soundfile, "write", full)
        render(tmp_path / "to")
    assert str(error.value.filename).endswith(".wav")
    assert not [name for name in files_of(tmp_path / "to") if name.endswith((".wav", ".part"))]
    render(tmp_path / "to")
    assert files_of(tmp_path / "to") == files_of(tmp_path / "whole")


def test_a_table_grows_by_whole_lines_or_not_at_all(tmp_path: Path) -> None:
    table = rendering._Table(tmp_path / "table.tsv", ("file", "text"))
    table.keep(0)
    table.add([("a.wav", "a")])
    before = (tmp_path / "table.tsv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, limits[1]))
    try:
        with pytest.raises(OSError):
            table.add([("b.wav", "b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "table.tsv").read_bytes() == before


def test_sentences_are_written_with_transcripts(tmp_path: Path) -> None:
    sentences = ["We met at the station.", "It was late."]
    assert render_sentences(sentences, tmp_path, Humming(), VOICES, seed=4) == 2
    head, *rows = [
        line.split("\t") for line in (tmp_path / "transcripts.tsv").read_text().splitlines()
    ]
    assert head == ["file", "text"]
    assert [row[1] for row in rows] == sentences
    for name, text in rows:
        info = soundfile.info(tmp_path / name)
        assert (info.samplerate, info.subtype) == (16_000, "PCM_16")
        assert info.duration == pytest.approx(len(text) * 0.075, abs=0.6)


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_a_stopped_rendering_of_sentences_goes_on_to_the_same_files(
    tmp_path: Path, stop_at: int
) -> None:
    sentences = [f"sentence {'abcd'[i]}." for i in range(4)]
    render_sentences(sentences, tmp_path / "whole", Humming(), VOICES, seed=0)
    with pytest.raises(KeyboardInterrupt):
        render_sentences(sentences, tmp_path / "stopped", Humming(stop_at), VOICES, seed=0)
    render_sentences(sentences, tmp_path / "stopped", Humming(), VOICES, seed=0)
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_a_sentence_that_is_too_long_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sentence 2: .* has 600 phonemes, expected at most 510"):
        render_sentences(["short", "a" * 600], tmp_path / "to", Humming(), VOICES, seed=0)
    assert not (tmp_path / "to").exists()


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli_speak.add_parsers(parser.add_subparsers())
    return parser.parse_args(["speak", *words])


@pytest.fixture
def hummed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Agreeable:
        def __init__(self, folder: Path, pronounce: Callable[[str], str]) -> None: ...

        def understands(self, wave: np.ndarray, word: str) -> bool:
            return word != "tree"

    monkeypatch.setattr(kokoro_room, "Kokoro", lambda folder: Humming())
    monkeypatch.setattr(intelligibility, "Judge", Agreeable)


@pytest.mark.usefixtures("hummed")
def test_the_command_tells_what_it_kept_and_fails_for_words_that_lack_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.txt").write_text("tree\nnine\n")
    words = ["go", "--file", f"{tmp_path}/more.txt", "--clips", "2", "--to", f"{tmp_path}/to"]
    options = parse("words", *words, "--model", "nowhere", "--voices", "bm_two")
    assert options.command(options) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["go", "tree", "nine"]
    assert err.startswith("speechrnn: tree: 0 of 2 clips, after saying it ")
    assert len(err.splitlines()) == 1
    assert all(path.name.startswith("bm_two_") for path in tmp_path.glob("to/*/*.wav"))


@pytest.mark.usefixtures("hummed")
def test_the_command_renders_a_line_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("One line.\n\nAnother line.\n")
    options = parse("sentences", f"{tmp_path}/text.txt", "--to", f"{tmp_path}/to", "--model", ".")
    assert options.command(options) == 0
    assert capsys.readouterr().out == f"{tmp_path}/to\t2\n"
    assert len(list(tmp_path.glob("to/*.wav"))) == 2


def test_a_text_without_sentences_is_refused(tmp_path: Path, hummed: None) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    options = parse("sentences", f"{tmp_path}/empty.txt", "--to", f"{tmp_path}/to", "--model", ".")
    with pytest.raises(ValueError, match=r"empty\.txt: no text; expected a sentence a line"):
        options.command(options)


@pytest.mark.parametrize("package", ["kokoro_onnx", "onnx", "onnxruntime"])
def test_the_synthesiser_that_is_not_installed_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if package != "onnx":  # it is imported first, and need not be there
        pytest.importorskip("onnx", reason="needs the extra speak")
    with pytest.raises(RuntimeError, match=r"not installed: type pip install 'speechrnn\[speak\]'"):
        Kokoro(".")


def test_the_judge_that_is_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(RuntimeError, match=r"not installed: type pip install 'speechrnn\[speak\]'"):
        intelligibility.Judge(".")


@pytest.fixture
def model_folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with a model of the given inputs and voices of the given shape."""
    for package in ("kokoro_onnx", "onnx", "faster_whisper"):
        pytest.importorskip(package, reason="needs the extra speak")

    def write(
        inputs: tuple[str, ...] = ("tokens", "style", "speed"),
        shape: tuple[int, ...] = (510, 1, 256),
    ) -> Path:
        import onnx

        values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in inputs]
        out = onnx.helper.make_tensor_value_info("audio", 1, [1])
        node = onnx.helper.make_node("Identity", [inputs[0]], ["audio"])
        graph = onnx.helper.make_graph([node], "graph", values, [out])
        onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
        np.savez(tmp_path / "voices.npz", af_one=np.zeros(shape, np.float32))
        return tmp_path

    return write


def test_a_model_with_other_inputs_is_refused(model_folder_of: Callable[..., Path]) -> None:
    folder = model_folder_of(("input_ids", "style", "speed"))
    with pytest.raises(
        ValueError, match=r"model\.onnx: the inputs are input_ids, .*expected tokens, style, speed"
    ):
        Kokoro(folder)


def test_voices_of_another_version_are_refused(model_folder_of: Callable[..., Path]) -> None:
    with pytest.raises(
        ValueError, match=r"voices\.npz: voice af_one has the shape \(511, 1, 256\)"
    ):
        Kokoro(model_folder_of(shape=(511, 1, 256)))


@pytest.mark.parametrize("name", ["model.onnx", "voices.npz"])
def test_a_missing_file_of_the_model_says_how_to_get_it(
    model_folder_of: Callable[..., Path], name: str
) -> None:
    folder = model_folder_of()
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: there is no such file; recipes/get_koko"):
        Kokoro(folder)


@pytest.mark.parametrize("name", ["model.onnx", "voices.npz"])
def test_a_file_of_the_model_that_is_cut_off_is_refused(
    model_folder_of: Callable[..., Path], name: str
) -> None:
    folder = model_folder_of()
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 1])
    with pytest.raises(ValueError, match=rf"{name}: .*whole .*; recipes/get_kokoro\.sh"):
        Kokoro(folder)


def test_a_missing_file_of_the_judge_says_how_to_get_it(
    model_folder_of: Callable[..., Path],
) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.bin: there is no such file; recipes/get_"):
        intelligibility.Judge(model_folder_of())


def test_a_file_of_the_judge_that_is_no_model_is_refused(
    model_folder_of: Callable[..., Path],
) -> None:
    folder = model_folder_of()
    for name in intelligibility.FILES:
        (folder / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"not a whole Whisper model .*; recipes/get_kokoro\.sh"):
        intelligibility.Judge(folder)


@pytest.fixture(scope="module")
def kokoro(kokoro_folder: Path) -> Kokoro:
    return Kokoro(kokoro_folder)


@pytest.fixture(scope="module")
def judge(kokoro_folder: Path) -> intelligibility.Judge:
    return intelligibility.Judge(kokoro_folder / "whisper")


def test_kokoro_obeys_the_lengths_that_it_is_given(kokoro: Kokoro) -> None:
    phonemes = kokoro.phonemes("Go. On.", "af_bella")
    least, most = np.full(len(phonemes), 5.0), np.full(len(phonemes), 6.0)
    wave, frames = kokoro.speak(phonemes, "af_bella", 1.0, least, most)
    assert ((frames[1:-1] >= 5) & (frames[1:-1] <= 6)).all()
    assert len(wave) == frames.sum() * FRAME


def test_kokoro_says_the_same_whatever_it_said_before(kokoro: Kokoro) -> None:
    first = speak_text(kokoro, "A short sentence.", "bf_emma", 1.0)
    speak_text(kokoro, "Another one.", "am_adam", 1.2)
    assert np.array_equal(first, speak_text(kokoro, "A short sentence.", "bf_emma", 1.0))


def test_most_words_of_a_list_by_kokoro_are_understood_and_not_as_others(
    kokoro: Kokoro, judge: intelligibility.Judge
) -> None:
    words = ["house", "seven", "tree", "happy", "stop", "go", "yes"]
    pieces = speak_words(kokoro, words, "af_bella", 1.0)
    found = [(word, piece) for word, piece in zip(words, pieces, strict=True) if piece is not None]
    assert len(found) >= 4
    assert sum(judge.understands(piece, word) for word, piece in found) >= len(found) - 1
    assert not any(judge.understands(piece, "marvellous") for _, piece in found)


def test_a_word_that_sounds_the_same_is_understood(
    kokoro: Kokoro, kokoro_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = np.zeros(8_000, np.float32)
    judge = intelligibility.Judge(
        kokoro_folder / "whisper", lambda word: kokoro.phonemes(word, "af_bella")
    )
    monkeypatch.setattr(judge, "compare", lambda wave, word: ("one", -9.0))
    assert judge.understands(wave, "won")
    assert not judge.understands(wave, "wan")


def test_silence_is_not_understood(kokoro: Kokoro, kokoro_folder: Path) -> None:
    judge = intelligibility.Judge(
        kokoro_folder / "whisper", lambda word: kokoro.phonemes(word, "af_bella")
    )
    assert not judge.understands(np.zeros(8_000, np.float32), "seven")


def test_a_word_is_judged_alike_at_any_level(kokoro: Kokoro, judge: intelligibility.Judge) -> None:
    wave = speak_text(kokoro, "seven", "af_bella", 1.0)
    assert judge.compare(wave, "seven") == judge.compare(wave / 64, "seven")


def test_the_command_renders_with_kokoro(kokoro_folder: Path, tmp_path: Path) -> None:
    words = ["house", "seven", "--clips", "1", "--seed", "1", "--to", f"{tmp_path}/to"]
    options = parse("words", *words, "--model", str(kokoro_folder))
    assert options.command(options) == 0
    asked = json.loads((tmp_path / "to" / "rendering.json").read_text())
    checksum = hashlib.sha256((kokoro_folder / "model.onnx").read_bytes()).hexdigest()
    assert asked["model"] == checksum
    assert (tmp_path / "to" / "seven").is_dir()
