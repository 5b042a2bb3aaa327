"""What `recipes/make_music.py` composes and how it writes it; nothing is downloaded or played."""

import itertools
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_scripts import load_recipe


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("mido", reason="the script composes with mido")
    return load_recipe("make_music")


def timed(midi):
    """Seconds and message of each event of the only track."""
    (track,) = midi.tracks
    ticks = itertools.accumulate(message.time for message in track)
    return [(tick / 960, message) for tick, message in zip(ticks, track, strict=True)]


KINDS = ("notes", "effects", "voices", "melodies", "chords", "arpeggios", "drums", "bands")


@pytest.mark.parametrize("kind", KINDS)
def test_each_note_ends_and_the_track_ends_with_the_recording(script, kind):
    for number in range(3):
        score = script.compose("fluid-soundfont-gm", kind, number).score
        events = timed(score.midi())
        assert events[-1][1].type == "end_of_track"
        assert events[-1][0] == score.seconds
        assert 20 <= score.seconds <= 60
        sounding, struck = set(), 0
        for _, message in events:
            if message.type == "note_on":
                struck += 1
                sounding.add((message.channel, message.note))
            elif message.type == "note_off":
                sounding.discard((message.channel, message.note))
        assert struck >= 5
        assert not sounding


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_repeats_and_another_number_or_soundfont_gives_another(script, kind):
    def played(package, number):
        recording = script.compose(package, kind, number)
        return (
            recording.peak_db,
            recording.reverb,
            str(recording.score.midi().tracks[0]),
        )

    first = played("fluid-soundfont-gm", 0)
    assert played("fluid-soundfont-gm", 0) == first
    assert played("fluid-soundfont-gm", 1) != first
    assert played("timgm6mb-soundfont", 0) != first


def programs_played(script, soundfont, minutes, kinds):
    """(drum channel or not, program) of each change of program in a soundfont's recordings."""
    return [
        (message.channel == 9, message.program)
        for kind, number in script.recordings_of(soundfont, minutes)
        if kind in kinds
        for _, message in script.compose(soundfont.package, kind, number).score.events
        if message.type == "program_change"
    ]


def test_training_by_default_has_notes_of_every_program_and_every_effect(script):
    soundfont = script.SOUNDFONTS[0]
    played = programs_played(script, soundfont, script.TRAINING_MINUTES, ("notes", "effects"))
    assert {program for drum, program in played if not drum} == set(range(128))
    assert any(drum for drum, _ in played)


def test_choirs_and_voices_are_played_four_times_as_often_as_other_instruments(script):
    voice, other = script.VOICES[0], script.INSTRUMENTS[0]
    counts = [script.WEIGHTED.count(program) for program in (voice, other)]
    assert counts == [4, 1]


def test_half_of_the_recordings_are_notes_effects_and_voices_with_quiet_around(script):
    kinds = [kind for kind, _ in script.recordings_of(script.SOUNDFONTS[0], 120)]
    assert sum(kind in ("notes", "effects", "voices") for kind in kinds) / len(kinds) == (
        pytest.approx(0.5, abs=0.03)
    )
    assert set(kinds) == set(KINDS)
    recording = script.compose("fluid-soundfont-gm", "notes", 0)
    events = recording.score.midi()
    sounding, silent, before = 0, 0.0, 0.0
    for time, message in timed(events):
        if not sounding:
            silent += time - before
        before = time
        sounding += {"note_on": 1, "note_off": -1}.get(message.type, 0)
    assert 0.2 < silent / recording.score.seconds < 0.9


def test_no_soundfont_is_in_two_splits_and_each_split_is_shared_out_whole(script):
    names = [soundfont.package for soundfont in script.SOUNDFONTS]
    assert len(names) == len(set(names))
    for split in ("training", "validation"):
        shares = [soundfont.share for soundfont in script.SOUNDFONTS if soundfont.split == split]
        assert sum(shares) == pytest.approx(1.0)


def test_a_bend_of_twelve_semitones_is_the_whole_wheel(script):
    score = script.Score(1.0)
    score.bend(0.0, 0.5, [0.0, 12.0, -12.0])
    pitches = [m.pitch for _, m in timed(score.midi()) if m.type == "pitchwheel"]
    assert (pitches[0], max(pitches), pitches[-1]) == (0, pytest.approx(8191, abs=700), -8191)
    data = [
        m.value for _, m in timed(score.midi()) if m.type == "control_change" and m.control == 6
    ]
    assert data == [12]


