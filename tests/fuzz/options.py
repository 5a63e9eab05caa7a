"""Mutants of all option files, through parsing, building, two steps of a shrunken network, validation and saving."""

import copy
import difflib
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import torch
import yaml
from conftest import ROOT, photo

from drct.archs.drct_arch import DRCT
from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.runtime import checkpoint
from drct.runtime.yaml_file import load_yaml, parse_yaml
from fuzz.option_mutations import mutate
from fuzz.pool import AS_USERS_DO
from fuzz.verdicts import DONE, Ended, Verdict, catch, judge, run_as_users_do, run_here

FULL = 3000
SMALL_NETWORK = {"embed_dim": 12, "depths": [2], "num_heads": [2], "gc": 4, "window_size": 4, "img_size": 16}
SMALL_DATASET = {"batch_size_per_gpu": 1, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 1}
PATCH = 16  # low-resolution pixels


class OptionFiles:
    """The option files of the project, and around each the images and weights that it asks for, made small."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((ROOT / "options").rglob("*.yml"))
        self.folder = folder / "options"
        self.texts = [path.read_text(encoding="utf-8") for path in self.paths]
        self.originals: list[dict[str, Any]] = [parse_yaml(text) for text in self.texts]
        self.small = [shrunk(original) for original in self.originals]
        for scale in (2, 3, 4):
            self._make_images(scale)
        for number, original in enumerate(self.originals):
            self._make_surroundings(number, original)

    def _make_images(self, scale: int) -> None:
        for i in range(2):
            gt = photo(24 * scale, 20 * scale, i)
            for kind, image in (("gt", gt), ("lr", reduce_image(gt, scale))):
                (self.folder / f"x{scale}" / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(self.folder / f"x{scale}" / kind / f"{i}.png"), image)

    def _make_surroundings(self, number: int, original: dict[str, Any]) -> None:
        place, scale = self.folder / str(number), original["scale"]
        (place / "datasets").mkdir(parents=True)
        for dataset in original["datasets"].values():
            for key, kind in (("dataroot_gt", "gt"), ("dataroot_lq", "lr")):
                if key in dataset and not (place / dataset[key]).exists():
                    (place / dataset[key]).parent.mkdir(parents=True, exist_ok=True)
                    (place / dataset[key]).symlink_to(self.folder / f"x{scale}" / kind)
            if "meta_info_file" in dataset:
                lines = [f"{i}.png ({24 * scale},{20 * scale},3)\n" for i in range(2)]
                (place / dataset["meta_info_file"]).write_text("".join(lines))
        if weights := original["path"].get("pretrain_network_g"):
            options = {key: value for key, value in self.small[number]["network_g"].items() if key != "type"}
            state = DRCT(**options).state_dict()
            checkpoint.save(place / weights, {"params": state, "params_ema": state})

    def run(self, number: int, seed: int) -> Verdict:
        """Run a mutant in the current folder."""
        rng = random.Random(f"options {seed} {number}")
        chosen = number % len(self.paths)
        path, original = self.paths[chosen], self.originals[chosen]
        data, words = mutate(self.texts[chosen], rng)
        command = path.parent.name if rng.random() > 0.03 else rng.choice(("train", "test"))
        what = f"{command} {path.name}: {words}"
        Path("what.txt").write_text(what, errors="replace")
        Path("options.yml").write_bytes(data)
        self._link(chosen, original)
        verdict = self._run(chosen, command, rng, number % AS_USERS_DO == 0)
        verdict.what = what
        return verdict

    def _link(self, chosen: int, original: dict[str, Any]) -> None:
        place = self.folder / str(chosen)
        Path("datasets").symlink_to(place / "datasets")
        if weights := original["path"].get("pretrain_network_g"):
            Path(weights).parent.mkdir(parents=True)
            Path(weights).symlink_to(place / weights)

    def _run(self, chosen: int, command: str, rng: random.Random, as_users_do: bool) -> Verdict:
        loaded: dict[str, Any] = {}

        def load() -> int:
            try:
                loaded.update(load_yaml("options.yml"))
                return 0
            except DRCTError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2

        verdict = judge(catch(load))
        if verdict.kind != DONE:
            return verdict
        options = shrink(loaded, self.originals[chosen], self.small[chosen])
        cap(options)
        self._without_weights(options, chosen, rng)
        Path("small.yml").write_text(
            yaml.safe_dump(options, sort_keys=False, allow_unicode=True), errors="surrogatepass"
        )
        run = run_as_users_do if as_users_do else run_here
        ended = run(command, "-opt", "small.yml")
        verdict = judge(ended)
        return (
            silent_fault(ended, command, options, self.originals[chosen]) or verdict
            if verdict.kind == DONE
            else verdict
        )

    def _without_weights(self, options: dict[str, Any], chosen: int, rng: random.Random) -> None:
        """Let every other mutant begin with random weights, for changed networks to be built and run."""
        paths, key = options.get("path"), "pretrain_network_g"
        as_it_was = isinstance(paths, dict) and paths.get(key) == self.originals[chosen]["path"].get(key)
        if as_it_was and rng.random() < 0.5:
            paths[key] = None


def shrunk(original: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a short run of a small network."""
    small = copy.deepcopy(original)
    network = small["network_g"]
    network |= {key: value for key, value in SMALL_NETWORK.items() if key in network}
    for dataset in small["datasets"].values():
        dataset |= {key: value for key, value in SMALL_DATASET.items() if key in dataset}
        if "gt_size" in dataset:
            dataset["gt_size"] = PATCH * original["scale"]
    if "train" in small:
        small["train"]["total_iter"] = 2
    return small


