"""The weights that are known: of this project and of the networks' authors, and which of them are here.

To add weights, add a row to `RELEASES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drct.errors import DRCTError
from drct.files import sha256_of_file
from drct.runtime.weight_files import WEIGHT_SUFFIXES, folders

BENCHMARKS = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")


@dataclass(frozen=True)
class Source:
    """Where weights come from.

    Attributes:
        name: Name of the project.
        licence: Licence of the project, for its weights too.
        links: Where it offers them.
    """

    name: str
    licence: str
    links: tuple[str, ...]


HERE = Source("this repository", "MIT", ())
RECIPE = Source("nobody: the recipe is in options/train", "", ())
DRCT = Source(
    "DRCT",
    "MIT",
    (
        "https://github.com/ming053l/DRCT",
        "https://drive.google.com/drive/folders/1QJHdSfo-0eFNb96i8qzMJAPw31u9qZ7U",
    ),
)
HAT = Source(
    "HAT",
    "Apache-2.0",
    (
        "https://github.com/XPixelGroup/HAT",
        "https://drive.google.com/drive/folders/1HpmReFfoUqUbnAOQ7rvOeNU3uf_m69w0",
    ),
)


@dataclass(frozen=True)
class Release:
    """A weight file.

    Attributes:
        file: Name of the file, as option files have it.
        network: Name of its network.
        scale: Scale factor.
        parameters: Number of parameters.
        source: Where it comes from.
        data: What it was trained on.
        sha256: SHA-256 of the file; '' where it is not known for certain.
        psnr: PSNR on Y in dB by benchmark, without `scale` pixels at the border.
        measured: Whether these were measured by this project; otherwise, the authors have published them.
        published_as: Name by which the source offers the file, if that is another one.
    """

    file: str
    network: str
    scale: int
    parameters: int
    source: Source
    data: str
    sha256: str = ""
    psnr: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False
    published_as: str = ""


def _psnr(*values: float) -> dict[str, float]:
    """Return the PSNR by benchmark, of as many as there are values."""
    return dict(zip(BENCHMARKS, values, strict=False))


_DF2K, _IMAGENET = "DF2K", "ImageNet, DF2K"
# Of this project's own files, SHA-256 and PSNR are those of the file in experiments/pretrained_models and of its test
# run in figures/results, which the tests compare. Of others' files: PSNR from the README of the DRCT project and
# arXiv:2404.00722, and from the README of the HAT project; those SHA-256 on which at least two independent sources
# agree, such as OpenModelDB and copies on the Hugging Face Hub.
RELEASES = (
    Release(
        "DRCT-XS_SRx2.pth",
        "DRCT-XS",
        2,
        1_206_467,
        HERE,
        "BSDS500, photographs",
        "f01f27f4f06a09d865ea1066f061fd4c37c4561d2818d355ec55d59c77d4712d",
        _psnr(37.50, 33.24),
        measured=True,
    ),
    Release(
        "DRCT-XS_SRx3.pth",
        "DRCT-XS",
        3,
        1_391_107,
        HERE,
        "BSDS500, photographs",
        "a1f6066411fc40ccc0f093b5e22da039298df6760eb1693dfa23e76387cb4cb2",
        _psnr(34.02, 30.09),
        measured=True,
    ),
    Release(
        "DRCT-XS_SRx4.pth",
        "DRCT-XS",
        4,
        1_354_179,
        HERE,
        "BSDS500, photographs",
        "70d485c072ef30f8bb1995701f6c8562f0aa8f7d0cd2cab4e4ddea2bf8bb205d",
        _psnr(31.74, 28.29),
        measured=True,
    ),
    Release(
        "Real-DRCT-XS_SRx4.pth",
        "DRCT-XS",
        4,
        1_354_179,
        HERE,
        "BSDS500, photographs",
        "513cd9ea33691c08f968a9ab1a7484e098e8bb32d5a135b9dbe99fe4de86340f",
        _psnr(31.28, 27.90),
        measured=True,
    ),
    Release("DRCT_SRx2.pth", "DRCT", 2, 13_991_867, DRCT, _DF2K),
    Release("DRCT_SRx3.pth", "DRCT", 3, 14_176_507, DRCT, _DF2K),
    Release(
        "DRCT_SRx4.pth",
        "DRCT",
        4,
        14_139_579,
        DRCT,
        _DF2K,
        "fe104903aa8fe897b85605a733c8c7907e40c02f066e53c6cbac2f3f0c838dd9",
        _psnr(33.11, 29.35, 28.18, 28.06, 32.59),
        published_as="DRCT_X4.pth",
    ),
    Release("DRCT_SRx2_ImageNet-pretrain.pth", "DRCT", 2, 13_991_867, DRCT, _IMAGENET),
    Release("DRCT_SRx3_ImageNet-pretrain.pth", "DRCT", 3, 14_176_507, DRCT, _IMAGENET),
    Release("DRCT_SRx4_ImageNet-pretrain.pth", "DRCT", 4, 14_139_579, DRCT, _IMAGENET),
    Release("DRCT-L_SRx2_ImageNet-pretrain.pth", "DRCT-L", 2, 27_433_007, DRCT, _IMAGENET),
    Release("DRCT-L_SRx3_ImageNet-pretrain.pth", "DRCT-L", 3, 27_617_647, DRCT, _IMAGENET),
    Release(
        "DRCT-L_SRx4_ImageNet-pretrain.pth",
        "DRCT-L",
        4,
        27_580_719,
        DRCT,
        _IMAGENET,
        "a99044c0275699d1a296ae21b8f322fa8c65d7b9be2213ee2a3dcc280ab8d64b",
        _psnr(33.37, 29.54, 28.16, 28.70, 33.14),
        published_as="DRCT-L_X4.pth",
    ),
    Release("DRCT-XL_SRx4_ImageNet-pretrain.pth", "DRCT-XL", 4, 32_061_099, DRCT, "ImageNet", psnr=_psnr(32.97, 29.08)),
    Release("DRCT-C144_SRx4.pth", "DRCT-C144", 4, 10_443_927, RECIPE, _DF2K),
    Release(
        "HAT-S_SRx2.pth",
        "HAT-S",
        2,
        9_473_471,
        HAT,
        _DF2K,
        "3e249a901c2aed6b82548875e21847ef6c015a40c814237a7a0abb10c69d5ddf",
    ),
    Release("HAT-S_SRx3.pth", "HAT-S", 3, 9_658_111, HAT, _DF2K),
    Release(
        "HAT-S_SRx4.pth",
        "HAT-S",
        4,
        9_621_183,
        HAT,
        _DF2K,
        "a92f81bd2c0c1aaa371a6e4d6cac69e749fde2e36196885ee47a4a3667542c9a",
        _psnr(32.92, 29.15, 27.97, 27.87, 32.35),
    ),
    Release("HAT_SRx2.pth", "HAT", 2, 20_624_795, HAT, _DF2K),
    Release("HAT_SRx3.pth", "HAT", 3, 20_809_435, HAT, _DF2K),
    Release(
        "HAT_SRx4.pth",
        "HAT",
        4,
        20_772_507,
        HAT,
        _DF2K,
        "02dabea478aa5902a7170ad89350124e691bd89c91356f24b3267022622dc030",
        _psnr(33.04, 29.23, 28.00, 27.97, 32.48),
    ),
    Release("HAT_SRx2_ImageNet-pretrain.pth", "HAT", 2, 20_624_795, HAT, _IMAGENET),
    Release("HAT_SRx3_ImageNet-pretrain.pth", "HAT", 3, 20_809_435, HAT, _IMAGENET),
    Release(
        "HAT_SRx4_ImageNet-pretrain.pth",
        "HAT",
        4,
        20_772_507,
        HAT,
        _IMAGENET,
        "4ee053c42461187846dc0e93aa5abd34591c0725a8e044a59000e92ee215e833",
    ),
    Release("HAT-L_SRx2_ImageNet-pretrain.pth", "HAT-L", 2, 40_698_863, HAT, _IMAGENET),
    Release("HAT-L_SRx3_ImageNet-pretrain.pth", "HAT-L", 3, 40_883_503, HAT, _IMAGENET),
    Release(
        "HAT-L_SRx4_ImageNet-pretrain.pth",
        "HAT-L",
        4,
        40_846_575,
        HAT,
        _IMAGENET,
        "5992bd38522f2b8faf11ea4bd8ee08de92465bb66892166576999afc36d60043",
        _psnr(33.30, 29.47, 28.09, 28.60, 33.09),
    ),
    Release(
        "Real_HAT_GAN_SRx4.pth",
        "HAT",
        4,
        20_772_507,
        HAT,
        "DF2K, OST",
        "f5b1e3bbbb05147ca2beefcc715279cb647d7976cbda67d62ea7e6e20d5ffcc7",
    ),
    Release(
        "Real_HAT_GAN_SRx4_sharper.pth",
        "HAT",
        4,
        20_772_507,
        HAT,
        "DF2K, OST",
        "5800b67136006eb8cab3b4ed7c8d73b6a195bb18e6cc709b674f9aa069c00271",
        published_as="Real_HAT_GAN_sharper.pth",
    ),
)


def release(name: str) -> Release:
    """Return the row of a file, by its name without suffix. Raises `KeyError` if there is none."""
    return {Path(row.file).stem: row for row in RELEASES}[name]


@dataclass(frozen=True)
class Found:
    """A row of the zoo, and what is here of it.

    Attributes:
        release: The row.
        path: The file; None if it is missing.
        sha256: SHA-256 of the file.
        identity: 'published' if that is the SHA-256 of the row; 'unknown' if the row has none; otherwise 'other'.
        twin: The other row whose SHA-256 the file has, if there is one.
    """

    release: Release
    path: Path | None = None
    sha256: str = ""
    identity: str = ""
    twin: Release | None = None


def weights_here(places: Sequence[Path] | None = None) -> tuple[list[Found], list[Path]]:
    """Compare the rows of the zoo with the weight files in some folders; by default, those where weights are found.

    A file is recognized by its SHA-256, whatever its name, and else by its name. In several folders, the first file of
    a name counts, as in `find_weights`.

    Returns:
        What is here of each row, and the files that are none of them.

    Raises:
        DRCTError: if a file cannot be read.
    """
    files: dict[str, Path] = {}
    for folder in folders() if places is None else places:
        for path in sorted(folder.glob("*")):
            if path.suffix in WEIGHT_SUFFIXES and path.is_file():
                files.setdefault(path.name, path)
    digests = {path: _sha256(path) for path in files.values()}
    by_digest = {row.sha256: row for row in RELEASES if row.sha256}
    found = [_found(row, files, digests, by_digest) for row in RELEASES]
    taken = {each.path for each in found}
    return found, [path for path in files.values() if path not in taken]


def _found(
    row: Release, files: Mapping[str, Path], digests: Mapping[Path, str], by_digest: Mapping[str, Release]
) -> Found:
    """Find the file of a row: that of its SHA-256, first under its own name; or else of its name."""
    named = [files[name] for name in (row.file, row.published_as) if name in files]
    same = [path for path in (*named, *files.values()) if row.sha256 and digests[path] == row.sha256]
    if same:
        return Found(row, same[0], row.sha256, "published")
    if not named:
        return Found(row)
    digest = digests[named[0]]
    twin = by_digest.get(digest)
    return Found(row, named[0], digest, "other" if row.sha256 or twin else "unknown", twin)


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DRCTError(f"cannot read {path}: {error.strerror or error}") from error
