"""Seconds cut from long recordings of talk and sounds, so that a model learns what no command is.

In: log mel frames of recordings. Out: pieces (B, T, M), each a function of its number alone, so
that they can be drawn like clips. Many false alarms in running speech lie at the last word before a
pause or the first after one, where half of the window is quiet and one stressed syllable looks like
an isolated word; so talk is also cut at such edges, and into single syllables. It does not know
labels or corpora.
"""

import numpy as np
import torch
from torch import Tensor

LOUD_DB = 30.0  # below the loudest tenth of a recording: a frame within that is speech
PAUSE_FRAMES = 20  # of quiet, at least, between two phrases
SPAN_FRAMES = (15, 60)  # of speech that is kept beside an edge
SYLLABLE_FRAMES = (12, 40)
QUIET_SHARE = 0.05  # of a recording's frames: the quietest, which stand for its quiet


class Pieces:
    """Pieces of recordings, by number.

    Args:
        recordings: log mel frames (N, M) of each.
        frames: T, of a piece.
        count: how many different pieces there are.
        talk: whether to cut at the edges of phrases and into syllables too; else only anywhere.
        seed: of the draws.

    Raises:
        ValueError: if no recording is as long as a piece.
    """

    def __init__(
        self, recordings: list[Tensor], frames: int, count: int, talk: bool, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        long_enough = [recording for recording in recordings if len(recording) >= frames]
        if not long_enough:
            raise ValueError(
                f"no recording is longer than {frames} frames: pieces are cut from longer ones"
            )
        self.frames = frames
        self._log_mel = torch.cat(long_enough)
        self._quiet = torch.stack([_quiet(recording) for recording in long_enough])
        lengths = np.array([len(recording) for recording in long_enough])
        begins = np.concatenate(([0], lengths.cumsum()[:-1]))
        owner = random.choice(len(lengths), count, p=lengths / lengths.sum())
        start = (random.random(count) * (lengths[owner] - frames + 1)).astype(np.int64)
        first, last = np.zeros(count, np.int64), np.full(count, frames, np.int64)
        if talk:
            kinds = random.integers(3, size=count)
            edges = [_edges(recording) for recording in long_enough]
            for piece in np.flatnonzero(kinds == 1):
                choice = edges[owner[piece]]
                if len(choice):
                    cut = _at_edge(choice[random.integers(len(choice))], frames, random)
                    start[piece], first[piece], last[piece] = cut
            for piece in np.flatnonzero(kinds == 2):
                length = min(int(random.integers(*SYLLABLE_FRAMES)), frames - 1)
                first[piece] = random.integers(frames - length)
                last[piece] = first[piece] + length
            start = np.clip(start, 0, lengths[owner] - frames)
        tables = owner, begins[owner] + start, first, last
        self._owner, self._start, self._first, self._last = (
            torch.from_numpy(table).to(self._log_mel.device) for table in tables
        )

    def __len__(self) -> int:
        return len(self._start)

    def take(self, numbers: Tensor) -> Tensor:
        """Log mel frames (B, T, M) of the pieces with these numbers (B,)."""
        place = torch.arange(self.frames, device=numbers.device)
        piece = self._log_mel[self._start[numbers, None] + place]
        kept = (place >= self._first[numbers, None]) & (place < self._last[numbers, None])
        return torch.where(kept[..., None], piece, self._quiet[self._owner[numbers], None])


def _loudness(recording: Tensor) -> np.ndarray:
    """Of each frame (N,), dB."""
    loudness: np.ndarray = torch.logsumexp(recording.float(), -1).cpu().numpy() * 10 / np.log(10)
    return loudness


def _quiet(recording: Tensor) -> Tensor:
    """The mean (M,) of the quietest frames of a recording (N, M)."""
    quietest = np.argsort(_loudness(recording))[: max(1, round(QUIET_SHARE * len(recording)))]
    quiet = recording[torch.from_numpy(quietest).to(recording.device)]
    return quiet.float().mean(0).to(recording.dtype)


def _edges(recording: Tensor) -> np.ndarray:
    """Where phrases begin and end: (E, 2) of the frame, and +1 for a beginning or -1 for an end."""
    loudness = _loudness(recording)
    speech = loudness > np.quantile(loudness, 0.9) - LOUD_DB
    changes = np.diff(speech.astype(np.int8), prepend=0, append=0)
    begins, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    if not len(begins):
        return np.zeros((0, 2), np.int64)
    after_pause = np.concatenate(([True], begins[1:] - ends[:-1] >= PAUSE_FRAMES))
    before_pause = np.concatenate((after_pause[1:], [True]))
    marks = [[frame, 1] for frame in begins[after_pause]]
    marks += [[frame, -1] for frame in ends[before_pause]]
    return np.array(marks, np.int64)


def _at_edge(edge: np.ndarray, frames: int, random: np.random.Generator) -> tuple[int, int, int]:
    """Start of a piece with an edge in it, and the first and last of its frames that are kept."""
    frame, kind = edge.tolist()
    span = min(int(random.integers(*SPAN_FRAMES)), frames - 6)
    if kind == 1:  # quiet, then the beginning of a phrase
        inside = int(random.integers(5, frames - span))
        return frame - inside, 0, inside + span
    inside = int(random.integers(span, frames - 5))  # the end of a phrase, then quiet
    return frame - inside, inside - span, frames
