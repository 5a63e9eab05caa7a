"""The convolutions before and after the groups of a network, computed for any region of the image.

Letters in shapes: see `drct.archs.frame`.
"""

from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs import gpu_switches
from drct.archs.regions import Region, convolve, pad, read
from drct.archs.upsampler_kernels import RADIUS, UpsamplerKernels, enlarged

if TYPE_CHECKING:
    from drct.archs.frame import Frame


def shallow_features(network: "Frame", centred: Tensor, region: Region) -> Tensor:
    """Compute a region of the shallow features of a centred image: (B, C, region.height, region.width)."""
    size = (centred.shape[2], centred.shape[3])
    if region == Region(0, 0, *size):
        return network.conv_first(centred)
    return convolve(network.conv_first, read(centred, region.grow(1)), region, size)


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """Turn channels into pixels, keeping the order in memory: (B, C * factor ** 2, H, W) -> (B, C, H * factor, ...)."""
    if not gpu_switches.is_gpu(x.device) or x.is_contiguous():
        return F.pixel_shuffle(x, factor)
    # PyTorch's own would put the channels first, and the next convolution last again
    return rearrange(x, "b (c p q) h w -> b (h p) (w q) c", p=factor, q=factor).permute(0, 3, 1, 2)


class Reconstruction:
    """The layers after the body, for any region of the enlarged image.

    Args:
        network: The network.
        centred: Its input, centred: (B, in_chans, H, W).
        body: Deep features: (B, H, W, C).
        kernels: Those of the whole upsampler, by which to compute it at once; None to compute it layer by layer.
    """

    def __init__(
        self, network: "Frame", centred: Tensor, body: Tensor, kernels: UpsamplerKernels | None = None
    ) -> None:
        self.network, self.centred, self.body, self.kernels = network, centred, body, kernels
        upsample: Any = network.upsample
        self.stages = [(upsample[i], upsample[i + 1].upscale_factor) for i in range(0, len(upsample), 2)]
        self.sizes = [(body.shape[1], body.shape[2])]  # before and after each stage
        for _, factor in self.stages:
            height, width = self.sizes[-1]
            self.sizes.append((height * factor, width * factor))

    def image(self, region: Region) -> Tensor:
        """Return the enlargement of a region of the image, which is undefined beyond the image.

        Args:
            region: Region of the small image.

        Returns:
            (B, in_chans, region.height * upscale, region.width * upscale).
        """
        if self.kernels is not None:
            return enlarged(self._surrounded(region), region, self.sizes[0], self.kernels)
        last, large = len(self.stages), region.enlarge(self.network.upscale)
        return self._convolved(self.network.conv_last, lambda r: self._upsampled(last, r), large, self.sizes[last])

    def _surrounded(self, region: Region) -> Tensor:
        """Return a region of the features before the upsampler with what surrounds it, zeros beyond the image."""
        if region == Region(0, 0, *self.sizes[0]):
            return F.pad(self._upsampled(0, region), [RADIUS] * 4)
        return self._upsampled(0, region.grow(RADIUS))

    def _upsampled(self, count: int, region: Region) -> Tensor:
        """Return a region of the features after the first stages of the upsampler."""
        if count == 0:
            conv: Any = self.network.conv_before_upsample[0]
            return self.network.conv_before_upsample[1](self._convolved(conv, self._deep, region, self.sizes[0]))
        conv, factor = self.stages[count - 1]
        source = region.reduce(factor)
        x = self._convolved(conv, lambda r: self._upsampled(count - 1, r), source, self.sizes[count - 1])
        x = pixel_shuffle(x, factor)
        return region.relative_to(source.enlarge(factor)).of(x)

    def _deep(self, region: Region) -> Tensor:
        """Return a region of deep plus shallow features, with zeros beyond the image."""
        conv = self.network.conv_after_body
        shallow = shallow_features(self.network, self.centred, region)
        if isinstance(conv, nn.Conv2d):
            return self._convolved(conv, self._normalized, region, self.sizes[0]) + shallow
        return self._normalized(region) + shallow

    def _normalized(self, region: Region) -> Tensor:
        """Return a region of the normalized deep features, with zeros beyond the image."""
        inside = region.clip(*self.sizes[0])
        return pad(self.network.norm(inside.of_tokens(self.body)).permute(0, 3, 1, 2), inside, region)

    @staticmethod
    def _convolved(conv: nn.Conv2d, source: Any, region: Region, size: tuple[int, int]) -> Tensor:
        if region == Region(0, 0, *size):
            return conv(source(region))
        return convolve(conv, source(region.grow(1)), region, size)
