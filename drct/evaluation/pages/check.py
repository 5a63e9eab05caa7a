"""The page of a checked set of images, with the images that have faults, and the files beside it."""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from drct.data.doctor.check import Checked
from drct.data.doctor.findings import KINDS, Finding
from drct.data.file_lists import list_entry
from drct.data.parallel import run_parallel
from drct.errors import DRCTError
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.pages.pictures import thumbnail
from drct.evaluation.pages.rows import relative_url
from drct.files import archive, write_text
from drct.images.bgr import read_image

TABLE = "findings.csv"
MOST_SHOWN = 100  # findings of a kind; the table has all


def check_page_path(page: Path, sources: Sequence[Path]) -> None:
    """Raise `DRCTError` if the page is not HTML, or its folder cannot be written, lies among images or is not a page's.

    Args:
        page: Path of the page.
        sources: Folders of the images that are checked, or compared with.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise DRCTError(f"the page is HTML, but {page} is not: -o {page.with_suffix('.html')}")
    folder = page.with_suffix("")
    for source in sources:
        if folder.resolve().is_relative_to(source.resolve()):
            raise DRCTError(
                f"the pictures of the page would lie among the images of {source}, in {folder}: -o FILE elsewhere"
            )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TABLE).is_file():
        raise DRCTError(
            f"the pictures of the page would get into {folder}, which has other files: -o FILE of another name"
        )
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DRCTError(f"cannot write to {existing}, where the pictures of the page would be: -o FILE elsewhere")


def write_check_page(page: Path, checked: Checked, processes: int) -> None:
    """Write the page, and thumbnails and a table of all findings, findings.csv, to a folder of its name beside it."""
    folder = page.with_suffix("")
    write_text(folder / TABLE, _table(checked.findings))  # first, as it tells whose folder it is
    shown = {kind: [each for each in checked.findings if each.kind == kind][:MOST_SHOWN] for kind in KINDS}
    thumbnails = _write_thumbnails(folder, checked, [each for some in shown.values() for each in some], processes)
    counts = Counter(finding.kind for finding in checked.findings)
    sections = [_section(kind, shown[kind], counts[kind], checked, thumbnails, page) for kind in KINDS if counts[kind]]
    text = TEMPLATES.get_template("check.html").render(
        title=f"Check of {checked.folder}",
        checked=checked,
        left_out=len(checked.left_out()),
        sections=sections,
        table=relative_url(folder / TABLE, page),
    )
    write_text(page, text)
    for stale in set(folder.glob(f"{'[0-9a-f]' * 16}.jpg")).difference(thumbnails.values()):  # of an earlier check
        stale.unlink(missing_ok=True)


def write_exclude_list(file: Path, checked: Checked) -> tuple[int, list[str]]:
    """Write the images to leave out, as the option `exclude` of datasets reads them.

    A list of other images, which may have been edited, is archived.

    Returns:
        The number of images to leave out, and names among them that no list can hold.
    """
    left_out = checked.left_out()
    unlisted = [name for name in left_out if list_entry(name) is None]
    lines = [f"# Images of {' '.join(str(checked.folder).split())} to leave out, as `drct prepare check` found"]
    for name, findings in left_out.items():
        reasons = "; ".join(f"{KINDS[each.kind].title}: {each.words}" for each in findings)
        entry = list_entry(name) or f"# not listed, rename it: {name!r}"
        lines += [f"# {' '.join(reasons.split())}", entry]
    text = "\n".join(lines) + "\n"
    if file.is_file() and file.read_bytes() != text.encode("utf-8", "replace"):
        archive(file)
    write_text(file, text)
    return len(left_out), unlisted


def _table(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "finding", "measured", "other image"])
    writer.writerows([each.name, KINDS[each.kind].title, each.words, each.other] for each in findings)
    return text.getvalue()


def _write_thumbnails(folder: Path, checked: Checked, findings: Sequence[Finding], processes: int) -> dict[Path, Path]:
    """Write thumbnails of images and of those to show beside them. Returns the files, but for unreadable images."""
    images = {path for each in findings for path in (checked.folder / each.name, Path(each.other)) if path.is_file()}
    results, _ = run_parallel(
        {image: partial(_write_thumbnail, folder, image) for image in sorted(images)}, processes, "thumbnails"
    )
    return results


def _write_thumbnail(folder: Path, image: Path) -> Path:
    file = folder / f"{hashlib.blake2b(os.fsencode(image), digest_size=8).hexdigest()}.jpg"
    data = thumbnail(read_image(image))
    try:
        file.write_bytes(data)  # at once: without the page, which is written last, it is of no use
    except OSError as error:
        raise DRCTError(f"cannot write {file}: {error.strerror or error}. Free space for it.") from error
    return file


def _section(
    kind: str, findings: Sequence[Finding], number: int, checked: Checked, thumbnails: dict[Path, Path], page: Path
) -> dict[str, Any]:
    rows = []
    for finding in findings:
        pictures = [
            {"file": relative_url(thumbnails[image], page), "name": str(image)}
            for image in (checked.folder / finding.name, Path(finding.other))
            if image in thumbnails
        ]
        rows.append({"name": finding.name, "words": finding.words, "other": finding.other, "pictures": pictures})
    return {
        "id": kind,
        "title": KINDS[kind].title,
        "remedy": KINDS[kind].remedy,
        "number": number,
        "of_set": kind in checked.of_set,
        "rows": rows,
    }
