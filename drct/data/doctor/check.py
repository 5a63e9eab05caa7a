"""The check of a set of images: what `drct prepare check` does."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from drct.data.doctor.duplicates import candidates, groups, identical_groups, similar_pairs, sources_of
from drct.data.doctor.examine import Examined, examine
from drct.data.doctor.findings import KINDS, Finding, findings_of_image, findings_of_pair
from drct.data.image_lists import find_images, image_size
from drct.data.pair_sizes import whole_scale
from drct.data.pairs import common_template, partners
from drct.data.parallel import run_parallel
from drct.errors import DRCTError

MOST = 0.5  # share of the images from which on a fault is one of the set
LOW_RESOLUTION = re.compile(r"(?i)(.*[_-])?lr(x\d|bicx\d|_|$).*")  # folders of benchmarks that have no ground truth


@dataclass(frozen=True)
class Checked:
    """A set of images and the findings."""

    folder: Path
    images: int
    versions: int  # images that are reduced copies or patches of others, by their names
    benchmarks: int  # images of benchmarks that were compared with
    findings: list[Finding]  # by kind, the worst first
    of_set: dict[str, int]  # kinds that most images have: their number

    def left_out(self) -> dict[str, list[Finding]]:
        """Return the images to leave out, sorted by name, and why."""
        reasons: dict[str, list[Finding]] = {}
        for finding in self.findings:
            if finding.leave_out and finding.kind not in self.of_set:
                reasons.setdefault(finding.name, []).append(finding)
        return dict(sorted(reasons.items()))


def check_images(gt: Path, lq: Path | None, against: Sequence[Path], processes: int) -> Checked:
    """Check a folder of ground truth, with its low-resolution images, if given, and against benchmarks.

    Without `lq`, folders below `gt` are checked too.

    Raises:
        DRCTError: if there are no images.
    """
    files = find_images(gt, recursive=lq is None)
    pairs, findings = _paired(gt, lq, files)
    benchmarks, broken = _benchmark_images(against, processes)
    findings += broken
    jobs = {file: partial(examine, file, pairs.get(file), benchmarks) for file in files}
    examined, failed = run_parallel(jobs, processes, "check")
    names = {file: file.relative_to(gt).as_posix() for file in files}
    findings += [Finding(names[file], "unreadable", reason) for file, reason in failed.items()]
    readable = [file for file in files if file in examined]
    for file in readable:
        findings += _findings_of(names[file], examined[file], pairs.get(file))
    findings += _wrong_sizes({file: examined[file] for file in readable}, names, pairs)
    findings += _duplicates(readable, [names[file] for file in readable], examined, processes)
    kinds = list(KINDS)
    findings.sort(key=lambda finding: (kinds.index(finding.kind), -finding.severity, finding.name))
    counts = Counter(finding.kind for finding in findings)
    of_set = {kind: number for kind, number in counts.items() if KINDS[kind].of_set and number > MOST * len(files) > 1}
    versions = len(files) - len(set(sources_of(list(names.values()))))
    return Checked(gt, len(files), versions, len(benchmarks), findings, of_set)


def _paired(gt: Path, lq: Path | None, files: Sequence[Path]) -> tuple[dict[Path, Path], list[Finding]]:
    """Pair the images of two folders by their names, as training does. Findings are those that have no partner."""
    if lq is None:
        return {}, []
    inputs = find_images(lq)
    template = common_template(files, {file.stem for file in inputs}) or "{}"
    pairs, alone, extra = partners(files, inputs, template)
    words = f"there is no low-resolution image of its name in {lq}"
    findings = [Finding(file.name, "alone", words) for file in alone]
    words = f"there is no ground truth of its name in {gt}"
    findings += [Finding(f"{lq.name}/{file.name}", "alone", words, leave_out=False) for file in extra]
    return pairs, findings


def _benchmark_images(folders: Sequence[Path], processes: int) -> tuple[tuple[Path, ...], list[Finding]]:
    """List the readable images of benchmarks; of several sizes of an image, the ground truth."""
    files: list[Path] = []
    for folder in folders:
        found = find_images(folder, recursive=True)
        truths = [file for file in found if not any(map(LOW_RESOLUTION.fullmatch, file.relative_to(folder).parts[:-1]))]
        files += truths or found
    if not files:
        return (), []
    sizes, failed = run_parallel({file: partial(image_size, file) for file in files}, processes, "benchmarks")
    if not sizes:
        raise DRCTError(f"--against: none of the images of {folders[0]} can be read")
    findings = [Finding(str(file), "unreadable", reason, leave_out=False) for file, reason in failed.items()]
    return tuple(sorted(sizes)), findings


def _findings_of(name: str, examined: Examined, lq: Path | None) -> Iterator[Finding]:
    yield from findings_of_image(name, examined.measures)
    if examined.pair is not None:
        yield from findings_of_pair(name, examined.pair, str(lq))
    if examined.lq_problem:
        yield Finding(name, "unreadable", examined.lq_problem)
    if examined.leak is not None:
        file, overlap = examined.leak
        words = (
            f"{overlap.share:.0%} of it shows {overlap.share_of_reference:.0%} of {file}"
            f"{', mirrored' if overlap.mirrored else ''} (correlation {overlap.correlation:.2f})"
        )
        yield Finding(name, "leak", words, overlap.share_of_reference, str(file))


def _wrong_sizes(
    examined: Mapping[Path, Examined], names: Mapping[Path, str], pairs: Mapping[Path, Path]
) -> Iterator[Finding]:
    """Find pairs whose sizes do not differ by the scale of the set, which is that of most of its pairs."""
    sizes = {file: (each.size, each.lq_size) for file, each in examined.items() if each.lq_size is not None}
    ratios = {file: whole_scale(*both) for file, both in sizes.items()}
    scale = Counter(ratio for ratio in ratios.values() if ratio and ratio > 1).most_common(1)
    for file, ((height, width), (lq_height, lq_width)) in sizes.items():
        if not scale or ratios[file] != scale[0][0]:
            usual = f"×{scale[0][0]}, as in the set" if scale else "a whole scale above 1"
            words = f"ground truth {width}×{height}, low-resolution image {lq_width}×{lq_height}: not {usual}"
            yield Finding(names[file], "size", words, 0.0, str(pairs[file]))


def _duplicates(
    files: Sequence[Path], names: Sequence[str], examined: Mapping[Path, Examined], processes: int
) -> list[Finding]:
    """Find images that show the same. Of each group, those of the source of the largest image are kept."""
    sources = sources_of(names)
    digests = [examined[file].digest for file in files]
    findings: list[Finding] = []
    for group in identical_groups(digests, sources):
        findings += _surplus(group, files, names, sources, examined, "identical", "the same pixels as {}")
    if files:
        near = candidates(np.stack([examined[file].hashes for file in files]), digests, sources)
        flat = {number for number, file in enumerate(files) if examined[file].measures.textured == 0}
        similar = similar_pairs(files, [pair for pair in near if flat.isdisjoint(pair)], processes)
        for group in groups([(a, b) for a, b, _ in similar], sources):
            findings += _surplus(group, files, names, sources, examined, "similar", "the same picture as {}")
    return findings


def _surplus(
    group: Sequence[int],
    files: Sequence[Path],
    names: Sequence[str],
    sources: Sequence[str],
    examined: Mapping[Path, Examined],
    kind: str,
    words: str,
) -> Iterator[Finding]:
    """Yield all images of a group but those of the source that is kept, that of the largest image."""

    def pixels(number: int) -> tuple[int, str]:
        height, width = examined[files[number]].size
        return -height * width, names[number]

    kept = min(group, key=pixels)
    for number in group:
        if sources[number] != sources[kept]:
            yield Finding(names[number], kind, words.format(names[kept]), len(group), str(files[kept]))
