"""What IoU to expect of an adapted network on the target, from how it does on synthetic shifts of the source."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_em_da.augment.intensity import Limits, bend, blur
from napari_em_da.config import parse
from napari_em_da.errors import EmDaError
from napari_em_da.events import Event, Progress
from napari_em_da.metrics.overlap import confusion_matrix
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample, Sampler, Source
from napari_em_da.selection import CRITERIA
from napari_em_da.selection._base import Reference
from napari_em_da.selection.calibration import Calibration, Expected
from napari_em_da.selection.evidence import Predict, collecting
from napari_em_da.selection.ranking import SOURCE_ONLY
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.judging import Record
from napari_em_da.workflows.plan import Plan, make_plan
from napari_em_da.workflows.streams import labelled, load_maps, reference, split
from napari_em_da.workflows.validation import iou_values

CRITERION = "consistency"  # a raw score that needs no shapes; mean ranks mean nothing outside their report
WINDOWS = 12  # each is predicted under every shift, with its twin

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """A change of how sections look that moves nothing, so that their labels stay true.

    Attributes
    ----------
    gamma : float
        Exponent of the grey values, 1 changes nothing.
    curve : float
        S-shaped contrast in [-1, 1]: above 0 steeper at both ends, below 0 in the middle.
    blur_px : float
        Sigma of a Gaussian.
    gradient : float
        Brightness gained from one side of a section to the other, half of it on each, in standardised units.
    noise : float
        Sigma of white noise in standardised units.
    """

    gamma: float = 1.0
    curve: float = 0.0
    blur_px: float = 0.0
    gradient: float = 0.0
    noise: float = 0.0

    def __call__(self, sections: Array, seed: int = 0) -> Array:
        """Return shifted sections (N, Y, X) with the mean and spread of those given, as a volume has that is read."""
        rng = np.random.default_rng(seed)
        low, high = np.quantile(sections, (0.005, 0.995))
        out = sections
        if self.gamma != 1.0 and high > low:
            out = bend(out, self.gamma, (float(low), float(high)))
        if self.curve and high > low:
            out = _s_curve(out, self.curve, (float(low), float(high)))
        out = np.stack([blur(section, self.blur_px) for section in out])
        out = out + self.gradient / 2 * _ramps(out.shape, rng)
        out = out + self.noise * rng.standard_normal(out.shape, np.float32)
        gain = sections.std() / max(float(out.std()), 1e-6)
        return np.asarray((out - out.mean()) * gain + sections.mean(), np.float32)


LADDER = (
    Shift(),
    Shift(gamma=1.6),
    Shift(gamma=0.6),
    Shift(curve=0.8),
    Shift(blur_px=1.5),
    Shift(blur_px=3.0),
    Shift(noise=0.5),
    Shift(noise=1.2),
    Shift(gradient=2.0),
    Shift(gamma=1.3, blur_px=1.0, gradient=1.0, noise=0.3),
    Shift(gamma=0.6, curve=-0.8, blur_px=2.0, gradient=2.0, noise=0.8),
    Shift(gamma=2.2, curve=0.8, blur_px=3.0, gradient=3.0, noise=1.5),
)


def _s_curve(sections: Array, strength: float, limits: Limits) -> Array:
    """Bend grey values by a sine; rising everywhere for strengths within [-1, 1]."""
    low, width = limits[0], limits[1] - limits[0]
    fraction = (sections - low) / width
    return np.asarray(sections + width * strength / (2 * np.pi) * np.sin(2 * np.pi * fraction), np.float32)


def _ramps(shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Return planes from -1 to 1, one per section, each in a direction of its own."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    angles = rng.uniform(0, 2 * np.pi, (shape[0], 1, 1))
    planes = np.sin(angles) * y + np.cos(angles) * x
    return np.asarray(planes / np.abs(planes).max((1, 2), keepdims=True), np.float32)


def expected(
    folder: RunFolder, record: Record, criterion: str = CRITERION
) -> Generator[Event, None, tuple[Expected | None, str]]:
    """Return the IoU to expect of a run's ``best`` network on the target, and a sentence on it.

    Parameters
    ----------
    folder : RunFolder
        Of the adaptation; its ``best`` is the candidate of ``record``.
    record : Record
        Has the candidate's label-free scores on the target.
    criterion : str
        The score to go by.

    Returns
    -------
    (Expected or None, str)
        None where the source has no held-out labels to measure on, or can no longer be read; the sentence says why.

    Notes
    -----
    A network that was given the target's own batch-norm statistics fits no shifted source window with them. Before
    each shift is predicted they are measured anew on its windows, as adaptation does on the target; the weights stay
    as they are. The source model keeps its own, for it meets the target with them, and so does a network that learned
    one set for both domains.
    """
    try:
        plan = make_plan(folder.config())
        samples = held_out(plan)
        if not samples:
            return None, "No IoU can be expected: nothing of the source that shows a class was held out."
        network: nn.Module = folder.network().to(plan.device)
        calibration = yield from calibrate(
            predictor(plan, network),
            samples,
            reference(plan, samples[0].image.shape),
            criterion=criterion,
            renew=network if record.name != SOURCE_ONLY and of_the_target(plan) else None,
        )
    except EmDaError as error:  # the choice stands without it
        return None, f"No IoU can be expected: {error}"
    score = record.scores.get(criterion, float("nan"))
    return Expected(*map(float, calibration.predict(score))), calibration.sentence(score)


def of_the_target(plan: Plan) -> bool:
    """Return whether a method's network holds batch-norm statistics of the target alone."""
    options = parse(plan.method.options_type, plan.config.method.options)
    return plan.method.streams == ("target",) or getattr(options, "statistics", "shared") == "per_domain"


