"""What a network in training finds where somebody looks: one window of one section, in the volume's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_em_da.events import Event, Preview
from napari_em_da.lazy import computed
from napari_em_da.models._base import SegmentationNet
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import Plan
from napari_em_da.workflows.segment import resize_sections, scale_factor, spacing_step

MOST_PX = 512  # side of the window, in the network's pixels: what costs less than the validation it comes with

Region = tuple[slice, slice, slice]
Predict = Callable[[Tensor], Tensor]


class Watch:
    """Predicts at each validation what is in view; for the ``look`` of ``train`` and ``adapt``.

    Parameters
    ----------
    region : callable
        Returns the section (the middle one, if several) and the window that the user sees, in voxels of the first
        target volume, or of the first labelled one where there is no target; None for nothing. It is called in the
        job's thread.
    """

    def __init__(self, region: Callable[[], Region | None]) -> None:
        self._region = region

    def __call__(self, plan: Plan, network: SegmentationNet, predict: Predict, step: int) -> Iterator[Event]:
        """Yield one Preview named ``view``, of the label values of the classes, or nothing."""
        wanted = self._region()
        volume = plan.target[0] if plan.target else plan.source[0].image if plan.source else None
        if wanted is None or volume is None:
            return
        factor = scale_factor(volume, plan.pixel_nm)
        region = within(volume.shape, wanted, round(MOST_PX / (factor or 1.0)))
        if region is None:
            return
        step_z, _ = spacing_step(volume, plan.section_nm)
        depth = plan.patch[0] if network.ndim == 3 else 1
        found = indices(predict, network, volume, region, factor, depth, step_z)
        values = np.array([0, *(members[0] for members in plan.config.classes.values())])
        z, y, x = (part.start for part in region)
        yield Preview("view", "labels", values[found], step, origin=(z, y, x))


def indices(
    predict: Predict,
    network: SegmentationNet,
    volume: Volume,
    region: Region,
    factor: float | None = None,
    depth: int = 1,
    section_step: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """Return the class indices (Y, X) of a window of one section, in the volume's pixels.

    Parameters
    ----------
    predict : callable
        (1, 1, [Z,] Y, X) float32 to logits.
    region : (z, y, x) slices
        Its first section is predicted.
    factor : float, optional
        Network pixels per volume pixel.
    depth : int
        Sections that a 3D network sees at once, ``section_step`` sections of the volume apart.

    Notes
    -----
    The network sees nothing beyond the window, so that its rim may differ from a segmentation of the volume.
    """
    z, last = region[0].start, volume.shape[0] - 1
    sections = [min(max(z + round((i - depth // 2) * section_step), 0), last) for i in range(depth)]
    raw = np.concatenate([volume.read((slice(s, s + 1), *region[1:])) for s in sections])
    image = volume.intensity.standardise(raw)  # (Z, Y, X)
    own = image.shape[1:]
    if factor is not None:
        image = resized(image, tuple(max(1, round(n * factor)) for n in own))
    margin = (0,) * (3 - network.ndim) + tuple(network.margin_px)
    tensor = torch.from_numpy(np.pad(image, [(m, m) for m in margin], mode="symmetric"))[None, None]
    with torch.inference_mode():
        logits = predict(tensor if network.ndim == 3 else tensor[:, :, 0]).float()
    section = logits[0, :, depth // 2] if network.ndim == 3 else logits[0]  # (C, Y, X)
    probs = section.softmax(0).movedim(0, -1).cpu().numpy()
    if factor is not None:
        probs = resized(probs[None], own)[0]
    return np.asarray(probs.argmax(-1), np.uint8)


def resized(sections: npt.NDArray[np.float32], size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Resize sections (Z, Y, X[, C]) as a segmentation does."""
    import dask.array as da

    lazy = resize_sections(da.from_array(sections, chunks=(1, *sections.shape[1:])), size)
    return np.ascontiguousarray(computed(lazy), np.float32)


def within(shape: tuple[int, ...], region: Region, most: int) -> Region | None:
    """Return the part of a region that the volume holds: its middle section and middle ``most`` pixels at most."""
    parts = [slice(max(0, s.start), min(n, s.stop)) for s, n in zip(region, shape, strict=False)]
    if any(part.stop <= part.start for part in parts):
        return None
    z = (parts[0].start + parts[0].stop) // 2
    y, x = (_middle(part, most) for part in parts[1:])
    return slice(z, z + 1), y, x


def _middle(part: slice, most: int) -> slice:
    cut = max(0, part.stop - part.start - most) // 2
    return slice(part.start + cut, min(part.stop, part.start + cut + most))
