"""Two streams: each microscope has an encoder of its own, both related by simple maps, and one decoder for both.

When it helps: the microscopes are so different that one encoder cannot serve both.

When it fails: there are few target windows: a second encoder has much to learn from them without labels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_em_da.config import Fraction, NonNegative
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Player, Setup
from napari_em_da.methods._features import sample_positions
from napari_em_da.methods._parts import AdaptationOptions
from napari_em_da.methods.coral import coral
from napari_em_da.methods.mmd import mmd2
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._statistics import DomainStatistics
from napari_em_da.models._unet import UNet
from napari_em_da.sampling import Sample


class TwoStreamOptions(AdaptationOptions):
    """Options of the two streams."""

    lambda_features: NonNegative = Field(0.1, description="Weight of the distance of the decoder's last features")
    lambda_weights: NonNegative = Field(1e3, description="Weight of the residual between both encoders' weights")
    distance: Literal["mmd", "coral"] = Field("mmd", description="How the features of both domains are compared")
    positions: Annotated[int, Field(ge=2, le=8192)] = Field(512, description="Feature vectors drawn per domain")
    share_from_level: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Both domains share the encoder from this level on (0 is the finest); none by default"
    )
    warm_up: Fraction = Field(0.25, description="Share of the steps before the target's encoder branches off")


class TwoStream(Method):
    r"""Train a source encoder and a target encoder, kept similar, in front of one decoder.

    .. math:: L = L_s + \lambda_o L_d(f_s, f_t) + \lambda_w R, \quad
        R = \frac1M \sum_j \|a_j \theta^s_j + b_j - \theta^t_j\|^2

    with one learnable pair of numbers :math:`a_j, b_j` per tensor of weights and :math:`M` weights in all.

    Notes
    -----
    ``network`` is the target's stream, so that a run validates, averages and saves a plain network; the method holds
    what else the source needs, and lends it to the network for the source's passes. The average of the weights
    (``training.ema``) follows the target's stream, which is what a run is for; the source's encoder has none, so that
    windows of the source are segmented by its encoder of the moment in front of the averaged decoder.

    Departures from [1]_ and [2]_: one pair of numbers per tensor and not per weight, with which the residual would
    vanish for any target encoder; the two streams are one until ``warm_up`` has passed, in place of a separate
    training on the source; target labels take no part. The residual is a mean over millions of weights, each of which
    therefore feels little of it: ``lambda_weights`` is large for that reason. A hundred times the default held back
    the source's encoder as well on the phantom. Running statistics are not weights.

    References
    ----------
    .. [1] Bermúdez-Chacón et al. (2018), A domain-adaptive two-stream U-Net for electron microscopy image
       segmentation, ISBI.
    .. [2] Roels et al. (2019), Domain adaptive segmentation in volume electron microscopy imaging, ISBI.
    """

    network: UNet
    branched: Tensor

    def __init__(self, setup: Setup, options: TwoStreamOptions) -> None:
        super().__init__(setup)
        self.options = options
        depth = own_levels(setup.network, options.share_from_level)
        self.source_blocks = copy.deepcopy(self.network.encoder.blocks[:depth])
        count = len(self.pairs())
        self.scale = nn.Parameter(torch.zeros(count))  # a_j - 1: weight decay pulls towards no change
        self.shift = nn.Parameter(torch.zeros(count))  # b_j
        self.source_statistics = DomainStatistics(self._shared()) if options.statistics == "per_domain" else None
        self.register_buffer("branched", torch.tensor(False))

    def players(self) -> dict[str, Player]:
        """One player for both streams and the maps between them."""
        return {"network": Player(self)}

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the source loss, after the warm-up with what relates the two streams."""
        o, source = self.options, batch["source"]
        apart = bool(o.lambda_features or o.lambda_weights) and step >= o.warm_up * self.steps
        if apart and not self.branched:
            self._branch()
        losses: Losses = {}
        with self.segmenting("source") as network:
            logits, on_source = network.forward_taps(source.image)
        for name, term in self.loss(logits, source.annotation, source.weights).items():
            losses[name] = Term(term.value, o.lambda_sup * term.weight)
        if apart:
            with torch.set_grad_enabled(bool(o.lambda_features)):  # its statistics follow the target in any case
                _, on_target = self.network.forward_taps(batch["target"].image)
            distance = self._distance(on_source["dec0"], on_target["dec0"])
            losses[f"{o.distance}_dec0"] = Term(distance, o.lambda_features)
            losses["weight_residual"] = Term(residual(self.pairs(), 1 + self.scale, self.shift), o.lambda_weights)
        yield "network", losses

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the weights (source, target) of both encoders, tensor by tensor."""
        ours = self.network.encoder.blocks[: len(self.source_blocks)]
        return list(zip(self.source_blocks.parameters(), ours.parameters(), strict=True))

    @contextmanager
    def segmenting(self, domain: str | None = None) -> Iterator[SegmentationNet]:
        """Lend the network, with the source's blocks and statistics in it where ``domain`` is the source."""
        if domain != "source" or not self.branched:
            yield self.network
            return
        self._exchange()
        try:
            if self.source_statistics is None:
                yield self.network
            else:
                with self.source_statistics.applied(self._shared()):
                    yield self.network
        finally:
            self._exchange()

    def _exchange(self) -> None:
        blocks = self.network.encoder.blocks
        for level, own in enumerate(self.source_blocks):
            self.source_blocks[level], blocks[level] = blocks[level], own

    def _shared(self) -> nn.Module:
        """What both streams run through."""
        network = self.network
        return nn.ModuleList([*network.encoder.blocks[len(self.source_blocks) :], network.decoder, network.head])

    def _branch(self) -> None:
        """Begin the source's stream as a copy of the network's; from here on that is the target's."""
        self.source_blocks.load_state_dict(self.network.encoder.blocks[: len(self.source_blocks)].state_dict())
        if self.source_statistics is not None:
            self.source_statistics.load_state_dict(DomainStatistics(self._shared()).state_dict())
        self.branched.fill_(True)

    def _distance(self, source: Tensor, target: Tensor) -> Tensor:
        n = min(self.options.positions, *(features[:, 0].numel() for features in (source, target)))
        if n < 2:
            raise DataError(f"two_stream found {n} position in the features, needs 2; enlarge the patch or the batch.")
        drawn = [sample_positions(features, n) for features in (source, target)]
        measure = mmd2 if self.options.distance == "mmd" else coral
        with torch.autocast(source.device.type, enabled=False):  # products of features lose too many digits in bf16
            return measure(*drawn, scale_free=True)


