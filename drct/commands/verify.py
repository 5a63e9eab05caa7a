"""Repeat a test run by the certificate that it wrote, and name what differs.

Images, weights and options must be the same. Without --tolerance, so must be the figures, to the last digit, and the
versions and the device; with it, figures may differ as far as it says, and other versions or devices are only named.
Images and weights are looked for where they were, seen from this folder, unless --force_yml says where they are now.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from drct.commands.common import command_parser
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.schema.certificate import Certificate, read_certificate

EXAMPLES = """examples:
  %(prog)s results/DRCT-XS_SRx4
  %(prog)s certificate.json --tolerance 0.01 ssim=0.0001
  %(prog)s certificate.json --force_yml path:pretrain_network_g=here.pth datasets:test_1:dataroot_gt=Set5/GT
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct verify`."""
    parser = command_parser(__doc__, EXAMPLES)
    file = "certificate.json of a test run's results, or the folder that it is in"
    parser.add_argument("certificate", type=Path, metavar="FILE", help=file)
    tolerance = "largest difference of a metric that counts as none, for all metrics or those that are named"
    parser.add_argument("--tolerance", nargs="+", type=_tolerance, metavar="[METRIC=]VALUE", help=tolerance)
    changes = "replace options: where images and weights are now; any other change counts as a difference"
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help=changes)
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct verify`. Returns 0 if all is the same, 1 if something differs, 2 without a repetition."""
    args = argument_parser().parse_args(argv)
    certificate = read_certificate(args.certificate)
    _check(args.tolerance or [], certificate)

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_verify)(args, certificate)


def _check(tolerances: list[tuple[str, float]], certificate: Certificate) -> None:
    """Raise `DRCTError` for a tolerance of a metric that was not measured."""
    known = {metric for dataset in certificate.datasets.values() for metric in dataset.mean}
    for metric, _ in tolerances:
        if metric and metric not in known:
            raise DRCTError(f"--tolerance {metric}: the certificate has no such metric{did_you_mean(metric, known)}")


def _verify(args: Namespace, certificate: Certificate) -> int:
    import torch

    from drct.evaluation.certificate import Tolerance, summary
    from drct.runs.verify import verify
    from drct.runtime.distributed import rank

    torch.backends.cudnn.benchmark = False  # as in the run
    tolerance = None
    if args.tolerance:
        values = dict(args.tolerance)
        tolerance = Tolerance(values.pop("", 0.0), values)
    found = verify(certificate, args.certificate, args.force_yml, tolerance, args.launcher)
    if rank() == 0:
        for line in found.differences:
            print(line)
        for line in found.notes:
            print(f"note: {line}")
        images = sum(len(dataset.images) for dataset in certificate.datasets.values())
        print(summary(found, images, tolerance))
    return 1 if found.differences else 0


def _tolerance(entry: str) -> tuple[str, float]:
    """Read a tolerance, and the metric that it is for, '' for all."""
    metric, _, number = entry.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1
    if not value >= 0:
        raise ArgumentTypeError(f"{entry} is not a number from 0, such as 0.01 or ssim=0.0001")
    return metric, value
