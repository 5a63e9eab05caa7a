"""A test run: upscale the images of an option file's datasets, and measure them where there is ground truth."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from basicsr.utils import get_time_str

from drct.errors import DRCTError
from drct.evaluation.certificate import certify, write_certificate
from drct.evaluation.comparison_sheet import ComparisonSheet
from drct.evaluation.metric_table import MetricTable
from drct.evaluation.run_report import RunReport
from drct.evaluation.run_settings import run_settings
from drct.files import archive, remove_leftovers, write_bytes
from drct.inference.weights import LoadedNetwork
from drct.runs.build import evaluation_loaders, make_model
from drct.runs.log import RunLog
from drct.runs.options import options_text
from drct.runtime import distributed
from drct.schema.options import Options
from drct.text import first_line

logger = logging.getLogger("basicsr")


def run(opt: dict[str, Any], log: RunLog, loaded: LoadedNetwork | None = None) -> int:
    """Test with the results of `read_options` and write `results/<name>`. Return the number of images that failed."""
    given = opt.pop("given")
    options = Options.model_validate(opt)
    results = Path(opt["path"]["results_root"])
    loaders = evaluation_loaders(opt, "test")
    if not loaders:
        raise DRCTError("the option file has no dataset called test or test_1 to test on")
    if options.path.pretrain_network_g is None:
        logger.warning("path.pretrain_network_g is not set: the network has random weights")
    model = make_model(opt, loaded)
    settings = run_settings(model.opt, model.device)  # after the model has completed the options of metrics

    # Nothing is moved or written before this point, since most mistakes have been found by now
    if distributed.rank() == 0:
        _make_folder(results, opt, settings, log)
    distributed.barrier()

    tables: list[MetricTable] = []
    with RunReport(results, settings) if options.val.report else nullcontext() as report:
        for loader in loaders:
            sheet = ComparisonSheet(settings["network"]) if options.val.comparison else None
            viewers = [viewer.add for viewer in (sheet, report) if viewer]
            table = model.validation(loader, opt["name"], None, options.val.save_img, viewers=viewers)
            tables.append(table)
            if sheet and sheet.collect():
                path = results / f"comparison_{table.dataset}.png"
                sheet.write(path)
                logger.info(f"Comparison in {path}")
        if distributed.rank() == 0:
            _certify(results, settings, given, model, tables)
        if report:
            report.tables += tables
            report.write()
            logger.info(f"Report in {report.page}")
    logger.info(f"Results in {results}")
    return sum(len(table.failed) for table in tables)


def _certify(
    results: Path, settings: dict[str, Any], given: dict[str, Any], model: Any, tables: list[MetricTable]
) -> None:
    """Write the certificate; results stay what they are if that fails."""
    try:
        certificate = certify(settings, given, model.runner.network, model.device, tables)
        write_certificate(results, certificate)
    except (DRCTError, OSError, ValueError) as error:
        logger.error(f"the run has no certificate: {first_line(error)}")


def _make_folder(results: Path, opt: dict[str, Any], settings: dict[str, Any], log: RunLog) -> None:
    log.ownership.take(results)
    remove_leftovers(results, recursive=True)  # of a run that was killed
    archived = archive(results)
    results.mkdir(parents=True)
    log.ownership.take(results)
    log.write_to(results / f"test_{opt['name']}_{get_time_str()}.log")
    logger.debug(options_text(opt))
    write_bytes(results / "settings.json", json.dumps(settings, indent=2, default=str).encode())
    if archived:
        logger.info(f"Moved the earlier results to {archived}")
