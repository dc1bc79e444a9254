"""Phantoms of neural tissue with ground truth, rendered as different electron microscopes would.

``phantom`` grows the structure once, in nanometres; ``render`` takes its picture in a ``Domain``. Two domains of the
same kind of tissue make a domain-adaptation problem whose answer is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from napari_em_da import _tissue as tissue
from napari_em_da.catalog import unknown
from napari_em_da.config import Config, NonNegative, Positive
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.volume import Volume, VoxelSize, check_voxel_size

CLASSES = {"cytoplasm": 0, "membrane": 1, "mitochondrion": 2, "vesicle": 3}
Float = npt.NDArray[np.float32]


class Domain(Config):
    """How one microscope shows the tissue: brightness of its parts, optics, noise and artefacts.

    Brightness runs from 0 (black) to 1 (white) before the contrast curve.
    """

    cytoplasm: float = Field(0.68, description="Brightness of the cytoplasm")
    membrane: float = Field(0.18, description="Brightness of membranes")
    matrix: float = Field(0.42, description="Brightness inside mitochondria")
    cristae: float = Field(0.27, description="Brightness of the cristae")
    lumen: float = Field(0.72, description="Brightness inside vesicles")
    texture: NonNegative = Field(0.05, description="Granularity of the cytoplasm")
    cell_contrast: NonNegative = Field(0.04, description="Spread of brightness between cells")
    membrane_nm: Positive = Field(22.0, description="Width of the dark line between two cells")
    gamma: Positive = Field(1.0, description="Exponent of the contrast curve")
    sigmoid: NonNegative = Field(0.0, description="Steepness of a sigmoid contrast curve; 0 for none")
    invert: bool = Field(False, description="White membranes on black")
    low: float = Field(0.0, description="Grey value of black, fraction of 255")
    high: float = Field(1.0, description="Grey value of white, fraction of 255")
    section_nm: NonNegative = Field(0.0, description="Section thickness that blurs structures along z")
    blur_nm: NonNegative = Field(4.0, description="Sigma of the in-plane blur")
    shot: NonNegative = Field(0.05, description="Shot noise, sigma at brightness 1")
    read: NonNegative = Field(0.02, description="Read-out noise, sigma")
    charging: NonNegative = Field(0.03, description="Slowly varying brightness, sigma")
    streaks: NonNegative = Field(0.01, description="Vertical milling streaks, sigma")
    drift: NonNegative = Field(0.01, description="Brightness change between sections, sigma")
    jitter_nm: NonNegative = Field(0.0, description="Misalignment of sections, sigma; labels stay in place")


DOMAINS: dict[str, Domain] = {
    # block face imaging: soft, even, milling streaks, dark mitochondria
    "fibsem": Domain(blur_nm=5, shot=0.035, read=0.015, streaks=0.02, charging=0.02, low=0.12, high=0.92),
    # transmission through cut sections: crisp, harsh, noisy, uneven; mitochondria paler than the cytoplasm
    "sstem": Domain(
        cytoplasm=0.50, membrane=0.10, matrix=0.74, cristae=0.32, lumen=0.62, texture=0.07, cell_contrast=0.05,
        membrane_nm=28, sigmoid=5.0, gamma=0.9, section_nm=24, blur_nm=3, shot=0.055, read=0.025, charging=0.05,
        streaks=0.0, drift=0.04, jitter_nm=3.0,
    ),
    # wide field of a block face at low dose: a steep contrast curve, blurred, grainy, drifting, thick membranes
    "sbem": Domain(
        membrane_nm=30, gamma=2.2, blur_nm=12, shot=0.10, read=0.05, charging=0.02, streaks=0.02, drift=0.04,
        low=0.12, high=0.92,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Phantom:
    """Tissue with ground truth.

    Attributes
    ----------
    labels : Volume uint8
        0 cytoplasm, 1 membrane, 2 mitochondrion, 3 vesicle.
    instances : Volume uint8, uint16 or uint32
        Neurites; 0 on membranes.
    mitochondria : Volume uint8, uint16 or uint32
        Single mitochondria; 0 elsewhere.
    image : Volume uint8
        Rendered in ``domain``.
    """

    labels: Volume
    instances: Volume
    mitochondria: Volume
    domain: Domain
    seed: int
    tissue: tissue.Tissue = field(repr=False)

    @property
    def voxel_nm(self) -> VoxelSize:
        return self.tissue.voxel_nm

    @cached_property
    def image(self) -> Volume:
        return render(self, self.domain, self.seed)


def phantom(
    shape: tuple[int, int, int] = (64, 512, 512),
    *,
    voxel_nm: tuple[float, float, float] = (8.0, 8.0, 8.0),
    seed: int = 0,
    domain: str | Domain = "fibsem",
    neurite_nm: float = 420.0,
    membrane_nm: float = 24.0,
    mitochondria: float = 0.45,
    vesicles: float = 6.0,
) -> Phantom:
    """Grow neurites with membranes, mitochondria and vesicles.

    Parameters
    ----------
    shape : (Z, Y, X)
    voxel_nm : (z, y, x)
        All sizes are physical, so anisotropic voxels show the same tissue.
    seed : int
        Equal seeds give equal voxels.
    domain : str or Domain
        How ``Phantom.image`` is rendered.
    neurite_nm : float
        Typical distance between neighbouring neurites.
    membrane_nm : float
        Width of the membrane class between two neurites.
    mitochondria : float in [0, 1]
        Chance of a mitochondrion per neurite segment.
    vesicles : float
        Vesicle clusters per cubic micrometre.

    Raises
    ------
    DataError
        If the shape or the voxel size is not positive.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"A phantom of shape {shape} is impossible; give three positive numbers (z, y, x).")
    size = check_voxel_size(voxel_nm)
    grown = tissue.grow(
        shape, size, np.random.default_rng([seed, 1]), neurite_nm=neurite_nm, mitochondria=mitochondria,
        vesicles=vesicles,
    )  # fmt: skip
    membrane = grown.boundary < membrane_nm / 2
    labels = np.zeros(shape, np.uint8)
    labels[grown.vesicle > 0] = CLASSES["vesicle"]
    labels[grown.mito_depth > 0] = CLASSES["mitochondrion"]
    labels[membrane] = CLASSES["membrane"]
    neurites = np.where(membrane, 0, grown.neurite).astype(np.min_scalar_type(int(grown.neurite.max())))
    organelles = np.where(labels == CLASSES["mitochondrion"], grown.mito_id, 0)
    organelles = organelles.astype(np.min_scalar_type(int(organelles.max())))
    return Phantom(
        Volume.from_array(labels, voxel_nm=size, name="labels"),
        Volume.from_array(neurites, voxel_nm=size, name="neurites"),
        Volume.from_array(organelles, voxel_nm=size, name="mitochondria"),
        named(domain),
        seed,
        grown,
    )


