"""Write the pages in docs that come from the catalogs; with --check, only say whether they are current.

Every sentence about a score, a step or a method is the one in its docstring or its options, so nothing is written
twice. The text of docs/methods/README.md is its own, down to a mark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

from docs_markdown import entries, options, plain, table
from docs_methods import GUIDE, guide, method_page, names

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by scripts/write_docs.py from the docstrings: change those, then run it again. -->"

METRICS = """# Scores

A score compares a prediction with an annotation of the same shape, in a script or on the command line:

```python
import napari_em_da as em

scores = em.evaluate_arrays(prediction, labels, ["vrand", "vi", "warping"], kind="membrane", spacing=(50, 4, 4))
scores["vrand"], scores.undefined, scores.warnings
```

```bash
napari-em-da evaluate prediction.tif labels.tif --metrics vrand,vi,warping --kind membrane --voxel-nm 50,4,4 --json
```

- A name is one score (`vrand`) or a family (`partition`), which stands for all of its scores.
- Say what the volumes hold. Without `kind`, integers are classes for some families and object numbers (ids) for
  others; each heading below says which. With `kind="membrane"` both volumes are maps in which 1 is the membrane, with
  `kind="object"` maps in which 1 is the inside of objects, and with `kind="instances"` ids. To mix up membrane and
  object is the most frequent mistake in this field; where the data show it, there is an error or a warning.
- Voxels annotated as 255 do not count in classes and boundary maps; another value is set with `ignore_index`, and
  `mask` leaves out more. Among ids 255 is an object like any other.
- A score that has no value, such as the IoU of a class that never occurs, is NaN, and `scores.undefined` says why.
- Beside the score of all classes stands that of each one, as `iou/mitochondria`; where several thresholds were tried on
  probabilities, `threshold/vrand` is the best one.
- Volumes may be numpy or dask arrays; they are read block by block.
"""

POSTPROCESSING = """# Post-processing

A chain is a list of steps that turns stored probabilities, labels or instances into better ones. Nothing is predicted
again, so that a chain can be changed and run as often as you like. It is a text file, here `chain.yaml`:

```yaml
{example}```

A step is its name alone, or its name with options below it; options that are left out keep their default. The file
works the same in all places:

```bash
napari-em-da postprocess probabilities.tif --chain chain.yaml -o instances.tif
```

```python
import napari_em_da as em
from napari_em_da.workflows.postprocess import read_chain

stack = em.Stack(probabilities, "probabilities", voxel_nm=(50, 4, 4), classes=("background", "mitochondria"))
instances = em.apply_chain(read_chain("chain.yaml"), stack).data
```

- A step takes probabilities (one channel per class, the background first), labels (class numbers) or instances (object
  numbers), and gives one of them; a chain that does not fit together is an error before any work.
- Sizes in nm need the voxel size, which the file has or `--voxel-nm z,y,x` gives.
- Steps that clean up labels leave sections that hold ground truth (`--labelled 0,5`) as they are.
- Large volumes are worked on block by block; an interrupted run goes on where it stopped.
- `napari-em-da tune` chooses an option of a chain by a score, on a volume that was trained on.
"""

EXAMPLE = """steps:
  - threshold:
      level: 0.5
  - z_filter
  - remove_small:
      min_size_nm3: 1.0e+6
  - components
"""


@dataclass(frozen=True)
class Score:
    """The parts of a score's docstring; what is missing is an empty text."""

    name: str
    summary: str
    body: str
    range: str
    direction: str
    sources: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, docstring: str) -> Score:
        text, _, references = docstring.partition("References\n----------\n")
        summary, _, body = text.strip().partition("\n")
        found = re.search(
            r"Range (.+?)[,;]\s+(higher is better|lower is better|neither direction is better|best where [^.;]+)",
            " ".join(text.split()),
        )
        extent, direction = found.groups() if found else ("", "")
        body = body.replace("Notes\n-----\n", "").strip()
        return cls(name, summary, body, extent, direction, entries(references))


