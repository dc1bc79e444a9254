"""Feature alignment: which features of a network are aligned, how strongly, and what stands for their distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from napari_em_da.catalog import unknown
from napari_em_da.config import NonNegative
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Setup
from napari_em_da.methods._parts import AdaptationOptions, Part, Views

Profile = Literal["bottleneck", "geometric", "encoder"]


class AlignmentOptions(AdaptationOptions):
    """Options of every method that aligns features."""

    lambda_total: NonNegative = Field(0.1, description="Weight of the alignment, shared among the levels")
    profile: Profile = Field(
        "bottleneck", description="Encoder levels aligned: the deepest, all with weights doubling towards it, all alike"
    )
    decoder_taps: tuple[str, ...] = Field(
        (), description="Decoder features to align too (dec0 is the finest), each with the weight of the bottleneck"
    )


def keeps(options: AlignmentOptions) -> float:
    """Return of how many passes a step keeps the activations: the encoder's are about half."""
    windows = options.windows if isinstance(options, DistanceOptions) else 1.0
    return 1 + windows if options.decoder_taps else 1 + windows / 2


class DistanceOptions(AlignmentOptions):
    """Options of methods that measure a distance between two samples of feature vectors."""

    positions: Annotated[int, Field(ge=2, le=8192)] = Field(
        1024, description="Feature vectors drawn per domain and level; all of them where there are fewer"
    )
    windows: Annotated[float, Field(gt=0, le=1)] = Field(
        0.375, description="Share of the target windows that features are taken from, of two at least"
    )


def tap_lambdas(taps: Sequence[str], options: AlignmentOptions) -> dict[str, float]:
    """Return the weight of each feature that is aligned; they add up to ``lambda_total``.

    Parameters
    ----------
    taps : sequence of str
        Names of the network's features in its own order: encoder, ``bottleneck``, decoder.

    Raises
    ------
    ConfigError
        If ``decoder_taps`` names a feature that the decoder does not have, or one twice.
    """
    bottom = taps.index("bottleneck")
    if options.profile == "bottleneck":
        shares = {"bottleneck": 1.0}
    else:
        base = 2.0 if options.profile == "geometric" else 1.0
        shares = {tap: base ** (level - bottom) for level, tap in enumerate(taps[: bottom + 1])}
    for tap in options.decoder_taps:
        if tap not in taps[bottom + 1 :]:
            raise ConfigError(unknown("decoder tap", tap, tuple(taps[bottom + 1 :])))
        if tap in shares:
            raise ConfigError(f"decoder_taps names {tap!r} twice; give it once.")
        shares[tap] = 1.0
    whole = sum(shares.values())
    return {tap: options.lambda_total * share / whole for tap, share in shares.items()}


def sample_positions(features: Tensor, n: int) -> Tensor:
    """Draw the feature vectors (n, C) float32 of ``n`` different positions of (B, C, …), uniform over batch and space.

    Samples are positions and dimensions are channels: a whole image as one sample would leave as many samples as the
    batch has images.
    """
    flat = features.flatten(2)  # (B, C, P)
    places = flat.shape[2]
    index = torch.randperm(flat.shape[0] * places, device=features.device)[:n]
    drawn: Tensor = flat[index // places, :, index % places]  # (n, C)
    return drawn.float()


class Distance(Part):
    """Bring the feature distributions of both domains together by a distance between samples of both.

    Unless decoder features are aligned too, only the encoder runs on the target, on a share of its windows
    (``windows``); its statistics of the decoder are then filled without gradients in every other step.

    The distance of every aligned level is logged un-weighted as ``<name>_<level>``, with ``lambda_total`` 0 too.
    """

    name: str

    def __init__(self, setup: Setup, options: DistanceOptions) -> None:
        super().__init__()
        self.positions, self.windows = options.positions, options.windows
        self.lambdas = tap_lambdas(tuple(setup.network.tap_channels), options)
        self.whole = bool(options.decoder_taps)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the distance () between two samples (n, C)."""
        raise NotImplementedError

    def losses(self, views: Views) -> Losses:
        """Return one term per aligned level; both domains give the same number of positions."""
        source, target = views.on_source[1], views.target_encoded
        found: Losses = {}
        for tap, weight in self.lambdas.items():
            pair = source[tap], target[tap]
            n = min(self.positions, *(features[:, 0].numel() for features in pair))
            if n < 2:
                raise DataError(f"{self.name} found {n} position at {tap}, needs 2; enlarge the patch or the batch.")
            drawn = (sample_positions(features, n) for features in pair)
            # products of features lose too many digits in bf16
            with torch.autocast(views.source.image.device.type, enabled=False):
                found[f"{self.name}_{tap}"] = Term(self.distance(*drawn), weight)
        return found