def named(domain: str | Domain) -> Domain:
    """Return a domain by its name, or the domain itself."""
    if isinstance(domain, Domain):
        return domain
    if domain not in DOMAINS:
        raise ConfigError(unknown("domain", domain, tuple(DOMAINS)))
    return DOMAINS[domain]


def render(structure: Phantom, domain: str | Domain, seed: int) -> Volume:
    """Take the picture of a phantom.

    Parameters
    ----------
    structure : Phantom
    domain : str or Domain
    seed : int
        Of the noise and the artefacts.

    Returns
    -------
    Volume uint8 (Z, Y, X)
    """
    look = named(domain)
    rng = np.random.default_rng([seed, 2])
    clean = tissue.paint(structure.tissue, _brightness(look))
    if look.section_nm > 0:
        clean = ndimage.uniform_filter1d(clean, _odd(look.section_nm / structure.voxel_nm[0]), axis=0)
    uneven = look.charging * tissue.smooth_noise(clean.shape, structure.voxel_nm, 1500.0, rng)
    drift = look.drift * rng.standard_normal(len(clean))
    shifts = rng.normal(0, look.jitter_nm, (len(clean), 2)) / structure.voxel_nm[1:]
    image = np.empty(clean.shape, np.uint8)
    for z, section in enumerate(clean):
        section = _optics(section, look, structure.voxel_nm, shifts[z])
        section += uneven[z] + drift[z]
        section += look.streaks * _streaks(section.shape[1], rng)
        image[z] = _detect(section, look, rng)
    name = next((known for known, other in DOMAINS.items() if other == look), "phantom")
    return Volume.from_array(image, voxel_nm=structure.voxel_nm, name=name)


def phantom_pair(
    shape: tuple[int, int, int] = (64, 512, 512), seed: int = 0, *, domains: tuple[str, str] = ("fibsem", "sstem")
) -> tuple[Phantom, Phantom]:
    """Return two pieces of tissue, each as another microscope shows it: a labelled source and a target.

    The target's labels are for scoring only.
    """
    source = phantom(shape, seed=2 * seed, domain=domains[0])
    target = phantom(shape, seed=2 * seed + 1, domain=domains[1])
    return source, replace(target, labels=replace(target.labels, name="target labels"))


def _brightness(look: Domain) -> tissue.Brightness:
    return tissue.Brightness(**{part.name: getattr(look, part.name) for part in fields(tissue.Brightness)})


def _odd(size: float) -> int:
    return 2 * round((size - 1) / 2) + 1 if size > 1 else 1


def _optics(section: Float, look: Domain, voxel_nm: VoxelSize, shift: npt.NDArray[Any]) -> Float:
    sigma_y, sigma_x = look.blur_nm / voxel_nm[1], look.blur_nm / voxel_nm[2]
    if max(sigma_y, sigma_x) > 0.1:
        blurred = cv2.GaussianBlur(section, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REFLECT)
        section = np.asarray(blurred, np.float32)
    if shift.any():
        matrix = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float32)
        moved = cv2.warpAffine(section, matrix, section.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        section = np.asarray(moved, np.float32)
    return np.array(section, np.float32)


def _streaks(width: int, rng: np.random.Generator) -> Float:
    lines = rng.standard_normal(width + 8).astype(np.float32)
    return np.convolve(lines, np.full(3, 3**-0.5, np.float32), "same")[4:-4]


def _detect(section: Float, look: Domain, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add noise, then apply the contrast curve and quantise."""
    noise = np.sqrt(look.shot**2 * np.clip(section, 0, 1) + look.read**2)
    section = np.clip(section + noise * rng.standard_normal(section.shape, np.float32), 0, 1)
    if look.sigmoid > 0:
        edge = 1 / (1 + np.exp(look.sigmoid / 2))
        section = (1 / (1 + np.exp(-look.sigmoid * (section - 0.5))) - edge) / (1 - 2 * edge)
    section = section**look.gamma
    if look.invert:
        section = 1 - section
    grey: npt.NDArray[np.uint8] = np.clip(255 * (look.low + (look.high - look.low) * section) + 0.5, 0, 255).astype(
        np.uint8
    )
    return grey
