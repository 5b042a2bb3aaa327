"""Augmentation of whole batches on the training device, on log mel frames: speed, voice, shift, noise, gain, masks, new words.

In: log mel frames (B, T, M) of recorded clips. Out: the same shape. The powers of two sounds add (in the mean their cross term is
zero), so frames are computed once and noise is mixed into their bands, not into waves: a training step needs no FFT. All
draws come from torch's global generator of the device, which training seeds anew each step. It does not know models.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchaudio.functional import mask_along_axis_iid


@dataclass(frozen=True)
class Augmentation:
    """How much a training clip may differ from the recorded one; zeros change nothing.

    Args:
        speed: largest relative change of speed to either side (0.1 in Ko et al., Audio augmentation for speech
            recognition, 2015).
        voice: largest relative stretch of the mel axis to either side, as if another vocal tract had spoken (Jaitly and Hinton,
            Vocal tract length perturbation, 2013, who stretch up to 0.1).
        shift_frames: largest shift in time to either side, frames; silence fills the gap (10 frames are the 100 ms of
            kws_streaming and BC-ResNet).
        gain_db: largest change of level to either side, dB.
        noise_probability: share of clips that get background noise (0.8 in the same recipes).
        snr_low_db: smallest ratio of the clip's energy to the noise's, dB.
        snr_high_db: largest such ratio, dB.
        time_masks: stretches of frames masked in each clip (SpecAugment, arXiv 1904.08779).
        time_mask_frames: largest length of such a stretch, frames.
        mel_masks: groups of neighbouring mel bands masked in each clip.
        mel_mask_bands: largest width of such a group, bands.
        strange: share of the unknown clips that are made into words nobody said, see `make_strange`.
    """

    speed: float = 0.0
    voice: float = 0.0
    shift_frames: int = 10
    gain_db: float = 10.0
    noise_probability: float = 0.8
    snr_low_db: float = 5.0
    snr_high_db: float = 40.0
    time_masks: int = 0
    time_mask_frames: int = 10
    mel_masks: int = 0
    mel_mask_bands: int = 5
    strange: float = 0.0

    def __call__(self, log_mel: Tensor, noise: Tensor, log_floor: float) -> Tensor:
        """Change speed and voice, shift, add noise, change the level, mask.

        Args:
            log_mel: (B, T, M) log(power + log_floor).
            noise: (K, M) the same of background noise, at places that are drawn; with fewer than T frames none is added.
            log_floor: of the features.
        """
        if self.speed or self.voice:
            log_mel = _stretch(log_mel, self.speed, self.voice, log_floor)
        power = _power(log_mel, log_floor)
        if self.shift_frames:
            power = _shift(power, self.shift_frames)
        if len(noise) >= power.shape[1] and self.noise_probability:
            start = torch.randint(len(noise) - power.shape[1] + 1, (len(power), 1), device=power.device)
            background = _power(noise[start + torch.arange(power.shape[1], device=power.device)], log_floor)
            snr_db = _uniform(len(power), self.snr_low_db, self.snr_high_db, power.device)
            ratio = _level(power) / _level(background).clamp(min=1e-9) * 10 ** (-snr_db / 10)
            power = power + background * ratio * (torch.rand_like(ratio) < self.noise_probability)
        gain = 10 ** (_uniform(len(power), -self.gain_db, self.gain_db, power.device) / 10)
        return self._mask(torch.log(power * gain + log_floor))

    def make_strange(self, log_mel: Tensor, unknown: Tensor) -> Tensor:
        """Make words that nobody said: in use unknown is any word at all, not one of those that the corpus has.

        A quarter is played backwards; a quarter has another unknown word spoken over it; a quarter goes on as another unknown
        word from somewhere in its middle third; a quarter begins as any clip of the batch and goes on as an unknown word. Of the
        last few hold a short command whole: the price of teaching that the beginning of a command is none.

        Args:
            log_mel: (B, T, M).
            unknown: (B,) bool, which clips are unknown words.
        """
        places = unknown.nonzero()[:, 0]
        chosen = places[torch.rand(len(places), device=places.device) < self.strange]
        if not len(chosen):
            return log_mel
        batch, frames = len(chosen), log_mel.shape[1]

        def draw(below: int) -> Tensor:
            return torch.randint(below, (batch,), device=places.device)

        word, other, any_clip = log_mel[chosen], log_mel[places[draw(len(places))]], log_mel[draw(len(log_mel))]
        before = torch.arange(frames, device=places.device)[:, None] < frames // 3 + draw(frames // 3)[:, None, None]
        kinds = torch.stack(
            (
                word.flip(1),
                torch.logaddexp(word, other),
                torch.where(before, word, other),
                torch.where(before, any_clip, other),
            )
        )
        return log_mel.index_copy(0, chosen, kinds[draw(len(kinds)), torch.arange(batch, device=places.device)])

    def _mask(self, log_mel: Tensor) -> Tensor:
        """Put masked frames and bands at the clip's mean: (B, T, M) to (B, T, M)."""
        if not self.time_masks and not self.mel_masks:
            return log_mel
        mean = log_mel.mean((1, 2), keepdim=True)
        masked = (log_mel - mean).unsqueeze(1)
        for axis, masks, size in (
            (2, self.time_masks, self.time_mask_frames),
            (3, self.mel_masks, self.mel_mask_bands),
        ):
            for _ in range(masks):
                masked = mask_along_axis_iid(masked, size + 1, 0.0, axis)  # it draws a length below its argument
        return masked.squeeze(1) + mean


def _power(log_mel: Tensor, log_floor: float) -> Tensor:
    return (log_mel.exp() - log_floor).clamp(min=0)


def _stretch(log_mel: Tensor, speed: float, voice: float, log_floor: float) -> Tensor:
    """Stretch each clip (B, T, M) in time about its middle and in mel from its lowest band; silence fills what is left."""
    batch, frames, bands = log_mel.shape
    time = torch.linspace(-1, 1, frames, device=log_mel.device) * (1 + _uniform(batch, -speed, speed, log_mel.device))
    mel = (torch.linspace(0, 2, bands, device=log_mel.device) * (1 + _uniform(batch, -voice, voice, log_mel.device))).clamp(
        max=2
    ) - 1
    grid = torch.stack((mel.expand(-1, frames, -1), time.transpose(1, 2).expand(-1, -1, bands)), -1)
    silence = math.log(log_floor)
    moved: Tensor = grid_sample((log_mel - silence).unsqueeze(1), grid, align_corners=True)
    return moved[:, 0] + silence


def _shift(power: Tensor, reach: int) -> Tensor:
    """Move each clip (B, T, M) by a random number of frames up to `reach` to either side."""
    batch, frames, _ = power.shape
    source = torch.arange(frames, device=power.device) + torch.randint(-reach, reach + 1, (batch, 1), device=power.device)
    moved = power[torch.arange(batch, device=power.device)[:, None], source.clamp(0, frames - 1)]
    return moved * ((source >= 0) & (source < frames)).unsqueeze(-1)


def _uniform(batch: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty(batch, 1, 1, device=device).uniform_(low, high)


def _level(power: Tensor) -> Tensor:
    return power.mean((1, 2), keepdim=True)
