"""Rewrite the tables of Markdown files from measured and published figures.

A table stands between the lines <!-- table: NAME --> and <!-- end -->; nothing else of a file changes. Names:

  attention-gpu  kernels of attention: speed_gpu.json, by drct bench --device cuda --json
  complexity     parameters, operations and memory of networks: complexity.json, by drct complexity -o
  features       features of compared networks: features.json, by drct analyze features
  gan            losses of a short training with a discriminator: gan_short.csv, the scalars.csv of that run
  parameters     parameters of the networks at x2, x3 and x4
  parity-gpu     differences to the CPU: speed_gpu.json
  published      results that the paper reports
  kernels-gpu    time by kind of kernel: speed_gpu.json
  kills          runs that were killed: robustness.json, by make torture
  ladder         gains over bicubic interpolation on degraded images: ladder.json, by figures/ladder.py
  ladder-psnr    the same, PSNR only
  outscale       weights at factors that are not their own: outscale.json, by figures/outscale.py
  mutants        inputs that were damaged: robustness.json, by make fuzz
  results        means of test runs: results/RUN/metrics_DATASET.json, copied there by --results
  runtimes       DRCT beside OpenVINO: runtimes.json, by drct bench --json
  speed          speed.json, by drct bench --json
  speed-gpu      images on a GPU: speed_gpu.json
  steps-gpu      training steps on a GPU: speed_gpu.json
  tile-errors    what tiles change, by their overlap: tile_errors.json, by figures/tile_errors.py
  training-step  training_step.json, by drct bench --json
  weights        weights in fp32, bf16, with self-ensemble and in tiles: weights.json, by figures/weights_table.py

The figures are read from the folder figures of the working directory.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ladder import TITLES, ladder_table, read_ladder
from measured import read_measured
from outscale import outscale_table
from published import DRCT_PAPER, published_as
from tile_errors import read_tile_errors, tile_error_table
from weights_table import weights_table

from drct.analysis.complexity import complexity_table, read_complexity
from drct.analysis.feature_tables import cell, read_features
from drct.analysis.gpu_report import attention_table, gpu_table, parity_table, profile_table
from drct.analysis.speed_report import SpeedReport, read_speed, speed_table
from drct.archs.drct_arch import DRCT
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.evaluation.compare_runs import compare, comparison_markdown
from drct.evaluation.results import read_run
from drct.files import write_bytes
from drct.runs.scalars import read_scalars
from drct.runtime.zoo import BENCHMARKS
from drct.text import markdown_table

FIGURES = Path("figures")
NOT_MEASURED = "Not measured yet.\n"
GAN_ITERATIONS = 50  # in a row of the table gan
EXAMPLES = """examples:
  %(prog)s
  %(prog)s --check
  %(prog)s README.md --results results/DRCT-XS_SRx4
