"""Networks for analyses: by name, of files and of runs."""

import pytest
import torch
import yaml
from basicsr.archs.swinir_arch import SwinIR

from drct.analysis import networks
from drct.archs.drct_plain_arch import DRCTPlain
from drct.errors import DRCTError

TINY = {"img_size": 16, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2}
HEAD = {"upscale": 2, "upsampler": "pixelshuffle", "resi_connection": "1conv"}


def test_named_networks_have_the_published_numbers_of_parameters():
    parameters = {
        name: sum(p.numel() for p in networks.make(name).network.parameters())
        for name in ("HAT-S", "DRCT-C144", "DRCT-L")
    }
    assert parameters == {"HAT-S": 9_621_183, "DRCT-C144": 10_443_927, "DRCT-L": 27_580_719}


def test_a_name_that_no_network_has_is_told_with_the_one_that_was_meant():
    with pytest.raises(DRCTError, match="no network DRCT-XX.*DRCT-X"):
        networks.make("DRCT-XX")


def test_weights_of_swinir_are_loaded_as_basicsr_computes_them(tmp_path):
    torch.manual_seed(0)
    network = SwinIR(**TINY, **HEAD).eval()
    torch.save({"params_ema": network.state_dict()}, tmp_path / "swinir.pth")
    loaded = networks.load(tmp_path / "swinir.pth")
    assert loaded.name == "swinir" and loaded.scale == 2
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x), network(x), rtol=0, atol=1e-6)


def test_a_run_gives_the_newest_weights_of_any_architecture_in_the_registry(tmp_path):
    models = tmp_path / "run" / "models"
    models.mkdir(parents=True)
    options = {"network_g": {"type": "DRCTPlain", **TINY, "upscale": 2}}
    (tmp_path / "run" / "plain.yml").write_text(yaml.safe_dump(options))
    saved = [DRCTPlain(**TINY, upscale=2).eval() for _ in range(2)]
    for iteration, network in zip((900, 1000), saved, strict=True):
        torch.save({"params": network.state_dict()}, models / f"net_g_{iteration}.pth")
    loaded = networks.load(tmp_path / "run")
    assert isinstance(loaded.network, DRCTPlain) and loaded.window == 8
    assert torch.equal(loaded.network.conv_last.weight, saved[1].conv_last.weight)


def test_weights_of_nobody_are_refused(tmp_path):
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DRCTError, match=r"other\.pth.*spandrel does not know them either"):
        networks.load(tmp_path / "other.pth")


def test_plain_groups_have_no_dense_connections():
    """Changing what the first block gives changes the second block's input, which sees nothing else."""
    torch.manual_seed(0)
    network = DRCTPlain(**TINY, upscale=2).eval()
    for block in range(1, 6):
        assert getattr(network.layers[0], f"adjust{block}").weight.shape == (8, 8, 1, 1)
    for parameter in network.layers[0].adjust1.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 3, 16, 16)
    seen = []
    network.layers[0].swin2.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        network(x)
    assert seen and not seen[0].any()


def test_plain_network_computes_the_same_in_training_and_inference():
    torch.manual_seed(0)
    network = DRCTPlain(**TINY, upscale=2).eval()
    x = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        inference = network(x)
    assert torch.equal(inference, network(x))
    assert network(x).shape == (2, 3, 32, 48)
