"""Our mean teacher beside torch-em's: the same source model, windows, network and steps, scored alike.

    python -m venv peer && peer/bin/pip install torch torch_em .
    python benchmarks/peer_mean_teacher.py --work runs/benchmark --peer-python peer/bin/python [--row NAME …]

``--work`` is the folder of ``napari-em-da benchmark adaptation``; its source run is trained where it is missing. The
rows of torch-em run under ``--peer-python``, where its own ``MeanTeacherTrainer`` trains our network on the batches
that our run draws. One JSON line per row; results go to benchmarks/results/peer_mean_teacher.json. A row that is there
is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _record import DATA, record
from _torch_em import FILES, Clock

import napari_em_da as em
from napari_em_da.config import AdaptConfig
from napari_em_da.events import Event, Progress
from napari_em_da.experiments.adaptation import adapt_config, known_scores, score, source_config
from napari_em_da.experiments.pairs import PAIRS, Pair, make_pair
from napari_em_da.experiments.recipes import PROFILES, Profile
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.adapt import expand
from napari_em_da.workflows.judging import decide, read_records
from napari_em_da.workflows.plan import make_plan
from napari_em_da.workflows.train import absolute, describe

ITS_RATE = 1e-4  # what torch-em's authors adapt with


@dataclass(frozen=True)
class Side:
    """One row: whose loop, in which precision, at which learning rate (None: that of our recipe)."""

    peer: bool
    precision: str
    rate: float | None = None


ROWS = {
    "ours": Side(False, "auto"),
    "torch-em": Side(True, "auto"),
    "torch-em, its rate": Side(True, "auto", ITS_RATE),
    "ours, fp32": Side(False, "fp32"),
    "torch-em, fp32": Side(True, "fp32"),
}


def main() -> None:
    """Run what has no row yet, and record all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--pair", choices=list(PAIRS), default="epfl->vnc mito")
    parser.add_argument("--profile", choices=list(PROFILES), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", action="append", choices=list(ROWS), help="rows to run; all if absent")
    parser.add_argument("--peer-python", type=Path, help="interpreter of the environment with torch-em")
    given = parser.parse_args()
    names = given.row or list(ROWS)
    if given.peer_python is None and any(ROWS[name].peer for name in names):
        parser.error("torch-em's rows need --peer-python")
    pair = make_pair(given.pair, given.data, given.work / "data")
    home = given.work / f"{given.pair.replace('->', '-').replace(' ', '-')}-{given.seed}"
    budget = PROFILES[given.profile]
    source = trained_source(pair, home / "source", budget, given.seed)
    rows = {"source only": dict(zip(("iou", "dice"), score(source, pair.test, pair.target_classes), strict=True))}
    for name in names:
        run = home / "peer" / name.replace(", ", "-").replace(" ", "-")
        known = run / "row.json"
        if not known.is_file():
            shutil.rmtree(run, ignore_errors=True)  # one that was cut short has no honest time
            config = adapt_config(pair, "mean_teacher", source, run, budget, given.seed)
            run_row(ROWS[name], config, pair, given.peer_python)
        rows[name] = json.loads(known.read_text(encoding="utf-8"))
        print(json.dumps({"row": name, **rows[name]}), flush=True)
    results = {"pair": given.pair, "profile": given.profile, "seed": given.seed, "steps": budget.adapt, "rows": rows}
    print(results if given.profile == "tiny" else record("peer_mean_teacher", results))


def trained_source(pair: Pair, run: Path, budget: Profile, seed: int) -> Path:
    """Return the source run, trained if it is not there."""
    if not ((run / "run.json").is_file() and RunFolder(run).info().get("finished")):
        em.run(em.train(source_config(pair, run, budget, seed), resume=(run / "config.yaml").is_file()))
    return run


def run_row(side: Side, config: AdaptConfig, pair: Pair, python: Path | None) -> None:
    """Adapt, score what the side itself chose, and leave ``row.json`` in the run folder."""
    rate = side.rate or config.training.learning_rate
    training = config.training.model_copy(update={"precision": side.precision, "learning_rate": rate})
    config = config.model_copy(update={"training": training})
    row = peer_row(config, pair, python) if side.peer else own_row(config, pair)
    about = {"precision": RunFolder(config.out).info()["precision"], "learning_rate": rate}
    checkpoint.write_text(config.out / "row.json", json.dumps({**row, **about}, indent=1) + "\n")


def own_row(config: AdaptConfig, pair: Pair) -> dict[str, Any]:
    """Adapt with our loop; the criteria choose the step without target labels."""
    clock = Clock()

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "steps":
            clock.tick()

    em.run(em.adapt(config), on_event=note)
    seconds = clock.seconds()
    records = read_records(RunFolder(config.out))
    truth = known_scores(config.out, records, pair)
    step = str(decide(records)[0].step)
    others = {f"step {key}": scores["iou"] for key, scores in truth.items() if key != step}
    return {**truth[step], "chosen": f"step {step}", **seconds, "other_iou": others}


def peer_row(config: AdaptConfig, pair: Pair, python: Path | None) -> dict[str, Any]:
    """Adapt with torch-em in its own environment; the network of its best epoch is what its users load."""
    job = absolute(expand(config))
    folder = RunFolder.create(job.run)
    folder.write_config(job)
    folder.update_info(describe(make_plan(job)))
    here = Path(__file__).resolve().parent
    paths = [str(here.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [str(python), str(here / "_torch_em.py"), str(folder.path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    found = {
        name: score(folder.path, pair.test, pair.target_classes, folder.path / f"{name}.safetensors") for name in FILES
    }
    iou, dice = found["student-best"]
    others = {name: values[0] for name, values in found.items() if name != "student-best"}
    told = json.loads((folder.path / "peer.json").read_text(encoding="utf-8"))
    return {"iou": iou, "dice": dice, **told, "other_iou": others}


if __name__ == "__main__":
    main()
