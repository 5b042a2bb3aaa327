"""Augmentation of whole batches on the training device: time shift, gain, background noise, masks on the mel frames.

In: waves (B, N) float, or log mel frames (B, T, M). Out: the same shapes. All draws come from torch's global generator of the
device, which training seeds anew each epoch. It does not know labels or models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from speechrnn.audio import SAMPLE_RATE


@dataclass(frozen=True)
class Augmentation:
    """How much a training clip may differ from the recorded one; zeros change nothing.

    Args:
        shift_ms: largest shift in time to either side, ms; silence fills the gap (100 in kws_streaming and BC-ResNet).
        gain_db: largest change of level to either side, dB.
        noise_probability: share of clips that get background noise (0.8 in the same recipes).
        snr_low_db: smallest ratio of the clip's energy to the noise's, dB.
        snr_high_db: largest such ratio, dB.
        time_masks: stretches of frames masked in each clip (SpecAugment, arXiv 1904.08779).
        time_mask_frames: largest length of such a stretch, frames.
        mel_masks: groups of neighbouring mel bands masked in each clip.
        mel_mask_bands: largest width of such a group, bands.
    """

    shift_ms: float = 100.0
    gain_db: float = 10.0
    noise_probability: float = 0.8
    snr_low_db: float = 0.0
    snr_high_db: float = 30.0
    time_masks: int = 2
    time_mask_frames: int = 10
    mel_masks: int = 2
    mel_mask_bands: int = 5

    def wave(self, wave: Tensor, noise: Tensor) -> Tensor:
        """Shift, add noise from random places of `noise` (M,) float, change the level: (B, N) to (B, N)."""
        batch, samples = wave.shape
        reach = round(self.shift_ms * SAMPLE_RATE / 1000)
        if reach:
            wave = _windows(torch.nn.functional.pad(wave, (reach, reach)), samples, 2 * reach + 1)
        if len(noise) >= samples and self.noise_probability:
            start = torch.randint(len(noise) - samples + 1, (batch,), device=wave.device)
            background = noise.unfold(0, samples, 1)[start]
            snr_db = _uniform(batch, self.snr_low_db, self.snr_high_db, wave.device)
            ratio = _level(wave) / _level(background).clamp(min=1e-5) * 10 ** (-snr_db / 20)
            wave = wave + background * ratio * (torch.rand_like(ratio) < self.noise_probability)
        return wave * 10 ** (_uniform(batch, -self.gain_db, self.gain_db, wave.device) / 20)

    def log_mel(self, log_mel: Tensor) -> Tensor:
        """Put masked frames and bands at the clip's mean: (B, T, M) to (B, T, M)."""
        mean = log_mel.mean((1, 2), keepdim=True)
        masked = (log_mel - mean).unsqueeze(1)
        for axis, masks, size in (
            (2, self.time_masks, self.time_mask_frames),
            (3, self.mel_masks, self.mel_mask_bands),
        ):
            for _ in range(masks):
                masked = mask_along_axis_iid(masked, size + 1, 0.0, axis)  # it draws a length below its argument
        return masked.squeeze(1) + mean


def _windows(wave: Tensor, size: int, places: int) -> Tensor:
    """A window of `size` samples at a random place of each row."""
    start = torch.randint(places, (len(wave),), device=wave.device)
    return wave.unfold(1, size, 1)[torch.arange(len(wave), device=wave.device), start]


def _uniform(batch: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty(batch, 1, device=device).uniform_(low, high)


def _level(wave: Tensor) -> Tensor:
    return wave.square().mean(1, keepdim=True).sqrt()
