"""The ladder: a benchmark whose rungs are degraded more and more, as photographs on the web are."""

from pathlib import Path

from drct.data.degrade import degrade_folder
from drct.data.prepare import GT_MULTIPLE, Preparation, PreparedImages, prepare_benchmark
from drct.data.recipes import StepRecipe

# Degraded rungs: names and recipes. The rung before them is the clean LRbicx<scale> of benchmarks
RUNGS = {
    "jpeg90": "jpeg:90",
    "jpeg75": "jpeg:75",
    "jpeg40": "jpeg:40",
    "noise8_jpeg40": "noise:8+jpeg:40",
    "blur1.6_noise8_jpeg40": "blur:1.6+noise:8+jpeg:40",
}
SEED = 0  # the same everywhere, so that figures of the same images can be compared


def prepare_ladder(source: Path, output: Path, scale: int, overwrite: bool, processes: int) -> PreparedImages:
    """Write the layout of benchmarks and `LRx<scale>_<rung>/<name>.png` for each rung.

    Args:
        source: Folder of high-resolution images, such as the `GTmod12` of a benchmark.
        output: Folder to write to.
        scale: Factor of the reduction.
        overwrite: Whether to make images anew that exist.
        processes: Number of processes.

    Raises:
        DRCTError: as `prepare_benchmark` and `degrade_folder` do.
    """
    clean = prepare_benchmark(Preparation(source, output, [scale], overwrite=overwrite, processes=processes))
    written, kept, failures = clean.written, clean.kept, list(clean.failures)
    truth = output / f"GTmod{GT_MULTIPLE}"
    for rung, text in RUNGS.items() if clean.prepared else ():
        folder = output / f"LRx{scale}_{rung}"
        done = degrade_folder(truth, folder, StepRecipe(text), scale, SEED, overwrite, processes)
        written, kept = written + done.written, kept + done.kept
        failures += done.failures
    return PreparedImages(clean.found, clean.prepared, written, kept, failures)
