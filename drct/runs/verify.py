"""Repeating a test run by its certificate."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from drct.errors import DRCTError
from drct.evaluation.certificate import FILE_NAME, Comparison, Tolerance, compare_certificates
from drct.runs.log import LOGGERS, RunLog
from drct.runs.options import override, read_options
from drct.runs.test import run
from drct.runtime import distributed
from drct.schema.certificate import Certificate, read_certificate

# What a run may write besides its certificate
UNUSED = dict.fromkeys(("save_img", "report", "comparison", "bicubic", "protocols"), False)


def verify(
    certificate: Certificate,
    file: Path,
    changes: Sequence[str] = (),
    tolerance: Tolerance | None = None,
    launcher: str = "none",
) -> Comparison:
    """Repeat a test run in a temporary folder, and compare its certificate with the first one.

    Every process must call this; all get the same result.

    Args:
        certificate: The certificate.
        file: Its path, for errors.
        changes: Entries of `--force_yml`: where images and weights are now. Other options count as differences.
        tolerance: See `compare_certificates`.
        launcher: Starter of several processes, for `distributed.identify`.

    Raises:
        DRCTError: if the run cannot be repeated.
    """
    options = deepcopy(certificate.options)
    for entry in changes:
        override(options, entry)
    quiet = deepcopy(options)
    val = quiet.get("val") or {}
    if isinstance(val, dict):  # else, it is found to be wrong where options are checked
        quiet["val"] = val | UNUSED
    with TemporaryDirectory(prefix="drct_verify_") as folder, RunLog() as log:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            opt, loaded = read_options(folder, False, str(file), launcher=launcher, given=quiet)
            run(opt, log, loaded)
        except DRCTError as error:
            raise DRCTError(
                f"the run cannot be repeated: {error} (--force_yml KEY=VALUE tells where images and weights are now)"
            ) from error
        results = Path(opt["path"]["results_root"]) / FILE_NAME
        found = None
        if distributed.rank() == 0:
            found = compare_certificates(certificate, read_certificate(results), options, tolerance)
        return distributed.from_first(found)
