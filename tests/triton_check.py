"""The Triton kernels, in Triton's interpreter: run by a test, with TRITON_INTERPRET=1."""

import torch

from drct.analysis.gpu_speed import enliven_
from drct.archs import gpu_attention, gpu_rows, gpu_switches, gpu_triton, gpu_windows
from drct.archs.drct_arch import DRCT


def check_attention() -> None:
    """Compare it with the definition, an odd size and windows of all kinds included."""
    torch.manual_seed(0)
    for heads, tokens, keys, d, runs in (
        (2, 16, 16, 8, ((0, 0, 2), (1, 2, 4), (3, 4, 6))),
        (3, 70, 100, 24, ((0, 0, 1), (2, 1, 3))),
    ):
        images, n = 2, runs[-1][2]
        q = torch.randn(n * images, tokens, heads, d).transpose(1, 2)
        k, v = torch.randn(2, n * images, keys, heads, d).transpose(2, 3)
        biases = torch.randn(4, heads, tokens, keys)
        kind = torch.cat([torch.full(((end - start) * images,), kind) for kind, start, end in runs])
        expected = (q.double() @ k.double().mT + biases[kind].double()).softmax(-1) @ v.double()
        assert (gpu_triton.window_attention(q, k, v, biases, runs) - expected).abs().max() <= 1e-5
        kinds = gpu_windows.Kinds(None, runs)
        for on in (True, False):
            with torch.no_grad(), gpu_switches.switched(triton=on):
                assert (gpu_attention.attention_by_kind(q, k, v, biases, kinds) - expected).abs().max() <= 1e-5


def check_scale() -> None:
    """Compare attention with a factor of the products, as networks have in evaluation mode that run all at once."""
    q, k, v = torch.randn(3, 4, 2, 16, 8)
    bias = torch.randn(2, 16, 16)
    kinds = gpu_windows.Kinds(None, ((0, 0, 4),))
    with torch.no_grad():
        expected = gpu_attention.attention_by_kind(q, k, v, bias, kinds, scale=0.3)
        with gpu_switches.switched(triton=True):
            assert (gpu_attention.attention_by_kind(q, k, v, bias, kinds, scale=0.3) - expected).abs().max() <= 1e-5


def check_rows() -> None:
    """Compare networks by rows and otherwise, with widths that are and are not those of padded rows."""
    gpu_switches.is_gpu = lambda device: True
    gpu_switches.has_triton = lambda device, dtype: True
    calls = []
    added = gpu_rows.added
    gpu_rows.added = lambda *args: (calls.append(args[0].shape), added(*args))[1]
    for dim, heads, gc, qkv_bias in ((20, 2, 6, True), (16, 4, 16, False)):
        shape = {"embed_dim": dim, "num_heads": (heads,), "gc": gc, "depths": (6,), "window_size": 4, "mlp_ratio": 1.5}
        network = DRCT(img_size=8, upscale=2, upsampler="pixelshuffle", qkv_bias=qkv_bias, **shape).eval()
        enliven_(network)
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)):
            x = torch.rand(2, 3, 8, 12)
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                with gpu_switches.switched(rows=False):
                    expected = network(x)
                calls.clear()
                found = network(x)
            assert len(calls) == 5
            assert {shape[1] % 16 for shape in calls} == {0}
            assert (found - expected).float().square().mean().sqrt() <= bound, (dtype, (found - expected).abs().max())


if __name__ == "__main__":
    check_attention()
    check_scale()
    check_rows()
