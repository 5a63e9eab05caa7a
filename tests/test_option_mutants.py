"""Option files with a mistake at any place: they work, or one line names the key."""

import copy
import random
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import HAT_TINY, ROOT, TINY, network_options, test_options, train_options, write_options

from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.errors import report
from drct.runs.build import batches_of
from drct.runtime.yaml_file import load_yaml, parse_yaml

EXTREMES = [None, True, 0, -1, 0.5, 1e-30, 10**30, float("inf"), float("nan")]
GROWING = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 6)}]\n" for a, b in pairwise("abcdefghi"))
EXTREMES += ["", "x", "~", "a\nb", "x" * 5000, "\0", "../..", [], {}, [1], [0.9], ["a"], [[1]], {"type": "x"}, {1: 2}]
EXTREMES += [{"type": ["L1Loss"]}, "SingleImageDataset", "LBFGS", "ReduceLROnPlateau", "lmdb", "none", "RRDBNet"]


def complete():
    """Training options with a value for most keys."""
    options = train_options() | {"tile": {"tile_size": 8}, "dist_params": {"backend": "gloo", "port": 29500}}
    options["train"] |= {"total_iter": 1, "on_resume": "keep", "accumulation": 1, "grad_clip": 1.0, "ema_warmup": True}
    options["train"]["optim_g"] |= {"eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
    options["network_g"] |= {"depths": [1], "num_heads": [2], "mlp_ratio": 2, "qk_scale": 0.5, "img_range": 1.0}
    options["datasets"]["train"] |= {"mean": [0.5] * 3, "std": 1.0, "filename_tmpl": "{}", "cache": True, "gt_size": 8}
    options["logger"] |= {"keep_last": 1, "save_best": "psnr"}
    options["val"] |= {"bicubic": True}
    return options


def complete_hat():
    """Training options of a HAT."""
    options = complete() | {"model_type": "HATModel"}
    options["network_g"] = network_options(HAT_TINY | {"overlap_ratio": 0.5, "mlp_ratio": 2}, 2, "HAT")
    return options


def places(section, keys=()):
    entries = section.items() if isinstance(section, dict) else enumerate(section)
    for key, value in entries:
        yield *keys, key
        if isinstance(value, dict | list):
            yield from places(value, (*keys, key))


def mutant(options, rng):
    options = section = copy.deepcopy(options)
    *keys, last = rng.choice(list(places(options)))
    for key in keys:
        section = section[key]
    kind = rng.choice(["value", "value", "value", "delete", "rename", "number"])
    value = section[last] if kind != "value" else copy.deepcopy(rng.choice(EXTREMES))
    if kind != "value" and isinstance(section, dict):
        del section[last]
        last = last[1:] if kind == "rename" else rng.choice([1, 2.5, True, None])
    if kind != "delete":
        section[last] = value
    return options


def mutant_network(options, rng):
    changed = mutant({"network_g": options["network_g"]}, rng)
    return options | changed


@pytest.mark.parametrize(
    ("make", "change", "seed"),
    [*((complete, mutant, i) for i in range(3)), *((complete_hat, mutant_network, i) for i in range(2))],
)
def test_a_mutant_works_or_is_refused_in_one_line(pairs, capfd, make, change, seed):
    rng = random.Random(seed)  # noqa: S311
    refused = 0
    for number in range(15):
        options = change(make(), rng)
        Path("opt.yml").write_text(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), encoding="utf-8")
        status = train_run.main(["-opt", "opt.yml"])
        error = capfd.readouterr().err
        assert status in (0, 2), f"{seed} {number}: {error}"
        assert "Traceback" not in error
        if status == 2:
            lines = error[error.index("error: ") :].splitlines()
            assert len(lines) == 1, lines
            assert len(lines[0]) < 1600
            refused += 1
    assert refused


