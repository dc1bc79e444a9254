"""Give source windows the look of target windows without touching their structure."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_transfer(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Replace the low frequencies' amplitudes of each source section by a target section's; the phase stays.

    Parameters
    ----------
    source, target : (B, C, [Z,] Y, X)
        Of one shape.
    beta : float
        Half side of the exchanged square as a share of the shorter side, b = floor(beta * min(Y, X)); where b is 0 only
        the mean is exchanged.

    Returns
    -------
    Tensor like ``source``, float32

    References
    ----------
    .. [1] Yang & Soatto (2020), FDA: Fourier domain adaptation for semantic segmentation, CVPR.
    """
    height, width = source.shape[-2:]
    reach = int(beta * min(height, width))
    ours = torch.fft.fft2(source.float())
    theirs = torch.fft.fft2(target.float())
    y = torch.fft.fftfreq(height, 1 / height, device=source.device).abs() <= reach
    x = torch.fft.fftfreq(width, 1 / width, device=source.device).abs() <= reach
    amplitude = torch.where(y[:, None] & x[None, :], theirs.abs(), ours.abs())
    # exp(i phase) as a quotient: an angle would be undefined where the amplitude is 0, and 0 stays real this way
    size = ours.abs()
    phase = torch.where(size > 0, ours / size.clamp_min(1e-30), torch.ones_like(ours))
    mixed: Tensor = torch.fft.ifft2(amplitude * phase).real
    return mixed.contiguous(memory_format=torch.channels_last) if source.ndim == 4 else mixed
