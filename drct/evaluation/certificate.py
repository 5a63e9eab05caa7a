"""Making the certificate of a test run, and comparing that of a repetition with it."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drct.evaluation.hashes import flat_options, hash_of_file, hashes_of_options
from drct.evaluation.metric_table import MetricTable, finite
from drct.evaluation.run_settings import device_name
from drct.files import write_text
from drct.runtime import distributed
from drct.runtime.weight_hashes import hashes_of_weights
from drct.schema.certificate import FILE_NAME, Certificate, CertifiedDataset, CertifiedImage, Hashes
from drct.text import count

# -------------------------------------------------------------------------------------------------------------- making


def certify(
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    network: nn.Module,
    device: torch.device,
    tables: Iterable[MetricTable],
) -> Certificate:
    """Make the certificate of a test run.

    Args:
        settings: Result of `run_settings`.
        given: Options as they were read from the option file, with the changes of `--force_yml`.
        network: The network that was tested.
        device: Where it ran.
        tables: Tables of the datasets, with hashes of their images.
    """
    opt = settings["options"]
    weights = opt["path"].get("pretrain_network_g")
    options = {**given, "manual_seed": opt["manual_seed"]}  # which random weights follow from
    options = json.loads(json.dumps(options, default=str))  # as they come back from the file: dates of YAML are text
    hashes = Hashes(
        options=hashes_of_options(options),
        weights=hashes_of_weights(network),
        weight_file=hash_of_file(Path(weights)) if weights else None,
    )
    return Certificate(
        name=opt["name"],
        date=settings["date"],
        processes=distributed.world_size(),
        threads=torch.get_num_threads(),
        versions=settings["versions"],
        device=device_name(device),
        precision=opt.get("precision") or "fp32",
        options=options,
        sha256=hashes,
        datasets={table.dataset: _certified(table) for table in tables},
    )


def _certified(table: MetricTable) -> CertifiedDataset:
    images = {
        _text(name): CertifiedImage(**hashes, metrics=_numbers(table.images.get(name, {})))
        for name, hashes in table.hashes.items()
    }
    failed = {_text(path): _text(reason) for path, reason in table.failed.items()}
    return CertifiedDataset(images=images, mean=_numbers(table.mean()), failed=failed)


def _text(name: str) -> str:
    """Replace what is no text, as names of files may hold."""
    return name.encode("utf-8", "replace").decode()


def _numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace values that are not a number by None, as they come back from the file."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write `certificate.json`. Raises `DRCTError` if that fails."""
    content = certificate.model_dump(mode="json", exclude={"datasets"})
    content["datasets"] = finite({name: dataset.model_dump() for name, dataset in certificate.datasets.items()})
    write_text(folder / FILE_NAME, json.dumps(content, indent=1, ensure_ascii=False))


# ----------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Tolerance:
    """Largest difference of a figure that counts as none: of the metrics by name, and of all others."""

    others: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def of(self, metric: str) -> float:
        """Return the tolerance of a metric."""
        return self.metrics.get(metric, self.others)


@dataclass
class Comparison:
    """What differs, and what differs without counting, one line each; and the largest difference of each metric."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)


def compare_certificates(
    old: Certificate, new: Certificate, options: Mapping[str, Any], tolerance: Tolerance | None
) -> Comparison:
    """Compare the certificate of a run with that of its repetition, whose options had these changes by the user.

    Without a tolerance, figures, results, versions and device must be the same. With one, other versions and another
    device become notes, as do results that differ in pixels but not in a metric by more than the tolerance. Images,
    weights and options must always be the same.
    """
    found = Comparison()
    found.differences += _changed_sections("options", old.sha256.options, hashes_of_options(old.options))
    found.differences += _changed_options(old.options, options)
    found.differences += _changed_sections("weights", old.sha256.weights, new.sha256.weights)
    environment = [
        f"version of {name}: {new.versions.get(name)}, was {old.versions.get(name)}"
        for name in old.versions | new.versions
        if new.versions.get(name) != old.versions.get(name)
    ]
    if new.device != old.device:
        environment.append(f"device: {new.device}, was {old.device}")
    (found.differences if tolerance is None else found.notes).extend(environment)
    for name in old.datasets | new.datasets:
        if name in old.datasets and name in new.datasets:
            _compare_datasets(name, old.datasets[name], new.datasets[name], tolerance, found)
        else:
            found.differences.append(f"dataset {name}: {_missing(name in old.datasets)}")
    if any(found.largest.values()) and new.threads != old.threads:  # which may be why
        found.notes.append(f"threads: {new.threads}, was {old.threads}")
    return found


def _changed_sections(what: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Compare hashes: of weights, or of the options in a certificate, which tell whether it was edited."""
    lines = []
    for name in old | new:
        if name not in old or name not in new:
            lines.append(f"{what}: {name} {_missing(name in old)}")
        elif new[name] != old[name]:
            lines.append(f"{what}: {name} {'differs' if what == 'weights' else 'was edited in the certificate'}")
    return lines