"""
MARKER = re.compile(r"(?<!`)<!-- (?:table: (?P<name>[^>]*?)|end) -->(?P<newline>\r?\n)?")


# ------------------------------------------------------------------------------------------------------------- tables


def _complexity(figures: Path) -> str:
    found = read_complexity(figures / "complexity.json")
    column = ["published as", "---", *(published_as(c.network) for c in found)]
    lines = complexity_table(found).splitlines()
    return "".join(f"{line} {text} |\n" for line, text in zip(lines, column, strict=True))


def _parameters(figures: Path) -> str:
    rows = []
    for name in VARIANTS:
        with torch.device("meta"):
            networks = [DRCT(**VARIANTS[name], upscale=scale) for scale in (2, 3, 4)]
        counts = [f"{sum(p.numel() for p in network.parameters()):,}" for network in networks]
        rows.append([name, str(len(networks[0].layers)), str(networks[0].conv_first.out_channels), *counts])
    return markdown_table(["network", "groups", "channels", "parameters ×2", "×3", "×4"], rows)


def _published(figures: Path) -> str:
    header = ["as the paper calls it", *BENCHMARKS, "complexity is of", "parameters (M)", "multi-adds (G)"]
    rows = [
        [
            row.name,
            *(f"{row.psnr[benchmark]:.2f}" for benchmark in BENCHMARKS),
            row.network,
            f"{row.parameters:.3f}",
            f"{row.multi_adds:.2f}",
            f"{row.pass_size:.2f}",
            f"{row.flops:.2f}",
        ]
        for row in DRCT_PAPER
    ]
    return markdown_table([*header, "forward/backward pass (MB)", '"FLOPs" (G)'], rows)


def _results(figures: Path) -> str:
    folders = sorted(path for path in (figures / "results").glob("*") if path.is_dir())
    if not folders:
        raise DRCTError(
            f"{figures / 'results'} has no results: python figures/tables.py --results results/RUN copies them there"
        )
    runs = [read_run(folder.name, folder) for folder in folders]
    for run in runs:
        known = {name: run.datasets[name] for name in BENCHMARKS if name in run.datasets}
        run.datasets = known | run.datasets  # in the order of published tables
    return comparison_markdown(runs, compare(runs))


def _features(figures: Path) -> str:
    _, rows = read_features(figures / "features.json")
    datasets = list(dict.fromkeys(dataset for row in rows for dataset in row["psnr"]))
    places = {"embedding": "embedding", "last": "last group", "ratio": "last / largest group"}
    columns = {"intensity": "intensity", "normalized": "varying after normalization"}
    header = ["network", "seeds", *(f"{dataset} (dB)" for dataset in datasets)]
    header += [f"{title}: {place}" for title in columns.values() for place in places.values()]
    lines = []
    for row in rows:
        line = [row["network"], str(row["seeds"]), *(cell(row["psnr"].get(dataset), ".2f") for dataset in datasets)]
        line += [cell(row[quantity][place], ".2f") for quantity in columns for place in places]
        lines.append(line)
    return markdown_table(header, lines)


def _robustness(figures: Path) -> dict[str, dict[str, Any]]:
    path = figures / "robustness.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DRCTError(f"cannot read {path}: {error}") from error


def _mutants(figures: Path) -> str:
    header = ["mutants of", "cases", "done", "refused in one line", "faults", "longest (s)", "most memory (MB)"]
    rows = []
    for kind, counts in _robustness(figures)["mutants"].items():
        verdicts = dict(counts["verdicts"])
        good = [verdicts.pop(verdict, 0) for verdict in ("done", "refused")]
        numbers = [counts["cases"], *good, sum(verdicts.values())]
        rows.append([kind, *(f"{number:,}" for number in numbers), str(counts["slowest"]), str(counts["largest MB"])])
    return markdown_table(header, rows)


def _kills(figures: Path) -> str:
    header = ["runs", "kills", "full disks", "runs completed", "faults"]
    rows = []
    for name, counts in _robustness(figures)["kills"].items():
        numbers = [counts["kills"], counts["fills"], counts["completed"], len(counts["faults"])]
        rows.append([name, *map(str, numbers)])
    return markdown_table(header, rows)


def _gan(figures: Path) -> str:
    scalars = read_scalars(figures / "gan_short.csv")
    columns = {
        "pixel loss": "losses/l_g_pix",
        "generator's GAN loss": "losses/l_g_gan",
        "discriminator's loss, real": "losses/l_d_real",
        "fake": "losses/l_d_fake",
    }
    accuracy = "train/accuracy_d"
    last = int(scalars[accuracy][0][-1])
    rows = []
    for start in range(0, last, GAN_ITERATIONS):
        end = min(start + GAN_ITERATIONS, last)
        means = {
            tag: values[(iterations > start) & (iterations <= end)].mean()
            for tag, (iterations, values) in scalars.items()
            if tag in {*columns.values(), accuracy}
        }
        rows.append(
            [f"{start + 1} to {end}", *(f"{means[tag]:.4f}" for tag in columns.values()), f"{means[accuracy]:.1%}"]
        )
    return markdown_table(["iterations", *columns, "its accuracy"], rows)


def _if_measured(name: str, table: Callable[[Path], str]) -> Callable[[Path], str]:
    """Return what makes a table from a file of figures, or says that there is none yet."""

    def make(figures: Path) -> str:
        path = figures / name
        return table(path) if path.exists() else NOT_MEASURED

    return make


def _speed(name: str) -> Callable[[Path], str]:
    return lambda figures: speed_table(read_speed(figures / name))


def _on_gpu(table: Callable[[SpeedReport], str]) -> Callable[[Path], str]:
    return _if_measured("speed_gpu.json", lambda path: table(read_speed(path)))


TABLES: dict[str, Callable[[Path], str]] = {
    "attention-gpu": _on_gpu(lambda report: attention_table(report) if report.attention else NOT_MEASURED),
    "complexity": _complexity,
    "features": _features,
    "gan": _gan,
    "kernels-gpu": _on_gpu(profile_table),
    "kills": _kills,
    "ladder": lambda figures: ladder_table(read_ladder(figures / "ladder.json"), list(TITLES)),
    "ladder-psnr": lambda figures: ladder_table(read_ladder(figures / "ladder.json"), ["psnr"]),
    "mutants": _mutants,
    "outscale": _if_measured("outscale.json", lambda path: outscale_table(read_measured(path, "outscale.py"))),
    "parameters": _parameters,
    "parity-gpu": _on_gpu(parity_table),
    "published": _published,
    "results": _results,
    "runtimes": _speed("runtimes.json"),
    "speed": _speed("speed.json"),
    "speed-gpu": _on_gpu(partial(gpu_table, training=False)),
    "steps-gpu": _on_gpu(partial(gpu_table, training=True)),
    "tile-errors": lambda figures: tile_error_table(read_tile_errors(figures / "tile_errors.json")),
    "training-step": _speed("training_step.json"),
    "weights": _if_measured("weights.json", lambda path: weights_table(read_measured(path, "weights_table.py"))),
}


# --------------------------------------------------------------------------------------------------------------- file


def with_tables(text: str, figures: Path) -> tuple[str, list[str], list[DRCTError]]:
    """Rewrite the tables of a Markdown text.

    Args:
        text: Content of the file.
        figures: Folder of the measured figures.

    Returns:
        The text, the names of the tables that changed, and errors for those that cannot be made, which stay unchanged.

    Raises:
        DRCTError: if a marker names no table, or has no partner.
    """
    made, stale, failures = [], [], []
    position = 0
    for name, newline, start, end in _marked(text):
        made.append(text[position:start])
        position = end
        try:
            table = TABLES[name](figures).replace("\n", newline)
        except DRCTError as error:
            failures.append(DRCTError(f"table {name}: {error}"))
            table = text[start:end]
        if table != text[start:end]:
            stale.append(name)
        made.append(table)
    return "".join((*made, text[position:])), stale, failures


def _marked(text: str) -> list[tuple[str, str, int, int]]:
    """Return name, newline, start and end of each table of a text, in their order."""
    found: list[tuple[str, str, int, int]] = []
    opened: re.Match[str] | None = None
    for marker in MARKER.finditer(text):
        line = text.count("\n", 0, marker.start()) + 1
        name = marker["name"]
        if (name is None) == (opened is None):
            wrong = "<!-- end --> without a table before it" if name is None else "a table before the end of another"
            raise DRCTError(f"line {line}: {wrong}")
        if name is None and opened is not None:
            found.append((opened["name"], opened["newline"], opened.end(), marker.start()))
            opened = None
            continue
        if name not in TABLES:
            known = f"the tables are {', '.join(TABLES)}"
            raise DRCTError(f"line {line}: no table {name!r}{did_you_mean(name, TABLES)}; {known}")
        if not marker["newline"]:
            raise DRCTError(f"line {line}: <!-- table: {name} --> needs a line of its own")
        opened = marker
    if opened:
        raise DRCTError(f"table {opened['name']} has no <!-- end -->")
    return found


def keep_results(folder: Path, figures: Path) -> None:
    """Copy the parts of a test run that the table of results needs: its metrics, scale and metric options.

    Raises:
        DRCTError: if the folder does not belong to a test run.
    """
    run = read_run(folder.resolve().name, folder)
    if run.options is None:
        raise DRCTError(f"{folder} has no settings.json, which test runs write: its scale and borders are not known")
    target = figures / "results" / run.name
    settings = {"options": {"scale": run.options.scale, "val": {"metrics": run.options.metrics}}}
    contents = {file.name: file.read_bytes() for file in sorted(folder.glob("metrics_*.json"))}
    contents["settings.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    for earlier in target.glob("metrics_*.json"):
        if earlier.name not in contents:
            earlier.unlink()
    for name, content in contents.items():
        write_bytes(target / name, content)


# -------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: README.md and docs/*.md")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="write nothing; fail if a table is stale")
    action.add_argument(
        "--results",
        nargs="+",
        type=Path,
        default=[],
        metavar="RESULTS",
        help="first copy the metrics of these test runs to figures/results; those of the same name are replaced",
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0; 1 if a table is stale or cannot be made; 2 if a file has errors."""
    args = argument_parser().parse_args(argv)
    for folder in args.results:
        keep_results(folder, FIGURES)
    files = args.files or [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    return max([_rewrite(file, args.check) for file in files])


def _rewrite(file: Path, check: bool) -> int:
    """Rewrite or check the tables of a file. Returns 0, or 1 if a table is stale or cannot be made."""
    try:
        old = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DRCTError(f"cannot read {file}: {error}. It should be a Markdown file") from error
    try:
        new, stale, failures = with_tables(old, FIGURES)
    except DRCTError as error:
        raise DRCTError(f"{file}: {error}") from error
    for failure in failures:
        print(f"error: {file}, {failure}", file=sys.stderr)
    if check:
        for name in stale:
            print(f"error: {file}, table {name} is stale: python figures/tables.py {file} rewrites it", file=sys.stderr)
        return int(bool(stale or failures))
    if stale:
        write_bytes(file, new.encode())
    print(f"{file}: {', '.join(stale) if stale else 'nothing'} changed", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
