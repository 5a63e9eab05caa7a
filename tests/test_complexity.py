"""Parameters, operations and memory: against torchinfo, counters of real runs, and published tables."""

import csv
import json
import math
import shutil
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torchinfo
from conftest import ROOT, TINY, pair
from published import published_as
from spandrel.architectures.HAT import HAT
from spandrel.architectures.SwinIR import SwinIR
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis import complexity, networks
from drct.analysis.complexity import complexity_of, complexity_table, counts_of, kept_for_backward, read_complexity
from drct.cli import main as drct_main
from drct.errors import DRCTError

PEER = {
    "img_size": 16,
    "embed_dim": 12,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 8,
    "upscale": 2,
    "upsampler": "pixelshuffle",
    "resi_connection": "1conv",
}
HAT_PEER = {"compress_ratio": 3, "squeeze_factor": 6, "conv_scale": 0.01, "overlap_ratio": 0.5}


def by_torchinfo(network, height, width):
    found = torchinfo.summary(network, (1, 3, height, width), verbose=0, device="cpu")
    return found.total_mult_adds, found.total_output_bytes


@pytest.mark.parametrize(
    ("scale", "size", "changes"),
    [
        (2, (16, 16), {}),
        (3, (8, 20), {"gc": 8, "mlp_ratio": 1.5}),
        (4, (20, 12), {"qkv_bias": False, "patch_norm": False}),
        (8, (16, 8), {"depths": (6,), "num_heads": (3,), "resi_connection": "identity"}),
        (2, (16, 8), {"img_size": 8, "window_size": 8}),
    ],
)
def test_a_drct_is_counted_as_torchinfo_counts_the_original(scale, size, changes):
    original, network = pair(scale, **TINY | changes)
    expected = by_torchinfo(original, *size)
    assert counts_of(network, *size)[:2] == expected
    assert counts_of(original, *size)[:2] == expected


@pytest.mark.parametrize("network", [SwinIR(**PEER), HAT(**PEER, **HAT_PEER)], ids=["SwinIR", "HAT"])
def test_peers_are_counted_as_torchinfo_and_a_real_run_count_them(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.rand(1, 3, 16, 24))
    assert counts_of(network, 16, 24) == (*by_torchinfo(network, 16, 24), counter.get_total_flops())


@pytest.mark.parametrize("name", ["DRCT", "HAT"])
def test_no_activation_but_those_of_a_real_run_is_kept_for_the_backward_pass(name):
    network = pair(2, **TINY)[1] if name == "DRCT" else HAT(**PEER, **HAT_PEER)
    network.train()
    weights = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.detach()) or t, lambda t: t):
        network(torch.rand(1, 3, 16, 24))
    memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept if t.is_floating_point()}
    expected = sum(size for address, size in memory.items() if address not in weights)
    assert kept_for_backward(network, 16, 24) == expected > 1e5


def test_activations_are_what_one_counts_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten())
    # of the first convolution and GELU their inputs, of ReLU, whose result is flattened in place, its result
    assert kept_for_backward(network, 10, 20) == 4 * 200 * (3 + 8 + 8 + 8)


def test_a_network_computes_the_same_after_it_was_measured():
    _, network = pair(2, **TINY)
    x = torch.rand(1, 3, 16, 16)
    kept_for_backward(network, 16, 16)  # the first to need the geometry of these windows
    with torch.no_grad():
        before = network.eval()(x)
    kept_for_backward(network, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), before)


PUBLISHED = {  # as printed in arXiv:2404.00722, and operations of a real run of FlopCounterMode
    "HAT-S": ("9.621", "11.22", "2053.42", "109.24"),
    "DRCT-C144": ("10.443", "5.92", "1857.55", "113.96"),
    "HAT-L": ("40.846", "76.69", "5165.39", "405.98"),
    "DRCT-L": ("27.580", "9.20", "4278.19", "287.80"),
}