def _changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, now = dict(flat_options(old)), dict(flat_options(new))
    return [
        f"options: {key} is {_shown(now, key)}, was {_shown(before, key)}"
        for key in before | now
        if _shown(now, key) != _shown(before, key)
    ]


def _shown(options: Mapping[str, Any], key: str) -> str:
    return json.dumps(options[key], default=str) if key in options else "not given"


def _missing(was_there: bool) -> str:
    return "is not there now" if was_there else "was not there"


def _compare_datasets(
    name: str, old: CertifiedDataset, new: CertifiedDataset, tolerance: Tolerance | None, found: Comparison
) -> None:
    for image in old.images | new.images:
        if image in old.images and image in new.images:
            differing, notes = _compare_images(old.images[image], new.images[image], tolerance, found.largest)
        else:
            differing, notes = [f"{_missing(image in old.images)}, or could not be measured"], []
        for lines, parts in ((found.differences, differing), (found.notes, notes)):
            if parts:
                lines.append(f"{name}, {image}: {'; '.join(parts)}")
    if len(old.failed) != len(new.failed):
        found.differences.append(f"{name}: {_failures(new.failed)}, was {_failures(old.failed)}")
    for metric, value in old.mean.items():  # which an edit of the file alone can change, if all images agree
        _, too_far = _distance(metric, value, new.mean.get(metric), tolerance)
        if too_far:
            found.differences.append(f"{name}, mean: {_figures(metric, value, new.mean.get(metric))}")


def _failures(failed: Mapping[str, str]) -> str:
    first = f", the first: {min(failed)}: {failed[min(failed)]}" if failed else ""
    return f"{len(failed)} failed{first}"


def _compare_images(
    old: CertifiedImage, new: CertifiedImage, tolerance: Tolerance | None, largest: dict[str, float]
) -> tuple[list[str], list[str]]:
    """Return what differs, what differs without counting, and add to the largest differences of metrics."""
    differing = [
        f"the {label} image differs"
        for label, before, now in (("low-resolution", old.lq, new.lq), ("ground-truth", old.gt, new.gt))
        if now != before
    ]
    for metric in old.metrics | new.metrics:
        before, now = old.metrics.get(metric), new.metrics.get(metric)
        distance, too_far = _distance(metric, before, now, tolerance)
        largest[metric] = max(distance, largest.get(metric, 0.0))
        if too_far:
            differing.append(_figures(metric, before, now))
    if new.result == old.result:
        return differing, []
    result = ["the result differs in pixels"]
    return (differing, result) if tolerance and old.metrics else (differing + result, [])


def _distance(metric: str, before: float | None, now: float | None, tolerance: Tolerance | None) -> tuple[float, bool]:
    """Return how far two figures are apart, and whether that is too far."""
    if before == now:  # infinite ones too, and those that are not there
        return 0.0, False
    distance = math.inf if before is None or now is None else abs(now - before)
    return distance, not distance <= (tolerance.of(metric) if tolerance else 0.0)


def _figures(metric: str, before: float | None, now: float | None) -> str:
    return f"{metric} {'none' if now is None else now}, was {'none' if before is None else before}"


def summary(found: Comparison, images: int, tolerance: Tolerance | None) -> str:
    """Return the outcome of a comparison in a few words."""
    largest = ", ".join(f"{metric} {value:.2g}" for metric, value in found.largest.items() if value)
    within = f" within the tolerance; largest differences: {largest}" if tolerance and largest else " to the digit"
    if not found.differences:
        return f"the same{within}: {count(images, 'image')}, weights and options"
    return f"not the same: {count(len(found.differences), 'difference')}{f'; largest: {largest}' if largest else ''}"
