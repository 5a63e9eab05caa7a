"""`drct prepare check`: find the faults of a set of images before training on it."""

import os
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from drct.images.listing import check_folder
from drct.text import count


def add_check(commands: Any) -> None:
    """Add the command to the parser of `drct prepare`."""
    words = (
        "look for faulty pairs, duplicates, flat, blurred, enlarged and JPEG-damaged images, and images of benchmarks; "
        "write a page and a list of images to leave out. Nothing else is changed. The exit status is 1 if there is a "
        "finding. docs/check-data.md explains the findings."
    )
    check = commands.add_parser("check", help="find the faults of a set of images", description=words)
    check.add_argument("source", type=Path, metavar="GT", help="folder of high-resolution images")
    check.add_argument("lq", type=Path, nargs="?", metavar="LR", help="folder of their low-resolution images")
    against = "folders of benchmarks, searched recursively, whose images must not be in the set, not even in part"
    check.add_argument("--against", type=Path, nargs="+", default=[], metavar="BENCHMARK", help=against)
    page = "page to write, default %(default)s; replaced, as its folder is; another list beside it is archived"
    check.add_argument("-o", "--output", type=Path, default=Path("check.html"), metavar="FILE", help=page)
    check.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core")


def main(args: Namespace) -> int:
    """Run the command. Returns 0, or 1 if there is a finding."""
    folders = [args.source, *([args.lq] if args.lq else []), *args.against]
    for folder in folders:
        check_folder(folder)
    from drct.data.doctor.check import check_images  # with PyTorch
    from drct.data.doctor.findings import KINDS
    from drct.evaluation.pages.check import check_page_path, write_check_page, write_exclude_list

    check_page_path(args.output, folders)
    checked = check_images(args.source, args.lq, args.against, args.processes)
    write_check_page(args.output, checked, args.processes)
    exclude = args.output.with_name(f"{args.output.stem}_exclude.txt")
    left_out, unlisted = write_exclude_list(exclude, checked)
    counts = Counter(finding.kind for finding in checked.findings)
    for kind in KINDS:
        if counts[kind]:
            note = " (most of the set: see the page)" if kind in checked.of_set else ""
            print(f"{counts[kind]:7}  {KINDS[kind].title}{note}")
    found = count(len(checked.findings), "finding") if checked.findings else "no faults found"
    print(f"{count(checked.images, 'image')} checked, {found}: {args.output}; {left_out} to leave out: {exclude}")
    if unlisted:
        names = count(len(unlisted), "name")
        print(f"{names} among them cannot be in a list, such as {unlisted[0]!r}: rename or delete the files")
    return int(bool(checked.findings))
