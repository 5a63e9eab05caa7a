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
from drct.data.parallel import run_parallel
from drct.errors import DRCTError
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.pages.pictures import thumbnail
from drct.evaluation.pages.rows import relative_url
from drct.files import make_folder, write_text
from drct.images.bgr import read_image

MOST_SHOWN = 100  # findings of a kind; the table has all


def write_check_page(page: Path, checked: Checked, processes: int) -> None:
    """Write the page, and thumbnails and a table of all findings, findings.csv, to a folder of its name beside it."""
    folder = page.with_suffix("")
    shown = {kind: [each for each in checked.findings if each.kind == kind][:MOST_SHOWN] for kind in KINDS}
    thumbnails = _write_thumbnails(folder, checked, [each for some in shown.values() for each in some], processes)
    write_text(folder / "findings.csv", _table(checked.findings))
    counts = Counter(finding.kind for finding in checked.findings)
    sections = [_section(kind, shown[kind], counts[kind], checked, thumbnails, page) for kind in KINDS if counts[kind]]
    text = TEMPLATES.get_template("check.html").render(
        title=f"Check of {checked.folder}",
        checked=checked,
        left_out=len(checked.left_out()),
        sections=sections,
        table=relative_url(folder / "findings.csv", page),
    )
    write_text(page, text)


def write_exclude_list(file: Path, checked: Checked) -> int:
    """Write the images to leave out, as the option `exclude` of datasets reads them. Returns their number."""
    left_out = checked.left_out()
    lines = [f"# Images of {checked.folder} to leave out, as `drct prepare check` found"]
    for name, findings in left_out.items():
        reasons = "; ".join(f"{KINDS[each.kind].title}: {each.words}" for each in findings)
        lines += [f"# {' '.join(reasons.split())}", name]
    write_text(file, "\n".join(lines) + "\n")
    return len(left_out)


def _table(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "finding", "measured", "other image"])
    writer.writerows([each.name, KINDS[each.kind].title, each.words, each.other] for each in findings)
    return text.getvalue()


def _write_thumbnails(folder: Path, checked: Checked, findings: Sequence[Finding], processes: int) -> dict[Path, Path]:
    """Write thumbnails of images and of those to show beside them. Returns the files, but for unreadable images."""
    images = {path for each in findings for path in (checked.folder / each.name, Path(each.other)) if path.is_file()}
    make_folder(folder)
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
