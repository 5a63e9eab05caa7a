import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
shipped = ("DRCT-XS_SRx2", "DRCT-XS_SRx3", "DRCT-XS_SRx4", "Real-DRCT-XS_SRx4")  # see drct/runtime/weight_files.py
weights = [f"experiments/pretrained_models/{name}.pth" for name in shipped]
version = re.search(r'__version__ = "(.+?)"', (root / "drct" / "version.py").read_text(encoding="utf-8"))

setup(
    name="drct",
    version=version[1] if version else "0",
    description="DRCT: Dense-Residual-Connected Transformer for image super-resolution, as a plugin of BasicSR",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["drct", "drct.*"]),
    package_data={"drct.evaluation.pages": ["*.html", "*.js"]},
    python_requires=">=3.10,<3.13",  # BasicSR does not install on 3.13
    install_requires=(root / "requirements.txt").read_text(encoding="utf-8").split(),
    entry_points={"console_scripts": ["drct=drct.cli:entry_point"]},
    data_files=[("share/drct", [path for path in weights if (root / path).is_file()])],
    extras_require={
        "bench": ["matplotlib>=3.7", "onnx>=1.15", "onnxruntime>=1.17", "openvino>=2024.0", "spandrel>=0.4.1"],
        "curves": ["matplotlib>=3.7"],
        "metrics": ["pyiqa>=0.1.10"],
        "export": ["onnx>=1.15", "onnxruntime>=1.17"],
        "web": ["gradio>=6.31"],
        "dev": [
            "gradio>=6.31",
            "import-linter>=2.0",
            "matplotlib>=3.7",
            "mypy>=1.8",
            "onnx>=1.15",
            "onnxruntime>=1.17",
            "playwright>=1.50",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "spandrel>=0.4.1",
            "torchinfo>=1.8",
            "types-PyYAML",
            "types-psutil",
            "types-tqdm",
        ],
    },
)
