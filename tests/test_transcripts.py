"""Each format to the letter, as its readers expect it, and times that always run forward."""

import json

import pytest

from speechrnn import Detection
from speechrnn.transcripts import (
    AT_THE_END,
    FORMATS,
    OF_ONE_RECORDING,
    entry,
    lines,
    read_labels,
    textgrid,
)

WORDS = [
    Detection(0.51, 0.93, "yes", 0.95123, 1.2),
    Detection(3661.0004, 3661.5, "no", 0.9, 3662.0),
]

TEXTS = {
    "tsv": "0.51\t0.93\tyes\t0.95\n3661.00\t3661.50\tno\t0.90\n",
    "jsonl": (
        '{"path": "a.wav", "start": 0.51, "end": 0.93, "label": "yes", "score": 0.95123}\n'
        '{"path": "a.wav", "start": 3661.0004, "end": 3661.5, "label": "no", "score": 0.9}\n'
    ),
    "srt": "1\n00:00:00,510 --> 00:00:00,930\nyes\n\n2\n01:01:01,000 --> 01:01:01,500\nno\n\n",
    "vtt": "WEBVTT\n\n00:00:00.510 --> 00:00:00.930\nyes\n\n01:01:01.000 --> 01:01:01.500\nno\n\n",
    "audacity": "0.510000\t0.930000\tyes\n3661.000400\t3661.500000\tno\n",
}

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0.0
            xmax = 0.51
            text = ""
        intervals [2]:
            xmin = 0.51
            xmax = 0.93
            text = "say ""yes"" twice"
        intervals [3]:
            xmin = 0.93
            xmax = 2.5
            text = ""
"""


@pytest.mark.parametrize("form", TEXTS)
def test_format_is_to_the_letter(form):
    assert "".join(line + "\n" for line in lines(form, WORDS, "a.wav")) == TEXTS[form]


def test_every_format_has_a_text_here():
    assert set(FORMATS) == {*TEXTS, *AT_THE_END}
    assert set(OF_ONE_RECORDING) < set(FORMATS)


@pytest.mark.parametrize("form", TEXTS)
def test_word_is_text_before_the_next_one_is_known(form):
    asked = []

    def words():
        for word in WORDS:
            asked.append(word.label)
            yield word

    found = next(line for line in lines(form, words(), "a.wav") if "yes" in line)
    assert found and asked == ["yes"]


def test_tsv_begins_with_the_path_where_recordings_are_named():
    assert next(lines("tsv", WORDS, "a.wav", named=True)) == "a.wav\t0.51\t0.93\tyes\t0.95"


def test_entry_holds_path_times_label_and_score():
    assert json.loads(json.dumps(entry(WORDS[1], "b.wav"))) == {
        "path": "b.wav",
        "start": 3661.0004,
        "end": 3661.5,
        "label": "no",
        "score": 0.9,
    }


def test_vtt_escapes_what_would_be_a_tag():
    assert (
        list(lines("vtt", [Detection(0, 1, "rock & <roll>", 1, 1)], ""))[1].splitlines()[1]
        == "rock &amp; &lt;roll&gt;"
    )


def test_textgrid_is_to_the_letter():
    assert textgrid([Detection(0.51, 0.93, 'say "yes" twice', 0.9, 1)], 2.5) + "\n" == TEXTGRID


def test_textgrid_without_words_is_one_empty_interval():
    assert textgrid([], 1.5).count("intervals [") == 1
    assert textgrid([], 1.5).endswith('xmin = 0.0\n            xmax = 1.5\n            text = ""')


CROSSED = [
    Detection(*times, "no", 0.9, 9)
    for times in ((0.5, 1.5), (1.2, 1.4), (1.3, 2.0), (2.0, 2.0), (0.1, 0.2), (5, 6))
]


@pytest.mark.parametrize(("form", "point"), [("srt", ","), ("vtt", ".")])
def test_times_of_subtitles_do_not_overlap_or_go_back(form, point):
    times = []
    for line in "\n".join(lines(form, CROSSED, "")).splitlines():
        if "-->" in line:
            for clock in line.replace(point, ":").split(" --> "):
                hours, minutes, seconds, rest = map(int, clock.split(":"))
                times.append(((hours * 60 + minutes) * 60 + seconds) * 1000 + rest)
    assert len(times) == 2 * len(CROSSED)
    assert times == sorted(times)
    assert all(start < end for start, end in zip(times[::2], times[1::2], strict=True))


def test_intervals_of_a_textgrid_follow_each_other_without_a_gap():
    rows = [
        line.split(" = ")
        for line in textgrid(CROSSED, 4.0).split("intervals: size")[1].splitlines()
    ]
    starts = [float(row[1]) for row in rows if row[0].strip() == "xmin"]
    ends = [float(row[1]) for row in rows if row[0].strip() == "xmax"]
    assert starts[0] == 0 and ends[-1] == 6
    assert starts[1:] == ends[:-1]
    assert all(start < end for start, end in zip(starts, ends, strict=True))


def test_labels_that_were_written_are_read_back():
    text = "\n".join(lines("audacity", WORDS, ""))
    assert read_labels(text, "") == [(0.51, 0.93, "yes"), (3661.0004, 3661.5, "no")]


def test_frequencies_and_points_of_audacity_are_no_words_of_their_own():
    text = "0.5\t0.5\tclick\n\\\t100.0\t200.0\n\n1\t2\n"
    assert read_labels(text, "") == [(0.5, 0.5, "click"), (1, 2, "")]


@pytest.mark.parametrize(
    "line",
    ["yes", "1\tyes", "2\t1\tyes", "-1\t1\tyes", "0\tinf\tyes", "nan\t1\tyes", "0.5 0.9 yes"],
)
def test_line_that_is_no_label_is_named(line):
    with pytest.raises(
        ValueError, match=r"^track.txt, line 2: .*expected start TAB end TAB label"
    ) as info:
        read_labels(f"0\t1\tno\n{line}\n", "track.txt")
    assert repr(line) in str(info.value)
