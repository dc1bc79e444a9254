"""Look at volumes that belong together before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from napari_em_da.config import CheckConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Progress
from napari_em_da.findings import PAIRS, Finding, in_order, mismatched, no_integers, pixel_sizes, same_labels
from napari_em_da.jobs import Job
from napari_em_da.volume import Volume
from napari_em_da.workflows import target_checks
from napari_em_da.workflows.contrast import contrast

LOOKED_AT = 1024  # pixels per side of the middle of a section that is looked at


@dataclass(frozen=True)
class CheckResult:
    """What was found, errors first, and whether work can start."""

    findings: tuple[Finding, ...]
    fits: bool


def check(config: CheckConfig) -> Job:
    """Look at the volumes of ``config`` and yield events, a Notice per finding; Finished carries a CheckResult.

    Raises
    ------
    ConfigError
        If no volume is given.
    DataError
        If a file cannot be read.
    """
    paths = {role: getattr(config, role) for role in ("source", "labels", "target", "truth")}
    if not any(paths.values()):
        raise ConfigError("There is nothing to look at; give --source, --labels, --target or --truth.")
    sizes = {"source": config.source_voxel_nm, "target": config.target_voxel_nm}
    volumes = {role: Volume.open(path, voxel_nm=sizes.get(role)) for role, path in paths.items() if path is not None}
    stems = [path.stem for path in paths.values() if path is not None]
    for role, volume in volumes.items():
        if stems.count(paths[role].stem) > 1:  # files of the same name in their folders
            volumes[role] = replace(volume, name=f"{paths[role].parent.name}/{paths[role].stem}")
    found: list[Finding] = []
    for image, role in PAIRS:
        if role in volumes:
            looked = [no_integers(volumes[role], role)]
            looked += [mismatched(volumes[image], volumes[role], role)] if image in volumes else []
            found += [finding for finding in looked if finding is not None]
    if config.labels is not None and config.labels == config.truth:
        found.append(same_labels())
    found += pixel_sizes(volumes)
    yield Progress(1, 2, "checks", "looking at the data")
    found += contrasts(volumes)
    for finding in in_order(found):
        text = f"Work cannot start. {finding.text}" if finding.level == "error" else finding.text
        yield Notice(text, "info" if finding.level == "info" else "warning")
    yield Finished(CheckResult(tuple(in_order(found)), all(finding.level != "error" for finding in found)))


def contrasts(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    """Look at the grey values of source and target: of large volumes at the middle of a few sections."""
    images = {role: _middle(volumes[role]) for role in ("source", "target") if role in volumes}
    source, target = images.get("source"), images.get("target")
    if source and target and source.shape == target.shape and source.fingerprint == target.fingerprint:
        text = f"The image to segment, {target.name}, is the labelled image itself; choose another one."
        yield Finding(text, "error", role="target")
        return
    role = ""
    try:
        for role, volume in images.items():
            if role == "target":
                target_checks.check_grey(volume)
            if blank := target_checks.blank_sections(volume):
                text = f"Some sections of {volume.name} are blank ({', '.join(map(str, blank[:8]))} …); crop them away."
                yield Finding(text, "warning", role=role)
            _ = volume.intensity
        if source and target:
            yield from _polarity(target, source)
    except DataError as error:
        yield Finding(str(error), "error", role=role)


def _polarity(target: Volume, source: Volume) -> Iterator[Finding]:
    found = contrast(target, source)
    if found == "inverted":
        text = (
            f"The contrast of {target.name} looks inverted against {source.name}. Are membranes dark in one and "
            "bright in the other? Then invert it."
        )
        yield Finding(text, "warning", "invert", "target")
    elif found == "unknown":
        text = (
            f"Whether {target.name} has the contrast of {source.name} cannot be told from the images. Look at the "
            "membranes: if they are dark in one and bright in the other, invert it."
        )
        yield Finding(text, "info", "invert", "target")


def _middle(volume: Volume) -> Volume:
    """Return the middle of large sections, lazily."""
    if max(volume.shape[1:]) <= LOOKED_AT:
        return volume
    y, x = (slice(max(0, (n - LOOKED_AT) // 2), max(0, (n - LOOKED_AT) // 2) + LOOKED_AT) for n in volume.shape[1:])
    return Volume(volume.data[:, y, x], volume.voxel_nm, volume.name)


__all__ = ["CheckResult", "check", "contrasts"]
