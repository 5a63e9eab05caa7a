"""What only inference on the CPU computes: its attention, the upsampler as one convolution, pieces of windows."""

import pytest
import torch
from conftest import HAT_TINY, TINY, definition, rescale_
from torch import nn

from drct.archs import cpu_attention, gpu_windows, windows
from drct.archs.drct_arch import DRCT
from drct.archs.frame import _upsampler
from drct.archs.hat_arch import HAT
from drct.archs.regions import Region, read
from drct.archs.upsampler_kernels import RADIUS, enlarged, upsampler_kernels

KINDS = ((0, 0, 3), (1, 3, 5), (2, 5, 6), (3, 6, 7))  # as runs: kind, first window, end


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 2e-6), (torch.bfloat16, 3e-2), (torch.float16, 3e-3), (torch.float64, 1e-14)],
)
def test_attention_is_that_of_the_definition(monkeypatch, dtype, bound, onednn, large):
    """Windows of all kinds, by either way of multiplying, and rows whose powers are no numbers."""
    if onednn and (dtype != torch.float32 or not cpu_attention.HAS_ONEDNN):
        pytest.skip("oneDNN multiplies one by one in float32 only")
    monkeypatch.setattr(cpu_attention, "_onednn_is_faster", lambda q, k: onednn)
    monkeypatch.setattr(cpu_attention, "LOGITS_AT_A_TIME", 2 * 16 * 16)
    torch.manual_seed(0)
    heads, d, w, images = 2, 8, 4, 2
    qkv = torch.randn(7, images, w * w, 3 * heads * d).to(dtype).double()
    bias = torch.randn(heads, w * w, w * w, dtype=torch.float64)
    if large:
        bias[0, 3] += 2000  # 2 ** 2000 is no number of any dtype here, nor is its inverse
        bias[1, 5] -= 2000
    masks = windows.shift_masks(w, 2, torch.device("cpu"), dtype)
    q, k, v = qkv.unflatten(-1, (3, heads, d)).permute(3, 0, 1, 4, 2, 5)  # (n, B, h, N, d)
    kind = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    logits = q @ k.mT + bias + masks.double()[kind][:, None, None]
    expected = (logits.softmax(-1) @ v).transpose(2, 3).flatten(3)
    scaled = torch.cat([qkv[..., : heads * d] * cpu_attention.FACTOR, qkv[..., heads * d :]], -1).to(dtype)
    kinds = gpu_windows.Kinds(masks, KINDS)
    found = cpu_attention.attend(scaled, heads, (bias * cpu_attention.FACTOR).to(dtype), kinds)
    error = (found.double() - expected).abs().amax((0, 1, 3))
    assert found.dtype == dtype
    assert error[[i for i in range(w * w) if i not in (3, 5)]].max() <= bound
    if dtype in (torch.float32, torch.float64):  # the others cannot tell logits near 2000 from each other
        assert error[[3, 5]].max() <= 1000 * bound


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_kernels_of_an_upsampler_compute_its_layers(scale, bias):
    """For each region of images of any size, whichever borders it has, and beyond the image too."""
    torch.manual_seed(0)
    upsample, last = _upsampler(scale, 4).double(), nn.Conv2d(4, 3, 3, 1, 1, bias=bias).double()
    if not bias:
        upsample[0] = nn.Conv2d(4, len(upsample[0].weight), 3, 1, 1, bias=False).double()
    with torch.no_grad():
        kernels = upsampler_kernels(upsample, last, torch.float64)
        for height, width in ((2, 2), (2, 5), (7, 6)):
            x = torch.randn(2, 4, height, width, dtype=torch.float64)
            expected = last(upsample(x))
            for top, left, side in ((0, 0, 8), (0, 0, 1), (height - 1, width - 1, 1), (1, 1, 4), (0, 1, 3), (1, 0, 2)):
                region = Region(top, left, side, side)
                found = enlarged(read(x, region.grow(RADIUS)), region, (height, width), kernels)
                inside = region.clip(height, width).enlarge(scale)
                part = found[..., : inside.height, : inside.width]
                assert (part - inside.of(expected)).abs().max() <= 1e-12


@pytest.mark.parametrize("layer", ["upsample.0", "upsample.2", "conv_last"])
def test_changed_layers_of_the_upsampler_are_noticed(layer):
    network = DRCT(**TINY, upscale=4, upsampler="pixelshuffle").eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        for name in ("weight", "bias"):
            before = network(x)
            getattr(network.get_submodule(layer), name).data.mul_(1.5)
            assert not torch.equal(network(x), before)
            assert (network(x) - definition(network, x)).abs().max() <= 1e-5


@pytest.mark.parametrize(("kind", "w"), [(DRCT, 1), (HAT, 4)])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (5, 2)])
@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
def test_networks_of_the_smallest_images_are_computed(kind, w, size, upscale):
    """A row or column of one pixel is a first and a last one, which the kernels of the upsampler have not."""
    options = {"upsampler": "pixelshuffle", "upscale": upscale, "window_size": w}
    network = kind(**({DRCT: TINY, HAT: HAT_TINY}[kind] | options)).eval()
    rescale_(network)
    x = torch.rand(2, 3, *(side * w for side in size))
    with torch.no_grad():
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5


def test_pieces_are_of_powers_of_two_windows():
    """Every size of a product leaves something in PyTorch's caches."""
    x = torch.zeros(1, 4 * 5, 4 * 7, 3)
    for shift in (0, 2):
        pieces = list(gpu_windows.window_order(x, 4, shift).pieces(8))
        assert [piece.windows for piece in pieces] == [8, 8, 8, 8, 2, 1]
        assert [sum(end - start for _, start, end in piece.kinds.runs) for piece in pieces] == [8, 8, 8, 8, 2, 1]
        assert torch.cat([piece.tokens for piece in pieces]).sort().values.equal(torch.arange(20 * 28))
