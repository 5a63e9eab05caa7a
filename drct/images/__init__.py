"""Image files, read and written in two ways. Nothing is imported here: take what you need from the modules.

**Images of datasets** are (H, W, 3) arrays, BGR, uint8, the convention of OpenCV and BasicSR. Gray is repeated, alpha
is dropped and 16 bits are reduced to 8, so that every file of a dataset gives the same kind of array.

=========== =========================================================================================================
`bgr`       `read_image`, `write_png`, and `as_float` for float32 in [0, 1]
`listing`   `list_images`: the image files of a folder
=========== =========================================================================================================

**Pictures** are the files that people want upscaled: any mode, depth, colour profile, EXIF or transparency, of which as
much as possible is kept in the result. Their arrays are (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha
(straight, not premultiplied); uint8, uint16, or float32 in [0, 1].

=========== =========================================================================================================
`pictures`  `Picture`, `read_picture`, `write_picture`; `from_pil` and `to_pil` for Pillow images
`depth`     conversion between 8 bits, 16 bits and floats
`exif`      which metadata a result keeps, and EXIF's orientation
`png16`     PNG of 16 bits, which Pillow reads as 8 bits
`tiff`      TIFF of 16 bits or floats, which Pillow reads as 8 bits or not at all
`native`    OpenCV's decoder, and silence for what C libraries print
=========== =========================================================================================================

Only `tiff` imports tifffile and only `pictures` imports `tiff`, so that training, which reads `bgr`, needs neither.
"""
