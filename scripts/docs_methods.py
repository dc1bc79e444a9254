"""docs/methods: a page per method of the catalog, and the generated end of "Which method should I use?"."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from inspect import getmembers, isclass, isfunction
from pathlib import Path
from types import ModuleType
from typing import Any

from docs_markdown import Docstring, options, plain, table

PACKAGE = "napari_em_da.methods"
TABLE = "benchmarks/results/adaptation.csv"
GUIDE = "docs/methods/README.md"
MARKS = ("<!-- From here on written by scripts/write_docs.py. -->", "<!-- Up to here. -->")
STREAMS = {("source",): "labelled source", ("target",): "unlabelled target"}


def names() -> list[str]:
    """Return the methods of the package itself; a laboratory's own stay out of the pages."""
    from napari_em_da.methods import METHODS

    home = Path(str(import_module(PACKAGE).__file__)).parent
    return [name for name in METHODS.names() if (home / f"{name}.py").is_file()]


def method_page(name: str, root: Path) -> str:
    """Return the page of one method."""
    from napari_em_da.methods import METHODS

    spec, module = METHODS[name], import_module(f"{PACKAGE}.{name}")
    texts = [Docstring.parse(module.__doc__), *(Docstring.parse(c.__doc__) for c in _classes(module, spec))]
    parts = [f"# {name}", texts[0].summary, _usage(name, spec)]
    works = [texts[0].body, *(part for text in texts[1:] for part in (text.summary, text.body))]
    sections = {
        "How it works": "\n\n".join(filter(None, (*works, *(text.notes for text in texts)))),
        "Formula": "\n\n".join(_formulas(module)),
        "When it helps": " ".join(text.helps for text in texts if text.helps),
        "When it fails": " ".join(text.fails for text in texts if text.fails),
        "Options": options(spec.options_type),
        "Measured": _measured(name, root / TABLE),
        "Source": "\n".join(f"- {entry}" for text in texts for entry in text.references),
    }
    for title, text in sections.items():
        if text:
            parts += [f"## {title}", text]
    return "\n\n".join([*parts, "[All methods](README.md)"])


def _classes(module: ModuleType, spec: Any) -> list[type]:
    """Return the class that says how a method works: its part, its subclass of Method, or else its options."""
    from napari_em_da.methods._base import Method

    if isclass(spec.part):
        return [spec.part]
    own = [found for _, found in getmembers(module, isclass) if found.__module__ == module.__name__]
    return [*(found for found in own if issubclass(found, Method)), spec.options_type][:1]


def _usage(name: str, spec: Any) -> str:
    if "target" not in spec.streams:
        text = "napari-em-da train em.tif labels.tif --classes mito=2 --voxel-nm 5,5,5 --run runs/mito"
        return f"Reads the labelled source.\n\n```bash\n{text}\n```"
    text = f"napari-em-da adapt --run runs/mito --target other.tif --method {name} --out runs/mito-{name}"
    also = " It can be one of the parts of [`combined`](combined.md)." if spec.part is not None else ""
    return f"Reads the {_reads(spec)}.{also}\n\n```bash\n{text}\n```"


def _reads(spec: Any) -> str:
    return STREAMS.get(tuple(spec.streams), "labelled source and the unlabelled target")


def _formulas(module: ModuleType) -> Iterator[str]:
    """Yield the functions of a method whose docstrings hold a formula."""
    found = [f for _, f in getmembers(module, isfunction) if f.__module__.startswith(PACKAGE) and f.__doc__]
    for function in found:
        doc = Docstring.parse(function.__doc__)
        if "$`" in doc.summary or "```math" in doc.body:
            yield "\n\n".join(filter(None, (f"`{function.__name__}`: {doc.summary}", doc.body)))