def shrink(value: Any, original: Any, small: Any) -> Any:
    """Put the small values in place of those that the mutation has left as they were."""
    if isinstance(value, dict) and isinstance(original, dict):
        known = original.keys() & small.keys()
        return {k: shrink(v, original[k], small[k]) if k in known else v for k, v in value.items()}
    return small if type(value) is type(original) and value == original else value


def cap(options: dict[str, Any]) -> None:
    """Reduce sizes that are allowed but would take long, in place."""
    most = {"total_iter": 3, "batch_size_per_gpu": 4, "accumulation": 4}
    large = {"embed_dim": 24, "gc": 8, "window_size": 8, "img_size": 32, "mlp_ratio": 4}  # up to 10^5 for these
    sections = [options.get("train"), options.get("network_g")]
    datasets = options.get("datasets")
    sections += list(datasets.values()) if isinstance(datasets, dict) else []
    for section in sections:
        for key in section.keys() & (most.keys() | large.keys()) if isinstance(section, dict) else ():
            value = section[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
                continue
            if key in most and value > most[key]:
                section[key] = type(value)(most[key])
            elif key in large and 4 * large[key] < value < 10**5:
                section[key] = type(value)(large[key] + value % 2)


def silent_fault(ended: Ended, command: str, options: dict[str, Any], original: dict[str, Any]) -> Verdict | None:
    """Tell what is wrong with a run that ended with status 0: less than was asked for, or a key ignored in silence."""
    output = ended.err + ended.out
    name = str(options["name"])
    if command == "train":
        wanted = int(options["train"]["total_iter"])
        trained = re.search(r"Trained (\d+) iterations", output)
        if not trained or int(trained[1]) != wanted:
            return Verdict(
                "wrong", "not the iterations asked for", f"{wanted} wanted, {trained and trained[1]} trained"
            )
        weights = torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)
        if not all(
            tensor.isfinite().all()
            for entry, state in weights.items()
            if entry != "metadata"
            for tensor in state.values()
        ):
            return Verdict("wrong", "trained weights are not finite", output[-1500:])
    else:
        pictures = [path for path in Path("results", name).rglob("*.png") if "visualization" in path.parts]
        save = (options.get("val") or {}).get("save_img", True) is not False
        tests = [key for key in options["datasets"] if str(key).startswith("test")]
        if save and len(pictures) < 2 * len(tests):
            return Verdict("wrong", "fewer pictures than images", f"{len(pictures)} of {2 * len(tests)}")
    return _ignored_key(output, options, original, ())


def _ignored_key(output: str, options: Any, original: Any, path: tuple[Any, ...]) -> Verdict | None:
    """Find a misspelt key, much like one that is missing beside it, of which the output says nothing."""
    if not isinstance(options, dict) or not isinstance(original, dict):
        return None
    section = ".".join(map(str, path))
    missing = [str(key).lower() for key in original.keys() - options.keys()]
    names_are_free = section in ("val.metrics", "datasets")
    for key in sorted(options.keys() - original.keys(), key=str) if not names_are_free else ():
        if difflib.get_close_matches(str(key).lower(), missing, cutoff=0.8) and str(key) not in output:
            return Verdict("wrong", f"key ignored without a word in {section}", f"{key!r:.60} beside missing {missing}")
    for key in options.keys() & original.keys():
        if found := _ignored_key(output, options[key], original[key], (*path, key)):
            return found
    return None
