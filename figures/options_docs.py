"""Write the documents that follow from the schema of option files, drct/schema/options.py.

They are options/schema.json, with which editors complete and check option files, and the tables in docs/options.md.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import VERSION
from pydantic.json_schema import GenerateJsonSchema

from drct.errors import one_line_errors
from drct.files import write_text
from drct.schema.options import (
    NETWORKS,
    Datasets,
    DRCTNetwork,
    HATNetwork,
    MustBe,
    Options,
    Section,
    TrainingOptions,
)
from drct.text import markdown_table

ROOT = Path(__file__).resolve().parents[1]
MARKER = "<!-- options: written by figures/options_docs.py -->\n"  # what follows it is generated


def options_tables() -> str:
    """Return a Markdown table for each section of option files: key, type, default and meaning."""
    parts = []
    for place, section in _sections("", TrainingOptions):
        told = DRCTNetwork.model_fields if section is HATNetwork else {}
        rows = [
            [
                f"`{key}`",
                _type_words(field.annotation, field.metadata),
                _default_words(section, key),
                str(field.description),
            ]
            for key, field in section.model_fields.items()
            if key not in told or field.description != told[key].description
        ]
        heading = f"## `{place}`\n\n{_summary(section)}\n" if place else "## Top level\n"
        parts.append(f"{heading}\n{markdown_table(['key', 'value', 'default', 'meaning'], rows, left=4)}")
    return "\n".join(parts)


def _sections(place: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    yield place, section
    for key, field in section.model_fields.items():
        inner = next(_sections_in(field.annotation), None)
        if inner is None:
            continue
        named = get_origin(field.annotation) is not None and "dict" in str(field.annotation)
        if issubclass(inner, Datasets):
            named, inner = True, next(_sections_in(inner.model_fields["train"].annotation))
        yield from _sections(f"{place}{'.' * bool(place)}{key}{'.NAME' * named}", inner)
        if inner is DRCTNetwork:
            yield "network_g` of type `HAT", HATNetwork


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)


def _type_words(annotation: Any, metadata: Any = ()) -> str:
    """Return in words what a key takes."""
    if words := [entry.words for entry in metadata if isinstance(entry, MustBe)]:
        return words[-1]  # of the outermost annotation
    if get_origin(annotation) is Annotated:
        return _type_words(annotation.__origin__, annotation.__metadata__)
    if get_origin(annotation) is Literal:
        return " or ".join(str(value) or "''" for value in get_args(annotation))
    if annotation is Any:
        return "anything"
    if annotation is dict or get_origin(annotation) is dict or next(_sections_in(annotation), None) is annotation:
        return "section"
    parts = [_type_words(part) for part in get_args(annotation) if part is not NoneType]
    return " or ".join(dict.fromkeys(parts))


def _default_words(section: type[Section], key: str) -> str:
    """Return the default, or whether the key is required; for training too if that differs."""
    fields = [
        base.model_fields[key] for base in section.__mro__ if issubclass(base, Section) and key in base.model_fields
    ]
    own, general = [
        "required"
        if field.is_required()
        else ""
        if field.default in (None, []) or field.default_factory
        else f"`{json.dumps(field.default, ensure_ascii=False)}`"
        for field in (fields[0], fields[-1])
    ]
    if own == general or not section.__name__.startswith("Training"):
        return own
    return f"{own} in training" if not general else f"{general}; {own} in training"


def _summary(section: type[Section]) -> str:
    general = section.__mro__[1] if section.__name__.startswith("Training") else section
    return (general.__doc__ or "").split("\n\n")[0]


class _WithoutTitles(GenerateJsonSchema):
    """JSON schema without a title for every key, which editors would show in place of the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False."""
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of option files of training and testing, for editors."""
    schema = Options.model_json_schema(schema_generator=_WithoutTitles)
    definitions = schema["$defs"]
    definitions["Network"]["properties"]["type"]["not"] = {"enum": list(NETWORKS)}
    names = {"patternProperties": {"^(train|val|test)_": {"$ref": "#/$defs/Dataset"}}, "additionalProperties": False}
    definitions["Datasets"] |= names
    training = {"val": {"required": ["val_freq"]}, "datasets": {"required": ["train"]}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "Option file of DRCT",
        "description": "Options of a training or test run, in BasicSR's format.",
        "$comment": f"made by pydantic {'.'.join(VERSION.split('.')[:2])}",  # others write the same in another way
        "if": {"required": ["train"]},
        "then": {"required": ["logger", "scale", "network_g"], "properties": training},
    }


def documents() -> dict[Path, str]:
    """Return the documents as they should be, by path."""
    table = ROOT / "docs" / "options.md"
    introduction = table.read_text(encoding="utf-8").partition(MARKER)[0]
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    return {ROOT / "options" / "schema.json": f"{schema}\n", table: f"{introduction}{MARKER}\n{options_tables()}"}


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Write the documents, or with --check return 1 if one is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is not up to date")
    args = parser.parse_args(argv)
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if args.check:
            print(f"error: {path} is not up to date: python figures/options_docs.py writes it", file=sys.stderr)
        else:
            write_text(path, documents()[path])
            print(f"wrote {path}")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
