"""Pieces of recordings: a second each, of what is in them, and the same for the same number."""

import numpy as np
import pytest
import torch

from speechrnn.training.pieces import SPAN_FRAMES, Pieces, _edges

LOUD, QUIET, BANDS = 2.0, -12.0, 8


def _phrases(*lengths: int) -> torch.Tensor:
    """Log mel frames of quiet and speech in turn, beginning with quiet; frames differ by number."""
    levels = np.repeat([(QUIET, LOUD)[turn % 2] for turn in range(len(lengths))], lengths)
    frames = torch.from_numpy(levels).float()[:, None].repeat(1, BANDS)
    return frames + torch.arange(len(frames))[:, None] * 1e-4


RECORDINGS = [_phrases(60, 150, 60, 200, 90), _phrases(100, 400, 80) + 0.1]


def _all(pieces: Pieces, count: int = 300) -> torch.Tensor:
    return pieces.take(torch.arange(count))


def test_a_piece_is_a_function_of_its_number():
    one, same, other = (Pieces(RECORDINGS, 99, 300, True, seed) for seed in (0, 0, 1))
    assert torch.equal(_all(one), _all(same))
    assert not torch.equal(_all(one), _all(other))
    assert torch.equal(one.take(torch.tensor([7, 3])), _all(one)[[7, 3]])


def test_pieces_of_sounds_are_cut_out_as_they_are():
    pieces = _all(Pieces(RECORDINGS, 99, 300, False, 0))
    windows = [recording.unfold(0, 99, 1).transpose(1, 2) for recording in RECORDINGS]
    known = {window.numpy().tobytes() for part in windows for window in part.contiguous()}
    assert all(piece.numpy().tobytes() in known for piece in pieces.contiguous())


def test_every_place_of_every_recording_can_be_cut():
    pieces = Pieces(RECORDINGS, 99, 20_000, False, 0)
    starts = {float(piece[0, 0]) for piece in pieces.take(torch.arange(20_000))}
    expected = sum(len(recording) - 98 for recording in RECORDINGS)
    assert len(starts) > 0.98 * expected


def test_edges_are_where_phrases_begin_and_end():
    edges = [tuple(edge) for edge in _edges(RECORDINGS[0]).tolist()]
    assert sorted(edges) == [(60, 1), (210, -1), (270, 1), (470, -1)]


def test_a_short_gap_within_a_phrase_is_no_edge():
    edges = [tuple(edge) for edge in _edges(_phrases(60, 100, 10, 100, 90)).tolist()]
    assert sorted(edges) == [(60, 1), (270, -1)]


def test_a_third_of_the_pieces_of_talk_have_speech_of_a_few_syllables_beside_quiet():
    loud = (_all(Pieces(RECORDINGS, 99, 3_000, True, 0), 3_000)[:, :, 0] > 0).sum(1).numpy()
    short = (loud > 0) & (loud <= SPAN_FRAMES[1])
    assert 0.4 < short.mean() < 0.75  # two thirds, and random places at the edge of a phrase
    whole = (_all(Pieces(RECORDINGS, 99, 3_000, False, 0), 3_000)[:, :, 0] > 0).sum(1).numpy()
    assert ((whole > 0) & (whole <= SPAN_FRAMES[1])).mean() < short.mean() - 0.2


def test_pieces_of_few_long_frames_are_cut_like_others():
    pieces = Pieces(RECORDINGS, 24, 3_000, True, 0)  # a second in steps of 40 ms
    assert _all(pieces).shape == (300, 24, BANDS)


def test_what_is_taken_away_is_as_quiet_as_the_recording_itself():
    pieces = _all(Pieces(RECORDINGS, 99, 300, True, 0))
    assert pieces.min() >= QUIET
    assert ((pieces < QUIET + 0.2) | (pieces > LOUD - 0.2)).all()


def test_recordings_that_are_too_short_are_left_out_and_refused_if_there_are_no_others():
    pieces = Pieces([_phrases(20, 30), *RECORDINGS], 99, 300, False, 0)
    assert torch.equal(_all(pieces), _all(Pieces(RECORDINGS, 99, 300, False, 0)))
    with pytest.raises(ValueError, match="no recording is longer than 99 frames"):
        Pieces([_phrases(20, 30)], 99, 300, True, 0)
