"""The Triton kernel of window attention, in Triton's interpreter: run by a test, with TRITON_INTERPRET=1."""

import torch

from drct.archs import gpu_attention, gpu_switches, gpu_triton, gpu_windows


def check() -> None:
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


if __name__ == "__main__":
    check()
