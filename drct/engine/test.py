"""The test run: upscale the images of an option file's datasets, measure them where there is ground truth."""

import logging
from pathlib import Path
from typing import Any

import torch

from drct.errors import DRCTError, one_line_errors
from drct.files import archive


def run(opt: dict[str, Any]) -> int:
    """Test as the options say, into `results/<name>`.

    Returns:
        How many images could not be processed.
    """
    from basicsr.models import build_model
    from basicsr.utils import get_root_logger, get_time_str

    from drct.analysis.comparison import ComparisonSheet
    from drct.engine.data import evaluation_loaders
    from drct.engine.options import options_text

    results = Path(opt["path"]["results_root"])
    loaders = evaluation_loaders(opt, "test")
    if not loaders:
        raise DRCTError("the option file has no dataset called test or test_1 to test on")
    archived = archive(results)
    results.mkdir(parents=True)
    logger = get_root_logger()
    logger.setLevel(logging.INFO)
    add_log_file(logger, results / f"test_{opt['name']}_{get_time_str()}.log")
    if archived:
        logger.info(f"Moved the earlier results to {archived}")
    logger.debug(options_text(opt))
    model = build_model(opt)

    failures = 0
    for loader in loaders:
        sheet = ComparisonSheet(opt["network_g"]["type"]) if opt["val"].get("comparison") else None
        table = model.validation(loader, opt["name"], None, opt["val"]["save_img"], sheet.add if sheet else None)
        failures += len(table.failed)
        if sheet and sheet.rows:
            path = results / f"comparison_{table.dataset}.png"
            sheet.write(path, table)
            logger.info(f"Comparison in {path}")
    logger.info(f"Results in {results}")
    return failures


def add_log_file(logger: logging.Logger, path: Path) -> None:
    """Let the logger write to a file too, in more detail than to the terminal."""
    handler = logging.FileHandler(path, "w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    handler.setLevel(logging.DEBUG)
    for other in logger.handlers:
        other.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/test.py`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    import drct  # noqa: F401 - registers everything
    from drct.engine.options import parse_options

    opt, _ = parse_options(Path.cwd(), is_train=False, argv=argv)
    torch.backends.cudnn.benchmark = False  # images differ in size
    return 1 if run(opt) else 0
