"""Strong changes of an image that leave its labels alone, as a student sees what its teacher sees clean."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.config import Fraction, NonNegative
from napari_em_da.methods._parts import AdaptationOptions

REACH = 2.5  # standardised images are taken to span about -2.5 to 2.5; the intensity curve keeps these two ends
TRUNCATE = 3.0  # standard deviations at which the blur's kernel ends


class PerturbOptions(AdaptationOptions):
    """How strongly the student's images are changed; a method that perturbs extends these options."""

    perturb: NonNegative = Field(1.0, description="Scales all changes of the student's images; 0 leaves them as is")
    perturb_share: Fraction = Field(0.8, description="Probability of each change, per window")
    contrast: NonNegative = Field(0.4, description="Largest logarithm of the gain")
    brightness: NonNegative = Field(0.5, description="Largest shift, in standard deviations of the volume")
    curve: NonNegative = Field(0.4, description="Largest logarithm of the exponent of the intensity curve")
    blur_px: NonNegative = Field(1.5, description="Largest sigma of the Gaussian blur in the plane")
    noise: NonNegative = Field(0.3, description="Largest sigma of the noise, in standard deviations of the volume")
    cutouts: Annotated[int, Field(ge=0, le=64)] = Field(2, description="Rectangles filled with the mean")
    cutout_side: Fraction = Field(0.25, description="Largest side of a rectangle, as a fraction of the window's")
    invert: Fraction = Field(0.0, description="Probability of inverting the contrast of the student's images")
    per_section: bool = Field(False, description="3D: change every section on its own rather than the whole window")


def perturb(image: Tensor, options: PerturbOptions) -> Tensor:
    """Change each window by curve, gain and shift, blur, noise, cut-outs and perhaps inversion; nothing moves.

    Parameters
    ----------
    image : (B, C, [Z,] Y, X) float32
        Standardised; not modified. The channels of a window change alike, except for the noise.
    options : PerturbOptions
        Strengths are the ends of uniform distributions around no change.

    Returns
    -------
    Tensor
        Of the same shape; ``image`` itself where ``options.perturb`` is 0. Drawn from torch's default generator.
    """
    if not options.perturb:
        return image
    windows = image.shape[0]
    depth = image.shape[2] if image.ndim == 5 else 1
    flat = image.transpose(1, 2).flatten(0, 1) if image.ndim == 5 else image  # (B*Z, C, Y, X)
    draws = _Draws(len(flat), 1 if options.per_section else depth, options, image.device)
    with torch.autocast(image.device.type, enabled=False):
        flat = _change(flat.float(), options, draws)
    return flat.unflatten(0, (windows, depth)).transpose(1, 2) if image.ndim == 5 else flat


class _Draws:
    """Random strengths (N, 1, 1, 1), one per window or section, 0 where the coin of the change says no."""

    def __init__(self, count: int, repeat: int, options: PerturbOptions, device: torch.device) -> None:
        self.count = count
        self.repeat = repeat
        self.options = options
        self.device = device

    def uniform(self, *further: int) -> Tensor:
        """Uniform in [0, 1): (N, *further), the same for the sections that change together."""
        drawn = torch.rand(self.count // self.repeat, *further, device=self.device)
        return drawn.repeat_interleave(self.repeat, 0)

    def coin(self, *further: int) -> Tensor:
        return (self.uniform(*further) < self.options.perturb_share).float()

    def around_zero(self, strength: float) -> Tensor:
        """Between minus and plus ``strength``."""
        return (2 * self.uniform(1, 1, 1) - 1) * self.options.perturb * strength * self.coin(1, 1, 1)

    def up_to(self, strength: float) -> Tensor:
        """Between 0 and ``strength``."""
        return self.uniform(1, 1, 1) * self.options.perturb * strength * self.coin(1, 1, 1)


def _change(image: Tensor, o: PerturbOptions, draws: _Draws) -> Tensor:
    if o.curve:
        image = bend(image, draws.around_zero(o.curve).exp())
    if o.contrast:
        image = image * draws.around_zero(o.contrast).exp()
    if o.brightness:
        image = image + draws.around_zero(o.brightness)
    if o.invert:
        image = torch.where(draws.uniform(1, 1, 1) < o.invert, -image, image)
    if o.blur_px:
        image = blur(image, draws.up_to(o.blur_px), o.blur_px * o.perturb)
    if o.noise:
        image = image + draws.up_to(o.noise) * torch.randn_like(image)
    if o.cutouts and o.cutout_side:
        image = torch.where(rectangles(image, o, draws), image.mean((2, 3), keepdim=True), image)
    return image


def bend(image: Tensor, exponent: Tensor) -> Tensor:
    """Raise intensities, as fractions of the range from -2.5 to 2.5, to a power; fractions below 0 keep their sign."""
    fraction = (image + REACH) / (2 * REACH)
    return torch.where(exponent == 1, image, fraction.sign() * fraction.abs() ** exponent * (2 * REACH) - REACH)


def blur(image: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur in the plane with a sigma (N, 1, 1, 1) of its own for each image (N, C, Y, X), edges replicated."""
    count, channels = image.shape[:2]
    radius = max(1, int(TRUNCATE * largest + 0.5))
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma.clamp(min=1e-3)) ** 2)  # sigma 0 leaves the middle tap alone
    kernel = (kernel / kernel.sum(3, keepdim=True)).repeat_interleave(channels, 0)  # (N*C, 1, 1, taps)
    flat = image.flatten(0, 1)[None]  # one image with N*C channels, so that each has a kernel of its own
    for taps, pad in ((kernel, (radius, radius, 0, 0)), (kernel.transpose(2, 3), (0, 0, radius, radius))):
        flat = F.conv2d(F.pad(flat, pad, mode="replicate"), taps, groups=count * channels)
    return flat.view(image.shape)


def rectangles(image: Tensor, o: PerturbOptions, draws: _Draws) -> Tensor:
    """Draw where rectangles lie: (N, 1, Y, X) bool; sides are at least a quarter of the largest."""
    inside: list[Tensor] = []
    for length in image.shape[2:]:
        side = min(1.0, o.cutout_side * o.perturb) * length * (0.25 + 0.75 * draws.uniform(o.cutouts, 1))
        centre = draws.uniform(o.cutouts, 1) * length
        at = torch.arange(length, device=image.device) + 0.5
        inside.append((at - centre).abs() < side / 2)  # (N, cutouts, length)
    rows, columns = inside
    rows = rows & draws.coin(o.cutouts, 1).bool()
    return (rows[..., :, None] & columns[..., None, :]).any(1, keepdim=True)