def test_a_recording_gets_its_length_and_its_peak(script):
    wave = np.sin(np.arange(16_000) / 5.0) * 3
    for seconds in (0.5, 1.5):
        finished = script.finish(wave, seconds, -20.0)
        assert len(finished) == seconds * 16_000
        assert np.abs(finished).max() == pytest.approx(0.1)


def test_a_silent_recording_is_refused(script):
    with pytest.raises(RuntimeError, match="silent: its peak is 0, more than"):
        script.finish(np.zeros(16_000), 1.0, 0.0)


@pytest.fixture
def played_without_soundfonts(script, monkeypatch, tmp_path_factory):
    """Packages are empty but for their copyright, and a sine stands for every recording."""
    played = []

    @contextmanager
    def unpack(packages):
        home = tmp_path_factory.mktemp("unpacked")
        (home / "usr/share/doc" / packages[0]).mkdir(parents=True)
        (home / "usr/share/doc" / packages[0] / "copyright").write_text("free")
        yield home, "1.0"

    def render(midi, soundfont, reverb):
        played.append(soundfont.name)
        return np.sin(np.arange(16_000) / 5.0)

    monkeypatch.setattr(script, "unpacked", unpack)
    monkeypatch.setattr(script, "render", render)
    monkeypatch.setattr(script.shutil, "which", lambda tool: tool)
    return played


def run_script(script, monkeypatch, *words):
    monkeypatch.setattr(script.sys, "argv", ["make_music.py", *map(str, words)])
    return script.main()


def test_recordings_are_mono_at_16_khz_each_in_the_table_and_a_second_run_plays_only_missing_ones(
    script, played_without_soundfonts, tmp_path, monkeypatch, capsys
):
    assert run_script(script, monkeypatch, tmp_path, "--minutes", 4) == 0
    count = len(played_without_soundfonts)
    table = [line.split("\t") for line in (tmp_path / "sounds.tsv").read_text().splitlines()[1:]]
    assert len(table) == count == len(list(tmp_path.rglob("*.flac")))
    for split, file, package, version, kind, licence, seconds in table:
        info = soundfile.info(tmp_path / file)
        assert (info.channels, info.samplerate, info.subtype) == (1, 16_000, "PCM_16")
        assert f"{info.duration:.2f}" == seconds
        assert file == f"{split}/{package}/{Path(file).name}"
        assert Path(file).name.startswith(kind)
        assert version == "1.0"
        assert licence
    assert {row[0] for row in table} == {"training", "validation"}
    (tmp_path / table[0][1]).unlink()
    assert run_script(script, monkeypatch, tmp_path, "--minutes", 4) == 0
    assert len(played_without_soundfonts) == count + 1
    assert "1 new recordings" in capsys.readouterr().err


def test_a_soundfont_that_cannot_be_played_is_skipped_with_a_line_and_nothing_half_written(
    script, played_without_soundfonts, tmp_path, monkeypatch, capsys
):
    def fail(midi, soundfont, reverb):
        if soundfont.name == "TimGM6mb.sf2":
            raise RuntimeError("fluidsynth failed: no such file")
        return np.sin(np.arange(16_000) / 5.0)

    monkeypatch.setattr(script, "render", fail)
    assert run_script(script, monkeypatch, tmp_path, "--minutes", 2) == 1
    error = capsys.readouterr().err
    assert "timgm6mb-soundfont: skipped: notes-000.flac: fluidsynth failed: no such file" in error
    assert not list((tmp_path / "validation").rglob("*.flac"))
    assert list((tmp_path / "training").rglob("*.flac"))
    assert not list(tmp_path.rglob("*.unfinished"))


def test_without_fluidsynth_it_says_what_to_install_in_one_line(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(script.shutil, "which", lambda tool: None if tool == "fluidsynth" else tool)
    assert run_script(script, monkeypatch, tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "`apt-get install fluidsynth`" in error
    assert not (tmp_path / "new").exists()