def _measured(name: str, path: Path) -> str:
    """Return what the benchmark measured of a method, or nothing if there is no table."""
    from napari_em_da.experiments.recipes import METHODS as GRID
    from napari_em_da.experiments.results import summarise
    from napari_em_da.experiments.rows import SUPERVISED, read_table
    from napari_em_da.selection.ranking import SOURCE_ONLY

    if not path.is_file():
        return ""
    wanted = [run for run, entry in GRID.items() if entry.method.name == name]
    wanted += [SOURCE_ONLY, SUPERVISED] if name == "supervised" else []
    rows = []
    for (pair, profile), results in summarise(read_table(path)).items():
        for run in filter(results.__contains__, wanted):
            seeds = results[run].seeds
            base = results[SOURCE_ONLY].mean("iou", seeds) if SOURCE_ONLY in results else float("nan")
            iou, cost = results[run].mean("iou"), results[run].mean("step_cost_ratio")
            change = "" if run in (SOURCE_ONLY, SUPERVISED) else _number(iou - base, "+.3f")
            cells = (_number(iou, ".3f"), _number(results[run].deviation("iou"), ".3f"), change, _number(cost, ".2f"))
            rows.append((pair, profile, f"`{run}`", str(len(seeds)), *cells))
    if not rows:
        return "The benchmark has no row of this method."
    heads = ("pair", "profile", "row", "seeds", "IoU", "± over seeds", "against source only", "step cost")
    about = (
        f"IoU on the target's test part, without target labels in training or choice, from [{TABLE}](../../{TABLE})."
    )
    if name == "supervised":
        about += " `target_supervised` alone trains on target labels; `histogram` gives source windows the target's"
        about += " histogram (`--augment.match_target 1`); `coarse` does that to half of them, blurs more, and works at"
        about += " pixels 1.6 times as large."
    return f"{about}\n\n{table(heads, rows)}"


def _number(value: float, form: str) -> str:
    return "" if value != value else format(value, form)


def guide(root: Path) -> str:
    """Return docs/methods/README.md: its own text, and between the marks what is generated."""
    text = (root / GUIDE).read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    return f"{before}{MARKS[0]}\n\n{_generated(root)}\n\n{MARKS[1]}{after}".rstrip("\n")


def _generated(root: Path) -> str:
    from napari_em_da.methods import METHODS
    from napari_em_da.selection import CRITERIA, DEFAULT_CRITERIA
    from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO

    tried = [_tried(entry.method) for entry in DEFAULT_PORTFOLIO]
    methods = [(f"[`{n}`]({n}.md)", plain(METHODS.summary(n)), f"the {_reads(METHODS[n])}") for n in names()]
    criteria = [
        (f"`{name}`", plain(CRITERIA.summary(name)), "yes" if name in DEFAULT_CRITERIA else "no")
        for name in (*DEFAULT_CRITERIA, *(n for n in CRITERIA.names() if n not in DEFAULT_CRITERIA))
    ]
    parts = [
        "## The methods",
        table(("method", "what it does", "reads"), methods),
        f"Unless told otherwise, `auto` tries {', '.join(tried)}, and the source model as it is.",
        "## The scores in choice.md",
        table(("score", "what it looks at", "chooses"), criteria),
        *_recovered(root / TABLE),
    ]
    return "\n\n".join(parts)


def _tried(method: Any) -> str:
    link = f"[`{method.name}`]({method.name}.md)"
    inner = [part["name"] for part in method.options.get("parts", ())]
    return f"{link} of {' and '.join(f'`{name}`' for name in inner)}" if inner else link


def _recovered(path: Path) -> Iterator[str]:
    """Yield how far ``auto`` came on each pair of the benchmark, if there is one."""
    from napari_em_da.experiments.results import Gap, summarise
    from napari_em_da.experiments.rows import read_table

    if not path.is_file():
        return
    gaps = {group: Gap.of(results) for group, results in summarise(read_table(path)).items()}
    lines = [
        f"- {pair} ({profile} profile, seeds: {gap.seeds}): {gap}." for (pair, profile), gap in gaps.items() if gap
    ]
    if lines:
        yield "## How far auto came"
        yield "On pairs of real microscopes, IoU on a part of the target that was set aside:"
        yield "\n".join(lines)
