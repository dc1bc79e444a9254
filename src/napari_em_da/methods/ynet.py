"""Y-Net: features that segment the source must also suffice to reconstruct both microscopes' images.

When it helps: much unlabelled target is at hand, from which features can be learned by reconstructing it.

When it fails: what reconstructs an image well (texture, noise) is not what tells the classes apart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.config import NonNegative
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Method, Player, Setup
from napari_em_da.methods._parts import AdaptationOptions, Part, Views, part_method
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._reconstruction import ReconstructionDecoder

DECODER = "reconstruction"  # the player


class YNetOptions(AdaptationOptions):
    """Options of the reconstruction."""

    lambda_rec: NonNegative = Field(1e-2, description="Weight of the mean squared error of both reconstructions")
    windows: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of both domains' windows that are reconstructed, of two at least"
    )


class YNet(Part):
    r"""Add :math:`\lambda_r\,\mathrm{MSE}(\hat x_s, x_s) + \lambda_r\,\mathrm{MSE}(\hat x_t, x_t)` to the source loss.

    Notes
    -----
    A second decoder, without skip connections, reconstructs the image from the network's bottleneck. It belongs to the
    method: the network of the run stays a plain U-Net, with or without Y-Net (see ``to_unet``).

    Encoder and decoder descend the same loss at the same weights, as one network would. They are two players only so
    that the run's network keeps its own gradient clipping; the decoder's one backward pass serves both.

    Departures from [1]_: images are standardised per volume, for which the default of ``lambda_rec`` is chosen. Their
    dropout of 0.25 is an option of the network (``dropout``), not of the method. To spare time, half of the windows of
    both domains are reconstructed (``windows``), and the segmentation's decoder sees the target in every other step
    only, for its statistics.

    References
    ----------
    .. [1] Roels et al. (2019), Domain adaptive segmentation in volume electron microscopy imaging, ISBI.
    """

    whole = False

    def __init__(self, setup: Setup, options: YNetOptions) -> None:
        super().__init__()
        self.weight, self.windows = options.lambda_rec, options.windows
        self.decoder = ReconstructionDecoder(setup.network)
        self._on_network: Losses = {}

    def players(self) -> dict[str, Player]:
        """The decoder has an optimiser of its own, scheduled like the network's."""
        return {DECODER: Player(self.decoder)}

    def rivals(self, views: Views) -> Iterator[tuple[str, Losses]]:
        """Yield the decoder's losses; the gradients that they have in the bottleneck are kept for the network."""
        self._on_network = {}
        if not self.weight:
            return
        parameters = list(self.decoder.parameters())
        on_decoder: Losses = {}
        count = views.count(self.windows)
        domains = ("source", views.source, views.on_source[1]), ("target", views.target, views.target_encoded)
        for domain, sample, taps in domains:
            features = taps["bottleneck"][:count]
            bottleneck = features.detach().requires_grad_()
            reconstruction, original = self.decoder.pair(bottleneck, sample.image[:count])
            error = F.mse_loss(reconstruction.float(), original.float())
            gradient, *gradients = torch.autograd.grad(error, [bottleneck, *parameters])
            name = f"reconstruction_{domain}"
            on_decoder[name] = Term(with_gradient(error, parameters, gradients), self.weight)
            felt = with_gradient(error, [features], [gradient])
            self._on_network[name] = Term(felt, self.weight)
        yield DECODER, on_decoder

    def losses(self, views: Views) -> Losses:
        """Return the same losses as the network sees them."""
        found, self._on_network = self._on_network, {}  # do not hold on to the graph
        return found


def with_gradient(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return the scalar ``value`` such that its gradients in ``inputs`` are those given, which are known already."""
    linear = torch.stack([(x.float() * g.float()).sum() for x, g in zip(inputs, gradients, strict=True)]).sum()
    return value.detach() + (linear - linear.detach())


def to_unet(method: Method) -> SegmentationNet:
    """Return a copy of the network that a method has trained, with the target's statistics and nothing else.

    It is what a run saves; fine-tuning on labels of the target goes on from it.
    """
    with method.segmenting("target") as network:
        return copy.deepcopy(network)


METHOD = part_method(YNet, YNetOptions, lambda options: 1.2 + options.windows / 2)