def told(capfd, options, *arguments, run=train_run):
    """The error of a run that is refused."""
    assert run.main(["-opt", write_options(Path("opt.yml"), options), *arguments]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("network_g", "embed_dim", 0, "network_g.embed_dim must be a whole number above 0, not 0"),
        ("network_g", "embed_dim", 60_000, "network_g has weights of about"),
        ("network_g", "gc", -1, "network_g.gc must be"),
        ("network_g", "num_heads", [0], "network_g.num_heads must be"),
        ("network_g", "mlp_ratio", float("inf"), "network_g.mlp_ratio must be a number above 0, not inf"),
        ("network_g", "in_chans", 1, "network_g.in_chans is 1, but datasets.train has images of 3 channels"),
        ("network_g", "window_size", 10**30, "at most 65536"),
        ("network_g", "mlp_ratio", 0.01, "network_g (DRCT): mlp_ratio (0.01) leaves no hidden channels"),
        ("network_g", "upsampler", "", "network_g.upsampler '' is a network that makes no images"),
        ("train.optim_g", "betas", [0.9], "train.optim_g (Adam): betas must be 2 numbers, not [0.9]"),
        ("train.optim_g", "weight_decay", True, "train.optim_g (Adam): weight_decay must be a number, not True"),
        ("train.optim_g", "amsgrad", 1e30, "train.optim_g (Adam): amsgrad must be true or false, not 1e+30"),
        ("train.optim_g", "LR", 1, "there is no argument 'LR' (did you mean 'lr'?)"),
        ("train.optim_g", "type", "Adma", "train.optim_g.type 'Adma' is unknown (did you mean 'Adamax'?)"),
        ("train.scheduler", "type", "CosineLR", "train.scheduler.type 'CosineLR' is unknown"),
        ("train.pixel_opt", "loss_weight", "1.0", "train.pixel_opt.loss_weight must be a number"),
        ("train.pixel_opt", "reduction", "none", "a loss is not a single number: set its reduction to mean or sum"),
        ("train.pixel_opt", "loss_wieght", 1, "there is no argument 'loss_wieght' (did you mean 'loss_weight'?)"),
        ("datasets.train", "dataroot_gt", "x" * 5000, "no such folder: 'xxx"),
        ("datasets.train", "dataroot_gt", "a\nb", r"no such folder: 'a\nb'"),
        ("datasets.train", "std", None, "datasets.train has a mean but no std: set both"),
        ("datasets.train", "type", "SingleImageDataset", "SingleImageDataset has no ground truth to train on"),
        ("datasets.train", "type", {"a": 1}, "datasets.train.type must be text"),
        ("datasets.train", "batch_size_per_gpu", 10**30, "at most 65536"),
        ("datasets.train", "filename_tmpl", "{1}", "datasets.train (set): IndexError"),
        ("logger", "save_best", ["psnr"], "logger.save_best must be text"),
        ("", "model_type", ["DRCTModel"], "model_type must be text"),
        ("", "manual_seed", 2**32, "at most 4294967295"),
        ("", "name", "x" * 201, "name must be text that can be a folder's name"),
        ("", 5, 5, "opt.yml has the key 5, but keys are text"),
    ],
)
def test_what_is_refused_is_named(pairs, capfd, section, key, value, words):
    options = part = complete()
    for name in filter(None, section.split(".")):
        part = part[name]
    part[key] = value
    assert words in told(capfd, options)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("depths", [60_000, 2], "network_g.depths must be a list of whole numbers from 1 to 64"),
        ("depths", [], "network_g.depths must be"),
        ("embed_dim", 60_000, "network_g has weights of about"),
        ("compress_ratio", 1e-300, "network_g.compress_ratio must be a number from 0.01 to 10000"),
        ("squeeze_factor", 500, "network_g (HAT): squeeze_factor must be above 0 and at most embed_dim (12)"),
        ("overlap_ratio", float("inf"), "network_g.overlap_ratio must be 0 or a number above"),
        ("mlp_ratio", 0.01, "network_g (HAT): mlp_ratio (0.01) leaves no hidden channels"),
        ("in_chans", 1, "network_g.in_chans is 1, but datasets.train has images of 3 channels"),
        ("upscale", 4, "scale is 2, but network_g.upscale is 4"),
        ("upsampler", "", "network_g.upsampler '' is a network that makes no images"),
    ],
)
def test_what_is_refused_of_a_hat_is_named(pairs, capfd, key, value, words):
    options = complete_hat()
    options["network_g"][key] = value
    assert words in told(capfd, options)


def test_a_number_as_key_beside_a_missing_key_is_named(pairs, capfd):
    options = complete()
    del options["train"]["total_iter"]
    options["train"][1.5] = 1
    assert "train has the key 1.5, but keys are text" in told(capfd, options)


@pytest.mark.parametrize("metrics", [{}, None])
@pytest.mark.parametrize("dataset", ["PairedImageDataset", "SingleImageDataset"])
def test_validation_without_metrics_or_ground_truth(pairs, capfd, metrics, dataset):
    options = complete()
    options["val"]["metrics"] = metrics
    options["datasets"]["val"]["type"] = dataset
    assert "logger.save_best must name a metric, and there are no val.metrics" in told(capfd, options)
    del options["logger"]["save_best"]
    assert train_run.main(["-opt", write_options(Path("opt.yml"), options)]) == 0


def test_more_workers_than_a_machine_can_use_are_not_started(pairs, capfd, monkeypatch):
    from drct.runs import build

    options = complete()
    options["datasets"]["train"]["num_worker_per_gpu"] = 100_000
    wanted = []
    monkeypatch.setattr(build, "DataLoader", lambda *_, num_workers, **__: wanted.append(num_workers) or [])
    monkeypatch.setattr(build.os, "cpu_count", lambda: 4)
    assert build._workers(100_000) == 32
    assert build._workers(7) == 7


def test_workers_that_cannot_be_started_leave_none_behind():
    class Loader:
        num_workers = 3

        def __iter__(self):
            raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(Exception, match="Set a smaller datasets.train.num_worker_per_gpu"), batches_of(Loader()):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 300 + "]" * 300, "nested more than 50 deep"),
        ("a: &a {b: *a}", "nested more than 50 deep"),
        (GROWING, "more than 100,000 values"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: " + "9" * 5000, "integer string"),
    ],
    ids=["deep", "endless", "growing", "binary", "digits"],
)
def test_yaml_without_measure_is_refused(workplace, capsys, text, words):
    Path("opt.yml").write_text(text)
    with pytest.raises(Exception) as error:  # noqa: PT011
        load_yaml("opt.yml")
    assert report(error.value) == 2
    assert words in capsys.readouterr().err


def test_a_date_is_text():
    assert parse_yaml("2026-01-01") == "2026-01-01"


def test_mutated_tests_are_refused_in_one_line(weights, pairs, capfd):
    rng = random.Random(9)  # noqa: S311
    options = test_options(weights, network=TINY)
    for _ in range(12):
        changed = mutant(options, rng)
        Path("opt.yml").write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        assert test_run.main(["-opt", "opt.yml"]) in (0, 1, 2)
        assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "change", ["=", "a", "train:total_iter=[", "train:x:y=1", "datasets:train:gt_size=.inf", ":=1"]
)
def test_mutated_changes_are_refused_in_one_line(pairs, capfd, change):
    told(capfd, complete(), "--force_yml", change)


def test_every_option_file_reads_as_before():
    """Bounds refuse nothing that ships."""
    for path in (ROOT / "options").glob("*/*.yml"):
        assert load_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
