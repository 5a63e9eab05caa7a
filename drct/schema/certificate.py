"""The certificate of a test run: what the run depended on, and its figures, as `certificate.json` holds them."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from drct.errors import DRCTError
from drct.files import is_folder
from drct.text import brief

FILE_NAME = "certificate.json"
FORMAT: Final = 1  # of the file; a later version of the package may write another


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CertifiedImage(_Entry):
    """Hashes of an image's pixels, see `drct.evaluation.hashes`, and its metrics; None for one that is not a number."""

    lq: str
    gt: str | None = None
    result: str
    metrics: dict[str, float | None] = {}


class CertifiedDataset(_Entry):
    """Images of a dataset by name, the means of their metrics, and reasons of failures by path."""

    images: dict[str, CertifiedImage]
    mean: dict[str, float | None]
    failed: dict[str, str]


class Hashes(_Entry):
    """SHA-256 of the options by section, and of the weights in the network by part; and of the weight file."""

    options: dict[str, str]
    weights: dict[str, str]
    weight_file: str | None = None  # None for random weights, or a folder


class Certificate(_Entry):
    """Content of `certificate.json`."""

    certificate: Literal[1] = FORMAT
    name: str
    date: str
    processes: int
    threads: int  # of each process
    versions: dict[str, str]
    device: str
    precision: str
    options: dict[str, Any]  # as they were read, with all that `--force_yml` changed
    sha256: Hashes
    datasets: dict[str, CertifiedDataset]


def read_certificate(path: Path) -> Certificate:
    """Read a certificate, or that in a folder. Raises `DRCTError` if it cannot be read or is something else."""
    if is_folder(path):
        path = path / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DRCTError(f"cannot read certificate {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DRCTError(f"{path} is not a certificate of drct test: it is no JSON") from error
    if not isinstance(content, dict) or "certificate" not in content:
        raise DRCTError(f"{path} is not a certificate: drct test writes certificate.json to its folder of results")
    if content["certificate"] != FORMAT:
        version = brief(content["certificate"], 20)
        raise DRCTError(f"{path} has format {version}, this version of drct reads format {FORMAT}")
    try:
        return Certificate.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DRCTError(f"{path} is damaged: {where}: {first['msg']}, not {brief(first['input'], 60)}") from None
