"""Datasets that read ground truth only, and make the rest of a training pair themselves."""

from pathlib import Path
from typing import Any

from drct.data.file_lists import read_list, read_lmdb_list
from drct.data.image_files import ImageFiles
from drct.data.pairs import dataset_images


class GroundTruthDataset(ImageFiles):
    """Ground truth of a folder with its subfolders, a list of files or an LMDB.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt` and `io_backend` (type: disk or lmdb). Optional is
            `meta_info_file` or `meta_info`, a list of files relative to `dataroot_gt`, one `name (h,w,c)` per line.

    Raises:
        DRCTError: if there are no images.
    """

    recursive = True  # whether subfolders of a folder count

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        root, names = Path(opt["dataroot_gt"]), opt.get("meta_info_file") or opt.get("meta_info")
        self.from_folder = self.io_backend_opt["type"] != "lmdb" and not names
        if self.io_backend_opt["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [str(root)], "client_keys": ["gt"]}
            self.paths = list(read_lmdb_list(root))
        elif names:
            self.paths = [str(root / name) for name, _ in read_list(Path(names))]
        else:
            self.paths = [str(path) for path in dataset_images(root, self.recursive)]