def metrics() -> str:
    """Return the text of docs/metrics.md."""
    from napari_em_da.config import ScoringConfig
    from napari_em_da.metrics import families

    parts = [NOTE, METRICS]
    for name, family in families().items():
        module = import_module(f"napari_em_da.metrics.{name}")
        integers = "object numbers (ids)" if family.ids else "classes"
        scores = [Score.parse(score, text) for score, text in family.scores.items()]
        parts += [f"## {_heading(name)}", _first_paragraph(module), f"Family `{name}`; integers are {integers}."]
        parts.append(table(("score", "range", "best"), [(f"`{s.name}`", s.range, s.direction) for s in scores]))
        parts += ["\n\n".join(_score(score)) for score in scores]
    parts += [
        "## Options",
        "How scores are computed; each score reads what concerns it. On the command line an option is",
    ]
    parts[-1] += "\n`--scoring.thin` and so on, in Python a keyword of `evaluate_arrays`."
    return joined([*parts, options(ScoringConfig)])


def _score(score: Score) -> Iterator[str]:
    yield f"### `{score.name}`"
    yield score.summary
    if score.body:
        yield score.body
    yield "Source: " + score.sources[0] if len(score.sources) == 1 else "Sources:\n\n- " + "\n- ".join(score.sources)


def postprocessing() -> str:
    """Return the text of docs/postprocessing.md."""
    from napari_em_da.postprocess import STEPS

    parts = [NOTE, POSTPROCESSING.format(example=EXAMPLE), "## Steps"]
    steps = {name: STEPS[name] for name in STEPS.names()}
    rows = [
        (f"[`{name}`](#{name})", _or(step.takes), step.gives or "the same", plain(STEPS.summary(name)))
        for name, step in steps.items()
    ]
    parts.append(table(("step", "takes", "gives", "what it does"), rows))
    for name, step in steps.items():
        module = import_module(f"napari_em_da.postprocess.{name}")
        parts += [f"## {name}", (module.__doc__ or "").strip()]
        parts.append(f"Takes {_or(step.takes)}, gives {step.gives or 'what it was given'}.")
        parts.append(options(step.options))
    return joined(parts)


def _first_paragraph(module: Any) -> str:
    return (getdoc(module) or "").split("\n\n")[0]


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)


def joined(parts: list[str]) -> str:
    """Return a page in Markdown, where code has single backticks."""
    return (
        "\n\n".join(part.strip("\n") for part in parts).replace("```", "\0").replace("``", "`").replace("\0", "```")
        + "\n"
    )


def pages() -> dict[str, Callable[[], str]]:
    """Return what writes each page, by its path."""
    found: dict[str, Callable[[], str]] = {"docs/metrics.md": metrics, "docs/postprocessing.md": postprocessing}
    for name in names():
        found[f"docs/methods/{name}.md"] = lambda name=name: joined([NOTE, method_page(name, ROOT)])
    return {**found, GUIDE: lambda: joined([guide(ROOT)])}


def stale() -> dict[str, str | None]:
    """Return the pages that differ from what the catalogs say, with their text; None for those to be removed."""
    texts = {page: text() for page, text in pages().items()}
    found: dict[str, str | None] = {
        page: text
        for page, text in texts.items()
        if not (ROOT / page).is_file() or (ROOT / page).read_text(encoding="utf-8") != text
    }
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        page = path.relative_to(ROOT).as_posix()
        if page not in texts and path.read_text(encoding="utf-8").startswith(NOTE):
            found[page] = None
    return found


def main(arguments: list[str]) -> int:
    found = stale()
    if "--check" in arguments:
        for page in found:
            print(f"{page} is not what the catalogs say; run python scripts/write_docs.py.")
        return int(bool(found))
    for page, text in found.items():
        path = ROOT / page
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{'Removed' if text is None else 'Wrote'} {page}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
