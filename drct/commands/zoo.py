"""List the weights that are known: their networks, training data and PSNR, where to get them, and which are here."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drct.commands.common import command_parser
from drct.errors import one_line_errors
from drct.runtime.zoo import Found, Release, weights_here

NOTES = """\
Files are recognized by their SHA-256, where it is known, in experiments/pretrained_models of the working directory and
of the repository. `drct info FILE` tells more about one.
"""
HEADER = ("file", "network", "scale", "parameters", "PSNR on Set5", "trained on", "licence", "here")


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct zoo`."""
    parser = command_parser(__doc__, NOTES)
    parser.add_argument("--json", action="store_true", help="print everything that is known, as JSON")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct zoo`. Returns 0, or 2 if a file cannot be read."""
    args = argument_parser().parse_args(argv)
    found, others = weights_here()
    if args.json:
        content = {"weights": [_as_json(each) for each in found], "others": [str(path) for path in others]}
        print(json.dumps(content, indent=2))
    else:
        print("\n".join([*_table(found), "", *_remarks(found, others)]))
    return 0


def _as_json(found: Found) -> dict[str, Any]:
    return {
        **asdict(found.release),
        "path": None if found.path is None else str(found.path),
        "sha256_of_path": found.sha256,
        "identity": found.identity or "missing",
        "twin": found.twin.file if found.twin else None,
    }


def _table(found: Sequence[Found]) -> list[str]:
    rows = [HEADER, *(_row(each) for each in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(found: Found) -> tuple[str, ...]:
    row = found.release
    psnr = f"{row.psnr['Set5']:.2f} {'measured' if row.measured else 'published'}" if "Set5" in row.psnr else "-"
    parameters = f"{row.parameters / 1e6:.1f} M"
    return row.file, row.network, f"x{row.scale}", parameters, psnr, row.data, row.source.licence or "-", _here(found)


def _here(found: Found) -> str:
    if found.path is None:
        return "missing"
    name = f", as {found.path.name}" if found.path.name != found.release.file else ""
    return {"published": "yes", "unknown": "yes, SHA-256 not known", "other": "another file"}[found.identity] + name


def _remarks(found: Sequence[Found], others: Sequence[Path]) -> list[str]:
    """Return lines about files that are not what they are called, other files, and where to get what is missing."""
    lines = []
    for each in found:
        if each.identity == "other":
            what = f"it is {_called(each.twin)}" if each.twin else f"not {each.release.sha256}, which was published"
            lines.append(f"{each.path} is another file: SHA-256 {each.sha256}, {what}")
    if others:
        lines.append(f"other files: {', '.join(map(str, others))}")
    missing = [each.release for each in found if each.path is None]
    for source in dict.fromkeys(row.source for row in missing if row.source.links):
        lines.append(f"weights of the {source.name} project: {' and '.join(source.links)}")
    if renamed := [row for row in missing if row.published_as]:
        lines.append(f"published under other names: {', '.join(map(_called, renamed))}")
    lines.append("Put files into experiments/pretrained_models. PSNR is of Y, in dB; licences are the projects'.")
    return lines


def _called(row: Release | None) -> str:
    if row is None:
        return ""
    return f"{row.file} ({row.published_as})" if row.published_as else row.file
