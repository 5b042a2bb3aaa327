"""Log mel frames of all clips, computed once before the training, and their statistics.

In: int16 clips (n, N) and the front end of a model. Out: log mel frames (n, T, M) on the device of
the front end, and the mean and deviation of each coefficient, in its buffers. It does not know
labels, splits or networks.
"""

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio import from_int16
from speechrnn.corpus import progress
from speechrnn.features import Mfcc

PART_CLIPS = 256  # computed at once


@torch.no_grad()
def log_mel_frames(mfcc: Mfcc, waves: np.ndarray, dtype: torch.dtype = torch.float16) -> Tensor:
    """Log mel frames (n, T, M) of clips.

    Args:
        mfcc: the front end; the frames stay on its device.
        waves: (n, N) int16.
        dtype: of the frames; float16 takes half the memory of float32 and is wrong by 0.02 dB at
            most.
    """
    device = mfcc.window.device
    parts = [waves[start : start + PART_CLIPS] for start in range(0, len(waves), PART_CLIPS)]
    frames = []
    for part in progress(parts, "features"):
        cut, _ = mfcc.frames(torch.from_numpy(from_int16(part)).to(device))
        frames.append(mfcc.log_mel(cut).to(dtype))
    return torch.cat(frames)


@torch.no_grad()
def set_feature_statistics(mfcc: Mfcc, log_mel: Tensor) -> None:
    """Put mean and deviation of each coefficient over log mel frames (n, T, M) into `mfcc`."""
    mfcc.mean.zero_()
    mfcc.std.fill_(1)
    # On the CPU: not every device has float64.
    total, squares = torch.zeros(2, len(mfcc.mean), dtype=torch.float64)
    for part in torch.split(log_mel, PART_CLIPS):
        features = mfcc.cepstrum(part.float()).cpu().double()
        total += features.sum((0, 1))
        squares += features.square().sum((0, 1))
    frames = log_mel.shape[0] * log_mel.shape[1]
    mfcc.mean.copy_(total / frames)
    mfcc.std.copy_((squares / frames - (total / frames).square()).sqrt().clamp(min=1e-3))
