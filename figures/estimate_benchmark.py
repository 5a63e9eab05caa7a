"""How right `drct train --estimate` is: what it says of recipes, beside what training them for some steps takes.

The estimate and the training run in processes of their own, one after the other, on the same images: those of the
recipe, or random ones where they are not here. Run this on an otherwise idle machine. The exit status is 1 if memory or
time of a recipe is estimated wrong by more than the tolerance.
"""

import argparse
import csv
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import drct  # noqa: F401 - mends BasicSR when that is imported

# isort: split

from drct.errors import one_line_errors
from drct.runs.estimate import WARM_UP, estimate
from drct.runs.options import override
from drct.runs.stand_ins import with_stand_ins
from drct.runtime.yaml_file import load_yaml
from drct.text import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("train_DRCT-XS_SRx4_short", "train_SwinIR-XS_SRx4_short", "train_Real_DRCT-XS_SRx4")
HEADER = ["recipe", "", "estimated", "taken", "error"]


def write_recipe(recipe: str, changes: list[str], steps: int, folder: Path) -> str:
    """Write an option file of a few steps, all of whose images are here. Return its path."""
    known = ROOT / "options" / "train" / f"{recipe}.yml"
    given = load_yaml(known if known.is_file() else recipe)
    short = [f"train:total_iter={steps}", f"logger:save_checkpoint_freq={steps}", "logger:print_freq=1", "val=null"]
    for entry in [*short, "logger:save_best=null", "logger:use_tb_logger=false", "name=run", *changes]:
        override(given, entry)
    given["train"]["scheduler"].pop("total_steps", None)
    if given["train"]["scheduler"]["type"] == "OneCycleLR":
        given["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [steps]}
    for note in with_stand_ins(given, folder / "images"):
        print(f"{recipe}: {note}", file=sys.stderr)
    for section in (given["path"], *given["datasets"].values()):  # the training runs in another folder
        for key in section.keys() & {"dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info", "pretrain_network_g"}:
            section[key] = section[key] and str(Path(section[key]).resolve())
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    return str(file)


def estimated(file: str, folder: Path) -> dict[str, float]:
    """Return what the estimate says: bytes of memory, seconds of an iteration, bytes on the disk."""
    found = estimate(folder, file, (), "none", False, False)
    first = found.costs[0]
    return {"memory": found.memory(first), "time": first.iteration, "disk": found.disk()}


def taken(file: str, folder: Path) -> dict[str, float]:
    """Train, and return what that took, as `estimated` has it."""
    from drct.commands.train import main
    from drct.runs.estimate import peak_memory
    from drct.runtime.device import accelerator

    os.chdir(folder)
    if main(["-opt", file]):
        raise RuntimeError(f"training {file} failed")
    root = folder / "experiments" / "run"
    with (root / "scalars.csv").open(encoding="utf-8") as scalars:
        times = [float(row["value"]) for row in csv.DictReader(scalars) if row["tag"] == "train/iter_time"]
    files = [path for path in root.rglob("*") if path.suffix in (".pth", ".state")]
    gpu = accelerator() if load_yaml(file)["num_gpu"] else None
    return {
        "memory": peak_memory(gpu or "cpu") or 0,
        "time": statistics.mean(times[WARM_UP:]),
        "disk": sum(path.stat().st_size for path in files),
    }


def _answer(connection: Any, function: Callable[..., dict[str, float]], arguments: tuple[Any, ...]) -> None:
    connection.send(function(*arguments))


def in_a_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Call a function in a new process, whose memory is its own, and return the result."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there, function, arguments))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table. Returns 0, or 1 if an estimate is beyond the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    recipes = "recipes of options/train, or option files; default: three small ones"
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE", help=recipes)
    parser.add_argument("--steps", type=int, default=60, help="steps to train, default %(default)s")
    parser.add_argument("--tolerance", type=float, default=0.15, help="largest error, default %(default)s")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="change the recipes")
    args = parser.parse_args(argv)
    rows, worst = [], 0.0
    for recipe in args.recipes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file = write_recipe(recipe, args.force_yml, args.steps, folder)
            said, found = (in_a_process(function, file, folder) for function in (estimated, taken))
        for kind, unit, form in (("memory", 1e9, "{:.2f} GB"), ("time", 1, "{:.3f} s"), ("disk", 1e6, "{:.1f} MB")):
            error = said[kind] / found[kind] - 1
            worst = max(worst, abs(error))
            cells = (form.format(value[kind] / unit) for value in (said, found))
            rows.append([recipe, kind, *cells, f"{error:+.1%}"])
            print(" ".join(rows[-1]), file=sys.stderr)
    print(markdown_table(HEADER, rows, left=2), end="")
    return int(worst > args.tolerance)


if __name__ == "__main__":
    sys.exit(main())