def calibrate(
    predict: Predict,
    samples: Sequence[Sample],
    reference: Reference,
    *,
    criterion: str = CRITERION,
    renew: nn.Module | None = None,
    ladder: Sequence[Callable[[Array, int], Array]] = LADDER,
) -> Generator[Event, None, Calibration]:
    """Predict labelled source windows under each shift, and fit their IoUs to their label-free scores.

    Parameters
    ----------
    predict : callable
        As of `collect`.
    samples : sequence of Sample
        Labelled windows of the source that the network was not trained on, all of one size.
    reference : Reference
        Of the source.
    criterion : str
        Name of the label-free score.
    renew : Module, optional
        The network behind ``predict``, if its batch-norm statistics are to be measured anew for each shift.
    ladder : sequence of callables
        (N, Y, X) float32 and a seed to the same, shifted.

    Notes
    -----
    Each shift draws symmetries and jitter of its own: the luck of a few windows would otherwise move all scores alike,
    and the range would not tell.
    """
    images = [sample.image for sample in samples]
    stack = torch.cat(images)
    sections = stack.numpy().reshape(-1, *stack.shape[-2:])
    truth = torch.cat([sample.annotation for sample in samples]).flatten(0, -3).numpy()  # (N, Y, X)
    count = len(reference.names) + 1
    pairs = []
    for number, shift in enumerate(ladder):
        here = Progress(number, len(ladder), "shifts", "expected quality")
        yield here
        shifted = torch.from_numpy(shift(sections, number).reshape(stack.shape))
        windows = list(shifted.split([len(image) for image in images]))
        if renew is not None:
            renew_statistics(renew, predict, windows)
        evidence = yield from collecting(predict, windows, reference, here, seed=number)
        matrix = confusion_matrix(evidence.labels, truth, range(count))[:count, :count]
        pairs.append((CRITERIA[criterion](evidence), iou_values(matrix, list(reference.names))["val/iou"]))
    yield Progress(len(ladder), len(ladder), "shifts", "expected quality")
    return Calibration.fit(pairs)


def renew_statistics(network: nn.Module, predict: Predict, windows: Sequence[Tensor]) -> None:
    """Replace a network's batch-norm statistics by those of these windows; nothing else of it changes."""
    for norm in norms(network):
        if isinstance(norm, _BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
    with torch.no_grad():
        for batch in windows:
            predict(batch)
    network.eval()


def held_out(plan: Plan, count: int = WINDOWS) -> list[Sample]:
    """Return labelled source windows that the training never saw; none where they hold no class."""
    config, sampling = plan.config, plan.config.sampling
    plain = config.model_copy(update={"weights": config.weights.model_copy(update={"kind": None})})
    parts: list[Source] = []
    for item in plan.source:
        region = split(item.image.shape, sampling)[1]
        if region is not None:
            parts.append(Source(item.image, load_maps(item, plain)[0], None, region))
    parts = [part for part in parts if labelled(part)]
    if not parts:
        return []
    settings: dict[str, Any] = {
        "patch_px": sampling.patch_px,
        "batch": min(sampling.batch, 4),
        "ndim": plan.network.ndim,
        "seed": config.training.seed,
        "stream": "validation",
        "pixel_nm": plan.pixel_nm,
        "section_nm": plan.section_nm,
        "classes": len(config.classes) + 1,
        "margin_px": plan.network.margin_px,
        "memory_bytes": 0,
    }
    found = Sampler(parts, **settings).grid(count)
    foreground = torch.arange(1, len(config.classes) + 1)
    return found if any(torch.isin(sample.annotation, foreground).any() for sample in found) else []


def predictor(plan: Plan, network: nn.Module) -> Predict:
    """Return what runs the network on its device and in its precision, as during the training."""

    def predict(image: Tensor) -> Tensor:
        on_device = Sample(image).to(plan.device).image
        with torch.autocast(plan.device.type, dtype=plan.dtype or torch.bfloat16, enabled=plan.dtype is not None):
            logits: Tensor = network(on_device)
        return logits.float().cpu()

    return predict
