"""MFCC frames from a wave, causally: the same numbers for a whole clip, a stream, training and deployment.

In: float wave (B, N) at 16 kHz. Out: features (B, T, F), one frame every `hop_ms`. Frame t ends with sample (t + 1) * hop and
sees nothing after it; before the first sample lies silence. It does not know what comes after: no clip, no labels, no stacking.
"""

import math

import torch
from torch import Tensor, nn

from speechrnn.audio import SAMPLE_RATE


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients (Davis and Mermelstein 1980), normalised by the training set's mean and deviation.

    The window, the mel and DCT matrices and the normalisation are buffers, so a saved model carries its front end.

    Args:
        window_ms: length of the Hann window, ms.
        hop_ms: distance between frames, ms; at most the window.
        fft_size: points of the FFT; at least the samples of the window.
        mel_low_hz: lower edge of the lowest mel band, Hz.
        mel_high_hz: upper edge of the highest mel band, Hz; at most half the sample rate.
        mel_bands: number of triangular mel filters (HTK's mel scale, peaks at 1).
        coefficients: number F of DCT coefficients kept; at most `mel_bands`.
        log_floor: added to each band's power (full scale is 1) before the logarithm, so that digital silence is finite.
        group: frames come in multiples of this many; audio that does not fill one waits in `past`.

    Raises:
        ValueError: if the settings contradict each other.
    """

    window: Tensor
    mel: Tensor
    dct: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        window_ms: float,
        hop_ms: float,
        fft_size: int,
        mel_low_hz: float,
        mel_high_hz: float,
        mel_bands: int,
        coefficients: int,
        log_floor: float,
        group: int = 1,
    ) -> None:
        super().__init__()
        self.window_size = round(window_ms * SAMPLE_RATE / 1000)
        self.hop = round(hop_ms * SAMPLE_RATE / 1000)
        if not 0 < self.hop <= self.window_size <= fft_size:
            raise ValueError(
                f"hop_ms ({self.hop} samples), window_ms ({self.window_size}) and fft_size ({fft_size}) must grow in this order"
            )
        if not 0 <= mel_low_hz < mel_high_hz <= SAMPLE_RATE / 2:
            raise ValueError(
                f"mel bands from {mel_low_hz} to {mel_high_hz} Hz: expected a range inside 0 to {SAMPLE_RATE / 2:.0f} Hz"
            )
        if log_floor <= 0:
            raise ValueError(f"log_floor is {log_floor}: expected more than 0, for the logarithm of digital silence")
        if not 0 < coefficients <= mel_bands:
            raise ValueError(f"coefficients is {coefficients}: expected 1 to mel_bands ({mel_bands})")
        self.fft_size, self.log_floor, self.group = fft_size, log_floor, group
        self.mel_range_hz = (mel_low_hz, mel_high_hz)
        self.register_buffer("window", torch.empty(self.window_size))
        self.register_buffer("mel", torch.empty(fft_size // 2 + 1, mel_bands))
        self.register_buffer("dct", torch.empty(mel_bands, coefficients))
        self.register_buffer("mean", torch.zeros(coefficients))
        self.register_buffer("std", torch.ones(coefficients))
        if not self.mel.is_meta:  # on `meta` the values are about to be loaded, and torchaudio's import is saved
            self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill window, mel and DCT matrices from the settings."""
        from torchaudio.functional import create_dct, melscale_fbanks

        self.window.copy_(torch.hann_window(self.window_size))
        bins, bands = self.mel.shape
        self.mel.copy_(melscale_fbanks(bins, *self.mel_range_hz, bands, SAMPLE_RATE))
        self.dct.copy_(create_dct(self.dct.shape[1], bands, norm="ortho"))

    @property
    def multiplications(self) -> int:
        """Real multiplications for one frame: window, FFT, mel and DCT matrices.

        An FFT of N points counts 2 N log2 N: N / 2 log2 N butterflies of one complex product each, of four real ones (Cooley and
        Tukey 1965; of a real wave half of it would do). The mel matrix counts as it is computed, zeros and all. What is done once
        to each number, power, logarithm and normalisation, is not counted.
        """
        return self.window_size + round(2 * self.fft_size * math.log2(self.fft_size)) + self.mel.numel() + self.dct.numel()

    def initial_past(self, batch: int) -> Tensor:
        """The silence before the first sample: zeros (B, window - hop)."""
        return self.window.new_zeros(batch, self.window_size - self.hop)

    def frames(self, wave: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cut a wave into overlapping frames, each complete when its last sample is there.

        Args:
            wave: (B, N) float, full scale +-1.
            past: (B, P) audio that earlier calls left over; None at the start of a stream.

        Returns:
            The frames (B, T, window), not yet windowed, and the past for the next call.
        """
        audio = torch.cat((self.initial_past(len(wave)) if past is None else past, wave), dim=1)
        stride = self.hop * self.group
        groups = (audio.shape[1] - (self.window_size - self.hop)) // stride
        if groups == 0:
            return audio.new_empty(len(audio), 0, self.window_size), audio
        used = self.window_size - self.hop + groups * stride
        return audio[:, :used].unfold(1, self.window_size, self.hop), audio[:, groups * stride :]

    def log_mel(self, frames: Tensor) -> Tensor:
        """Logarithm of the power in each mel band: (B, T, window) to (B, T, mel_bands).

        In float32 even under autocast: half precision ends at 65,504, the power of a loud frame does not.
        """
        if frames.shape[1] == 0:  # MKL refuses an FFT of nothing
            return frames.new_empty(len(frames), 0, self.mel.shape[1])
        with torch.autocast(frames.device.type, enabled=False):
            spectrum = torch.fft.rfft(frames.float() * self.window, self.fft_size)
            power = spectrum.real.square() + spectrum.imag.square()
            return torch.log(power @ self.mel + self.log_floor)

    def cepstrum(self, log_mel: Tensor) -> Tensor:
        """Normalised DCT coefficients: (B, T, mel_bands) to (B, T, F)."""
        with torch.autocast(log_mel.device.type, enabled=False):
            return (log_mel @ self.dct - self.mean) / self.std

    def forward(self, wave: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) of a wave (B, N), and the past for the next call."""
        frames, past = self.frames(wave, past)
        return self.cepstrum(self.log_mel(frames)), past
