"""Our scores beside scikit-image, python-elf and scikit-learn on real label pairs, and why they differ.

    python benchmarks/metrics_agreement.py --work runs/postprocessing

Four pairs: VNC and FlyEM annotations, each beside a perturbed copy and beside a real prediction (the VNC membrane
network of postprocessing.py: components of each section on VNC, multicut on FlyEM, where it is used as it is, without
adaptation). python-elf is read from the environment it is installed in (``pip install --target DIR python-elf
bioimage-py h5py skan; PYTHONPATH=DIR``); its column stays empty where it is absent. Results go to
benchmarks/results/metrics_agreement.json and .md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from _record import DATA, RESULTS, record
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from sklearn.metrics import f1_score, jaccard_score
from sklearn.metrics.cluster import rand_score

import napari_em_da as em
from napari_em_da.config import ChainConfig, SegmentConfig
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.volume import Volume

REASONS = {
    "arand": "ours: a predicted 0 inside an object is an object of its own (one per voxel). skimage: pairs without "
    "self-pairs, and predicted 0 is one ordinary object. elf: with self-pairs, predicted 0 is one ordinary object",
    "vi_split": "ours: predicted 0 are single voxels; skimage and elf: one object. elf counts in bits as we do",
    "vi_merge": "as vi_split",
    "cremi_score": "as arand and vi; ours and elf's are the square root of the product",
    "rand_index": "sklearn takes predicted 0 for one object; ours are single voxels",
    "iou": "no difference",
    "dice": "no difference",
}


def perturbed(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return ids with neighbours merged, objects cut in two and their rims lost."""
    rng = np.random.default_rng(seed)
    found = ids.copy()
    values = np.unique(ids[ids > 0])
    for one, other in zip(*[rng.choice(values, max(1, len(values) // 10)) for _ in range(2)], strict=True):
        found[found == one] = other
    cut = rng.choice(values, max(1, len(values) // 10), replace=False)
    x = np.arange(ids.shape[2])[None, None, :]
    found[np.isin(found, cut) & (x > ids.shape[2] // 2)] += found.max() + 1
    found[~ndimage.binary_erosion(ids > 0, np.ones((1, 3, 3)))] = 0
    return found


def by_section(inside: np.ndarray) -> np.ndarray:
    """Return the 4-connected components of every section with ids of their own."""
    out = np.zeros(inside.shape, np.uint32)
    for z, section in enumerate(inside):
        found = cc3d.connected_components(section, connectivity=4)
        out[z] = np.where(found > 0, found + out.max(), 0)
    return out


def multicut(membrane: np.ndarray) -> np.ndarray:
    """Return objects of an isotropic membrane map."""
    maps = np.stack([1 - membrane, membrane], -1)
    stack = Stack(maps, "probabilities", (10.0, 10.0, 10.0), ("background", "membrane"))
    return apply_chain(ChainConfig(steps=("multicut",)), stack).data


def pairs(work: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name to (prediction, annotation) instance ids."""
    classes = Volume.open(work / "vnc-labels-test.tif").read()
    vnc = by_section(classes != 1)
    fly = Volume.open(DATA / "flyem_medulla" / "instances.tif").read().astype(np.uint32)
    vnc_p = Volume.open(work / "vnc-test-probs.tif").read()[..., 1]
    probabilities = work / "flyem-probs.tif"
    if not probabilities.exists():
        job = SegmentConfig(
            smooth_z=0,
            image=DATA / "flyem_medulla" / "image.tif",
            run=work / "vnc-membrane",
            output=work / "flyem-labels.tif",
            probabilities=probabilities,
            voxel_nm=(10, 10, 10),
            overwrite=True,
        )
        em.run(em.segment(job))
    fly_p = Volume.open(probabilities).read()[..., 1]
    return {
        "VNC, perturbed": (perturbed(vnc, 0), vnc),
        "VNC, predicted": (by_section(vnc_p < 0.5), vnc),
        "FlyEM, perturbed": (perturbed(fly, 0), fly),
        "FlyEM, predicted": (multicut(fly_p), fly),
    }


def elf_scores(prediction: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return python-elf's scores, or nothing where it is not installed."""
    try:
        from elf.evaluation import cremi_score, rand_index
        from elf.evaluation import variation_of_information as elf_vi
    except ImportError:
        return {}
    arand, _ = rand_index(prediction, labels, ignore_gt=[0])
    split, merge = elf_vi(prediction, labels, ignore_gt=[0])
    score = cremi_score(prediction, labels, ignore_gt=[0])[3]
    return {"arand": arand, "vi_split": split, "vi_merge": merge, "cremi_score": score}


def compare(prediction: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Return score to {implementation: value}; parity rows repeat the others' conventions with our code."""
    names = ["arand", "vi_split", "vi_merge", "cremi_score", "rand_index"]
    rows: dict[str, dict[str, float]] = {name: {} for name in [*names, "iou", "dice"]}

    def put(who: str, scores: Any) -> None:
        for name, value in scores.items():
            if name in rows:
                rows[name][who] = round(float(value), 6)

    put("ours", em.evaluate_arrays(prediction, labels, names))
    for parity in ("skimage", "elf"):
        put(f"ours, parity={parity}", em.evaluate_arrays(prediction, labels, names[:4], parity=parity))
    split, merge = variation_of_information(labels, prediction, ignore_labels=(0,))
    put("skimage", {"arand": adapted_rand_error(labels, prediction, ignore_labels=(0,))[0]})
    put("skimage", {"vi_split": split, "vi_merge": merge})
    put("elf", elf_scores(prediction, labels))
    inside = labels > 0
    put("sklearn", {"rand_index": rand_score(labels[inside], prediction[inside])})
    one, other = (prediction > 0).astype(np.uint8), inside.astype(np.uint8)
    put("ours", em.evaluate_arrays(one, other, ["iou", "dice"]))
    put("sklearn", {"iou": jaccard_score(other.ravel(), one.ravel()), "dice": f1_score(other.ravel(), one.ravel())})
    return rows


def main() -> None:
    """Compare and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/postprocessing"))
    found = {name: compare(*volumes) for name, volumes in pairs(parser.parse_args().work).items()}
    record("metrics_agreement", {"pairs": found, "reasons": REASONS})
    who = ["ours", "skimage", "ours, parity=skimage", "elf", "ours, parity=elf", "sklearn"]
    lines = [f"| pair | score | {' | '.join(who)} |", "|---" * (len(who) + 2) + "|"]
    for name, rows in found.items():
        for score, values in rows.items():
            cells = " | ".join(f"{values[w]:.4f}" if w in values else "" for w in who)
            lines.append(f"| {name} | {score} | {cells} |")
    lines += ["", *(f"- `{name}`: {reason}." for name, reason in REASONS.items())]
    (RESULTS / "metrics_agreement.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
