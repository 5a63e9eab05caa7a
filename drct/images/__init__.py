"""Image files, read and written in two ways.

**Images of datasets** (`bgr`) are (H, W, 3) arrays, BGR, uint8, the convention of OpenCV and BasicSR. Gray is repeated,
alpha is dropped and 16 bits are reduced to 8, so that every file of a dataset gives the same kind of array.

**Pictures** (`pictures`) are the files that people want upscaled: any mode, depth, transparency and metadata, of which
as much as possible is kept in the result. Their arrays are (H, W, C), C = 1 gray, 2 gray and
alpha, 3 RGB, 4 RGB and alpha (straight, not premultiplied); uint8, uint16, or float32 in [0, 1].

Only `tiff` imports tifffile and only `pictures` imports `tiff`, so that training, which reads `bgr`, needs neither.
"""
