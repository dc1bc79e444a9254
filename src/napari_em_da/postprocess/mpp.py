"""Morphological post-processing (MPP): objects persist from section to section, and drop-outs are repaired.

For 2D predictions of a stack of which some sections may be annotated (every fifth, say): what is known there
propagates into the sections between, and what contradicts both neighbours goes. After a poster on semi-supervised
segmentation of the EPFL mitochondria; its seven steps, restated in physical units. Without annotated sections only
those that compare neighbours apply, and these repair the output of any network.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Count, NonNegative, Positive
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Progress
from napari_em_da.lazy import computed
from napari_em_da.metrics._base import load
from napari_em_da.postprocess._base import Stack, Step, Work, per_block, whole_sections
from napari_em_da.postprocess._mpp import Order, Rule, Section, repaired
from napari_em_da.postprocess.z_filter import advice


class Options(Base):
    """Options of morphological post-processing."""

    channel: str | None = Field(None, description="Name of the class to repair; the second one of two if absent")
    min_area_nm2: NonNegative = Field(7500.0, description="Smaller pieces of a section are removed")
    propagation_area_nm2: NonNegative = Field(
        11250.0, description="What an annotated section propagates ends where it gets smaller than this"
    )
    erosion_nm: NonNegative = Field(15.0, description="What propagates shrinks by this ...")
    erosion_step_nm: Positive = Field(5.0, description="... per such a distance along z")
    radii: tuple[Count, ...] = Field((1, 2), description="Distances, in sections, of the neighbours compared with")
    order: Order = Field(
        "sequential", description="sequential: a section sees its predecessors as already changed; or all at once"
    )


def mpp(
    mask: npt.NDArray[Any],
    labelled: Sequence[int] = (),
    *,
    spacing: tuple[float, float, float],
    min_area_nm2: float = 7500.0,
    propagation_area_nm2: float = 11250.0,
    erosion_nm: float = 15.0,
    erosion_step_nm: float = 5.0,
    radii: Sequence[int] = (1, 2),
    order: Order = "sequential",
) -> npt.NDArray[np.bool_]:
    """Repair a binary volume section by section.

    With M_z the sections, a and b the nearest annotated ones before and after z, and pieces by edges of pixels:

    0. Remove the pieces of each predicted section that are smaller than ``min_area_nm2``.
    1. Propagate: E = M_b, and from section to section towards a, E is eroded and loses what is smaller than
       ``propagation_area_nm2``; M_z ← M_z ∨ E. The same from a towards b.
    2. M_z ← M_z ∧ (M_a ∨ M_b), and remove small pieces. 3. M_z ← M_z ∨ (M_a ∧ M_b), and remove small pieces.
    4. M_z ← M_z ∧ (M_{z−1} ∨ M_{z+1}), and remove small pieces. 5. M_z ← M_z ∨ (M_{z−1} ∧ M_{z+1}), and remove small
       pieces. 6, 7. The same with z ± 2.

    Steps 1 to 3 concern the sections between annotated ones; steps 4 to 7 those that have both neighbours.

    Parameters
    ----------
    mask : (Z, Y, X) bool or 0/1 integer
        The prediction, with the ground truth in the annotated sections.
    labelled : sequence of int
        The annotated sections, which never change.
    spacing : (z, y, x)
        Voxel size in nm.
    min_area_nm2, propagation_area_nm2 : float
        Pieces with area < this are removed; 0 keeps all.
    erosion_nm, erosion_step_nm : float
        What propagates loses ``erosion_nm`` at its outline (diamonds of pixels) per ``erosion_step_nm`` along z,
        rounded to whole pixels per section. The frame of the section does not erode.
    radii : sequence of int
        The distances k of steps 4 to 7, in this order: for each k, first ∧ and then ∨.
    order : {"sequential", "simultaneous"}
        Whether M_{z−k} is the section that the step has already changed, or the one before the step.

    Returns
    -------
    (Z, Y, X) bool

    Notes
    -----
    The authors' scripts run step 1 twice; E depends on the annotated sections only, so the second run changes nothing
    and is left out. They end step 7 at section 134 of 165, which is taken for a slip. Sections before the first
    annotated one are treated like those after the last.

    Raises
    ------
    DataError
        If the mask holds other numbers than 0 and 1.
    ConfigError
        If there is no section with an annotated number, or a radius is below 1.
    """
    if mask.dtype != np.bool_ and not np.isin(np.unique(mask), (0, 1)).all():
        raise DataError(f"The mask holds {mask.max()}, not only 0 and 1; choose a class, for example labels == 1.")
    outside = [z for z in labelled if not 0 <= z < len(mask)]
    if outside:
        raise ConfigError(f"Labelled sections {outside} lie outside 0 to {len(mask) - 1}.")
    rule = Rule.of(
        spacing,
        labelled,
        min_area_nm2=min_area_nm2,
        propagation_area_nm2=propagation_area_nm2,
        erosion_nm=erosion_nm,
        erosion_step_nm=erosion_step_nm,
        radii=radii,
        order=order,
    )
    sections = mask.astype(np.uint8, copy=False)
    result = np.empty(mask.shape, np.bool_)
    for z, section in enumerate(repaired(sections, sections.__getitem__, rule)):
        result[z] = section
    return result


def apply(stack: Stack, options: Options) -> Work:
    """Repair one class of a stack; other classes, and voxels that are not annotated (255), keep their places.

    A voxel that the class loses becomes background, one that it gains was background.

    Notes
    -----
    A lazy stack is streamed once through all steps and written, compressed, to ``stack.work``: in the sequential order
    every section depends on all before it. In the simultaneous order without annotated sections a section depends on
    few around it, and the result is lazy.
    """
    if options.channel is None and len(stack.classes) != 2:
        raise ConfigError(
            f"There are {len(stack.classes)} classes; say which one to repair: channel of {stack.classes}."
        )
    value = stack.channel(options.channel or stack.classes[1])
    rule = Rule.of(stack.nm(), stack.labelled, **options.model_dump(exclude={"channel"}))
    stack = whole_sections(stack)
    if stack.lazy and not (rule.sequential or rule.labelled):
        reach = min(2 * sum(rule.radii), stack.shape[0] - 1)
        return stack.with_data(
            per_block(stack, lambda block: np.stack([*_sections(block, value, rule)]), (reach, 0, 0))
        )
    out = _Written(stack) if stack.lazy else np.empty_like(stack.data)
    for z, section in enumerate(_sections(stack.data, value, rule)):
        out[z] = section
        yield Progress(z + 1, stack.shape[0], "sections", "morphological post-processing")
    return stack.with_data(out.lazily() if isinstance(out, _Written) else out)


def _sections(data: Any, value: int, rule: Rule) -> Iterator[npt.NDArray[Any]]:
    """Stream the repaired sections; labels wait here while their masks pass through the steps."""
    waiting: deque[npt.NDArray[Any]] = deque()

    def masks() -> Iterator[Section]:
        for labels in _read(data):
            waiting.append(labels)
            yield (labels == value).astype(np.uint8)

    def truth(z: int) -> Section:
        mask: Section = (load(data, (slice(z, z + 1),))[0] == value).astype(np.uint8)
        return mask

    for mask in repaired(masks(), truth, rule):
        yield _painted(waiting.popleft(), mask, value)


def _read(data: Any) -> Iterator[npt.NDArray[Any]]:
    """Yield sections, read chunk by chunk."""
    start = 0
    for size in data.chunks[0] if hasattr(data, "chunks") else (1,) * len(data):
        yield from load(data, (slice(start, start + size),))
        start += size


def _painted(labels: npt.NDArray[Any], mask: Section, value: int) -> npt.NDArray[Any]:
    """Return the labels with a class where the mask is, and background where it was but is no more."""
    painted = np.where(labels == value, labels.dtype.type(0), labels)
    painted[(painted == 0) & (mask > 0)] = value
    return painted


class _Written:
    """Sections of a lazy stack on disk; a temporary folder is deleted with the last array that reads from it."""

    def __init__(self, stack: Stack) -> None:
        import zarr

        self.chunks = stack.data.chunks
        self.folder = stack.work or Path(tempfile.mkdtemp(prefix="napari-em-da-"))
        if stack.work is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        z, y, x = stack.shape
        self.array = zarr.create_array(
            str(self.folder / "sections.zarr"),
            shape=(z, y, x),
            chunks=(1, min(1024, y), min(1024, x)),
            dtype=stack.data.dtype,
            overwrite=True,
        )

    def __setitem__(self, z: int, section: npt.NDArray[Any]) -> None:
        try:
            self.array[z] = section
        except OSError as error:
            raise ResourceError(
                f"Section {z} could not be written to {self.folder}: {error.strerror or error}; "
                "free disk space or choose another folder for intermediate results."
            ) from error

    def lazily(self) -> Any:
        """Return the sections as a dask array with the chunks of the stack."""
        import dask.array as da

        def read(block_info: Any) -> npt.NDArray[Any]:
            where = tuple(slice(*part) for part in block_info[None]["array-location"])
            return np.asarray(computed(self.array[where]))

        dtype = self.array.dtype
        name = f"mpp-{uuid.uuid4().hex}"
        return da.map_blocks(read, chunks=self.chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype), name=name)


STEP = Step(Options, ("labels",), None, apply, advice)
