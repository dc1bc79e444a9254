"""Markdown from docstrings in reStructuredText and from option models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from inspect import cleandoc
from textwrap import dedent
from typing import Any

from pydantic import BaseModel

SHOWN = 60  # characters of a default
_SECTION = re.compile(r"^([A-Z][A-Za-z ]*)\n-{3,}\n", re.MULTILINE)
_ADVICE = r"When it %s[:,]?\s+(.+?)(?=\s*When it (?:helps|fails)\b|\n\s*\n|\Z)"


@dataclass(frozen=True)
class Docstring:
    """A docstring in Markdown; what it lacks is empty."""

    summary: str = ""
    body: str = ""
    notes: str = ""
    references: tuple[str, ...] = ()
    helps: str = ""
    fails: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Docstring:
        """Parse a docstring; "When it helps" and "When it fails" are sections or paragraphs of their own."""
        first, *rest = _SECTION.split(cleandoc(text or ""))
        sections = {"": first} | dict(zip(rest[::2], rest[1::2], strict=True))
        advice = {}
        for word in ("helps", "fails"):
            advice[word] = sections.get(f"When it {word}", "")
            for name in ("", "Notes"):
                found = re.search(_ADVICE % word, sections.get(name, ""), re.DOTALL)
                if found:
                    advice[word] = found[1]
                    sections[name] = sections[name].replace(found[0], "")
        summary, _, body = sections[""].strip().partition("\n\n")
        return cls(
            plain(markdown(summary)),
            markdown(body),
            markdown(sections.get("Notes", "")),
            references(sections.get("References", "")),
            *(plain(markdown(advice[word])) for word in ("helps", "fails")),
        )


def markdown(text: str) -> str:
    """Return reStructuredText as Markdown: formulas, citations and literal blocks; the rest is the same in both."""
    text = re.sub(r"\.\. math:: *\n?((?:.+\n?)+?)(?=\n\s*\n|\n*\Z)", _display, text)
    text = re.sub(r":math:`([^`]+)`", r"$`\1`$", text)
    text = re.sub(r"\[(\d+)\]_", r"[\1]", text)
    text = re.sub(r"::\n\n((?:(?: {4}.*)?\n?)+)", _literal, text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", text, flags=re.MULTILINE)).strip()


def _display(found: re.Match[str]) -> str:
    return f"```math\n{plain(found[1])}\n```"


def _literal(found: re.Match[str]) -> str:
    return f":\n\n```yaml\n{dedent(found[1]).strip()}\n```\n\n"


def references(text: str) -> tuple[str, ...]:
    """Return the references of a section, one text each, as ``[1] Authors (year), …``."""
    if ".. [" not in text:
        return entries(text)
    return tuple(
        f"{number} {plain(found)}"
        for number, found in re.findall(r"\.\. (\[\d+\])((?:(?!\.\. \[).)+)", text, re.DOTALL)
    )


def entries(references: str) -> tuple[str, ...]:
    """Return the references, one text each; a line that names no year continues the one before."""
    entries: list[str] = []
    for line in filter(None, map(str.strip, references.splitlines())):
        if entries and not re.search(r"\((?:19|20)\d\d\)", line):
            entries[-1] += f" {line}"
        else:
            entries.append(line)
    return tuple(entries)


def options(model: type[BaseModel]) -> str:
    """Return a table of the options of a model: name, default, values and description."""
    schema = model.model_json_schema()
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = model.model_fields[name].get_default(call_default_factory=True)
        shown = "required" if name in schema.get("required", ()) else f"`{_default(default)}`"
        described = plain(field.get("description", ""))
        rows.append((f"`{name}`", shown, _values(field, schema.get("$defs", {})), described))
    return table(("option", "default", "values", "description"), rows) if rows else "It has no options."


def _values(field: dict[str, Any], known: dict[str, Any]) -> str:
    """Return what a field accepts in words, from its JSON schema."""
    if "$ref" in field:
        return _values(known[field["$ref"].rsplit("/", 1)[-1]], known)
    if "anyOf" in field:
        return " or ".join(_values(option, known) for option in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    if kind == "null":
        return "absent"
    if kind == "array":
        items = field.get("prefixItems")
        if items:
            return f"{len(items)} values: {_values(items[0], known)}"
        return f"list of: {_values(field.get('items', {}), known)}"
    if kind == "object" and "properties" in field:
        return ", ".join(f"`{name}`" for name in field["properties"])
    if kind == "object":
        return f"name: {_values(field.get('additionalProperties') or {}, known)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    return words.get(kind, kind) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if "minimum" in field and "maximum" in field:
        return f" from {field['minimum']:g} to {field['maximum']:g}"
    found = [f"{word} {field[key]:g}" for key, word in signs.items() if key in field]
    return f" {' and '.join(found)}" if found else ""


def _default(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, BaseModel):
        return str(next(iter(value.model_dump(exclude_defaults=True).values()), ""))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        text = ", ".join(map(_default, value)) or "none"
        return text if len(text) <= SHOWN else f"{_default(value[0])}, {_default(value[1])}, …, {_default(value[-1])}"
    return (f"{value:g}" if isinstance(value, float) else str(value)) if value != {} else "none"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )


def plain(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())