@pytest.fixture(scope="module")
def published():
    """Of the networks that the paper reports the complexity of, without their activations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complexity, "kept_for_backward", lambda *_: 0)
        return [complexity_of(name, 64, 64) for name in PUBLISHED]


def test_published_figures_come_out_to_the_digit(published):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in complexity_table(published).splitlines()]
    assert {row[0]: tuple(row[1:5]) for row in rows[2:]} == PUBLISHED
    paper = {"HAT-S": "HAT", "DRCT-C144": "DRCT", "HAT-L": "HAT-L", "DRCT-L": "DRCT-L"}
    for name, *cells in rows[2:]:
        assert published_as(name) == "{}: {} M, {} G, {} MB".format(paper[name], *cells[:3])


def test_the_figures_that_the_readme_shows_are_what_is_computed(published):
    shown = {c.network: c for c in read_complexity(ROOT / "figures" / "complexity.json")}
    assert tuple(shown) == complexity.NAMED
    for c in published:
        assert replace(shown[c.network], activation_bytes=0) == c
    assert shown["DRCT-XS"] == complexity_of("DRCT-XS", 64, 64)


@pytest.mark.slow
def test_all_figures_that_the_readme_shows_are_what_is_computed():
    shown = read_complexity(ROOT / "figures" / "complexity.json")
    assert shown == [complexity_of(name, 64, 64) for name in complexity.NAMED]


@pytest.mark.slow
def test_operations_of_the_larger_networks_are_those_that_a_real_run_counts():
    for name in ("DRCT", "HAT"):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            networks.make(f"original {name}").network(torch.rand(1, 3, 64, 64))
        assert complexity_of(name, 64, 64).operations == counter.get_total_flops()
        assert f"{counter.get_total_flops() / 1e9:.2f}" == {"DRCT": "148.67", "HAT": "207.76"}[name]


def test_any_size_is_measured_as_its_whole_windows_and_a_large_one_without_its_memory():
    sizes = [(1, 1), (9, 8), (16, 9), (2048, 1536)]
    found = [complexity_of("DRCT-XS", *size) for size in sizes]
    assert [(c.width, c.height) for c in found] == sizes
    windows = [math.ceil(width / 8) * math.ceil(height / 8) for width, height in sizes]
    for (a, b), (n, m) in zip(pairwise(found), pairwise(windows), strict=True):
        assert a.operations * m == b.operations * n
        assert a.pass_bytes * m == b.pass_bytes * n
    assert found[-1].activation_bytes > 150e9  # more than the machines of most users have


def test_a_file_of_spandrels_is_measured_at_its_whole_windows(workplace):
    network = SwinIR(**PEER)
    torch.save({"params": network.state_dict()}, "swinir.pth")
    found = complexity_of("swinir.pth", 17, 5)
    assert (found.network, found.width, found.height) == ("swinir", 17, 5)
    assert (found.multi_adds, found.pass_bytes) == by_torchinfo(network, 8, 24)
    assert found.parameters == sum(p.numel() for p in network.parameters())


def test_markdown_csv_and_json_tell_the_same(workplace, weights, capsys):
    names = [str(weights), str(shutil.copy(weights, "copy.pth"))]
    for file in ("table.md", "table.csv", "table.json"):
        assert drct_main(["complexity", *names, "-o", file]) == 0
    found = read_complexity(workplace / "table.json")
    assert [c.network for c in found] == ["weights", "copy"]
    assert found[0] == complexity_of(weights, 64, 64)
    content = json.loads((workplace / "table.json").read_text())
    rows = list(csv.DictReader((workplace / "table.csv").read_text().splitlines()))
    assert rows == [{key: str(value) for key, value in c.items()} for c in content]
    assert (workplace / "table.md").read_text() == complexity_table(found)
    capsys.readouterr()
    assert drct_main(["complexity", *names, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == content


def test_without_spandrel_its_networks_are_left_out_and_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setattr(complexity, "NAMED", ("DRCT-XS", "original HAT", "SwinIR-M"))
    assert drct_main(["complexity", "--size", "8x8", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert [row["network"] for row in csv.DictReader(out.splitlines())] == ["DRCT-XS"]
    assert "original HAT" in err and "are left out: they need spandrel: pip install spandrel" in err
    assert drct_main(["complexity", "original HAT", "--size", "8x8"]) == 2
    assert "error: original HAT needs spandrel: pip install spandrel" in capsys.readouterr().err


def test_mistakes_are_told_in_one_line_and_the_others_measured(workplace, capsys):
    assert drct_main(["complexity", "DRCT-XX", "DRCT-XS", "gone.pth", "--size", "8x8"]) == 1
    out, err = capsys.readouterr()
    assert "| DRCT-XS |" in out
    assert "error: no network DRCT-XX (did you mean 'DRCT-X" in err and "error: no weights gone.pth" in err
    assert drct_main(["complexity", "DRCT-XS", "-o", "table.txt"]) == 2
    assert "table.txt" in capsys.readouterr().err
    with pytest.raises(DRCTError, match="no result of drct complexity"):
        read_complexity(workplace / "table.json")


def test_a_network_without_a_head_is_refused_with_its_own_reason(workplace):
    from drct.archs.drct_arch import DRCT

    torch.save({"params": DRCT(**TINY, upsampler="").state_dict()}, "headless.pth")
    with pytest.raises(DRCTError, match="no reconstruction head"):
        complexity_of("headless.pth", 16, 16)
