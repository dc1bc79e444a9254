"""What a run keeps of its labelled source, so that its network can be adapted where the source is not at hand."""

from __future__ import annotations

from dataclasses import dataclass

from napari_em_da.config import LabelledConfig, TrainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.methods._base import MethodSpec
from napari_em_da.selection._base import Reference
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder

REFERENCE = "reference.json"
SAME_SCALE = 0.02


@dataclass(frozen=True)
class SourceRecord:
    """Class shares, shapes at ``pixel_nm`` in windows of the training, and that pixel size (None: unknown)."""

    prior: tuple[float, ...]
    reference: Reference
    pixel_nm: float | None


def keep(folder: RunFolder, reference: Reference) -> None:
    """Save the shapes beside ``run.json``, which holds the class shares and the pixel size."""
    checkpoint.write_text(folder.path / REFERENCE, reference.to_json() + "\n")


def at_hand(source: tuple[LabelledConfig, ...]) -> tuple[LabelledConfig, ...]:
    """Return the labelled volumes if all their files exist, else none: a part of a source is another source."""
    return source if all(path.exists() for item in source for path in (item.image, item.labels)) else ()


def recall(config: TrainConfig, method: MethodSpec) -> SourceRecord:
    """Return what the run that ``config`` starts from kept of its source.

    Raises
    ------
    ConfigError
        If the method learns from the source, no run is given, or the job differs from that run in classes, window or
        pixel size: shapes in other windows cannot be compared.
    DataError
        If the run kept nothing.
    """
    if config.init is None:
        raise ConfigError("No labelled volume is given; give at least one to learn from, or a trained run to adapt.")
    folder = RunFolder.open(config.init)
    base = folder.config()
    if "source" in method.streams:
        gone = [str(p) for item in base.source for p in (item.image, item.labels) if not p.exists()]
        which = f"whose files {', '.join(gone)} are missing; put them back" if gone else "which is left out; give it"
        raise ConfigError(
            f"The method {config.method.name!r} learns from the labelled source, {which}, "
            "or use --method source_free or adabn."
        )
    found = read(folder)
    if found.reference.names != tuple(config.classes):
        raise ConfigError(
            f"Without the source the classes must stay {', '.join(found.reference.names)}, "
            f"not {', '.join(config.classes)}."
        )
    window = base.sampling.patch_px[1:]
    if config.sampling.patch_px[1:] != window:
        raise ConfigError(
            f"Without the source its shapes are known in windows of {window[0]} x {window[1]} pixels only; "
            f"set sampling.patch_px to {base.sampling.patch_px}, not {config.sampling.patch_px}."
        )
    wanted, own = config.sampling.pixel_nm, found.pixel_nm
    if wanted is not None and (own is None or abs(wanted / own - 1) > SAME_SCALE):
        known = "pixels of unknown size" if own is None else f"{own:g} nm per pixel"
        raise ConfigError(
            f"Without the source the network knows {known} only, not {wanted:g} nm; leave sampling.pixel_nm out."
        )
    return found


def read(folder: RunFolder) -> SourceRecord:
    """Read the record of a run; a DataError says what it lacks."""
    info, path = folder.info(), folder.path / REFERENCE
    if "prior" not in info or not path.is_file():
        raise DataError(
            f"{folder.path} keeps no class shares and shapes of its source ({REFERENCE}): an older version trained it, "
            "or its labels are too sparse to measure. Train it again, or put the source's files back."
        )
    try:
        reference = Reference.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, LookupError):
        raise DataError(f"{path} is damaged; copy it again from the original run folder.") from None
    return SourceRecord(tuple(info["prior"]), reference, info["pixel_nm"])