def own_levels(network: SegmentationNet, share_from_level: int | None) -> int:
    """Return how many encoder levels each domain has of its own.

    Raises
    ------
    ConfigError
        If the network is not a U-Net, or has no such level.
    """
    if not isinstance(network, UNet):
        kind = type(network).__name__
        raise ConfigError(f"two_stream needs a U-Net, whose encoder it doubles, not a {kind}; choose the network unet.")
    bottom = len(network.encoder.blocks) - 1
    if share_from_level is None:
        return bottom + 1
    if share_from_level > bottom:
        raise ConfigError(
            f"share_from_level is {share_from_level}, but the network's bottleneck is level {bottom}; "
            f"give 1 to {bottom}, or leave it out to share no level."
        )
    return share_from_level


def residual(pairs: Sequence[tuple[Tensor, Tensor]], a: Tensor, b: Tensor) -> Tensor:
    r"""Mean squared residual of weights under one affine map per tensor.

    .. math:: R = \frac1M \sum_j \|a_j \theta^s_j + b_j - \theta^t_j\|^2

    Parameters
    ----------
    pairs : sequence of (source, target)
        Weights :math:`\theta^s_j, \theta^t_j` of one shape; :math:`M` numbers on each side in all.
    a, b : Tensor (number of pairs,)

    Returns
    -------
    Tensor ()

    References
    ----------
    .. [1] Rozantsev, Salzmann and Fua (2018), Beyond sharing weights for deep domain adaptation, TPAMI 41.
    """
    maps = zip(pairs, a.unbind(), b.unbind(), strict=True)
    squares = [(scale * source + shift - target).square().sum() for (source, target), scale, shift in maps]
    return torch.stack(squares).sum() / sum(source.numel() for source, _ in pairs)


def build(setup: Setup, options: TwoStreamOptions) -> Method:
    """Build the method."""
    return TwoStream(setup, options)


METHOD = MethodSpec(build, TwoStreamOptions, streams=("source", "target"), keeps=lambda _: 2.1)
