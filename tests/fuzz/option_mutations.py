"""Mutations of option files: of their tree of sections and values, and of their text."""

import copy
import datetime
import math
import random
from collections.abc import Callable
from typing import Any

import yaml

from drct.runtime.yaml_file import parse_yaml

Tree = dict[Any, Any]
VALUES: list[Any] = [
    *([], [1], [1, 2, 3], ["a"], [[]], [None], {}, {"type": "L1Loss"}, {1: 2}, {"a": {"b": []}}),
    *(0, 1, -1, 2, 3, 7, 64, 10**6, 2**31, 2**63, 10**30, -(10**30)),
    *(0.0, -0.5, 0.3, 1.5, 1e-320, 1e30, math.inf, -math.inf, math.nan),
    *(
        True,
        False,
        None,
        "",
        " ",
        "text",
        "auto",
        "none",
        "~",
        "1",
        "1e4",
        "two\nlines",
        "a\tb",
        "ünïcødé 图片 🖼",
        "\0",
    ),
    *("x" * 5000, "..", "/", "a/b", "\\", "-", "{}", "{0.a}", "%s", "$HOME", "\u2028", "\x1b[31m"),
    *(datetime.date(2024, 2, 29), b"bytes", {"s"}),
]
# Values that are right somewhere, which makes them likely to pass the first checks elsewhere
NAMES = [
    *("DRCTModel", "SRModel", "ESRGANModel", "DRCT", "DRCTPlain", "SwinIR", "EDSR", "RRDBNet", "MSRResNet"),
    *("PairedImageDataset", "SingleImageDataset", "ImageNetPairedDataset", "RealESRGANDataset", "FFHQDataset"),
    *("L1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss", "PerceptualLoss", "GANLoss", "mean", "sum"),
    *("Adam", "AdamW", "SGD", "LBFGS", "Adadelta", "Rprop", "SparseAdam", "Muon", "NAdam"),
    *("MultiStepLR", "CosineAnnealingLR", "OneCycleLR", "CyclicLR", "LambdaLR", "ReduceLROnPlateau", "ExponentialLR"),
    *("CosineAnnealingRestartLR", "MultiStepRestartLR", "LinearLR", "SequentialLR", "ChainedScheduler", "StepLR"),
    *("calculate_psnr", "calculate_ssim", "calculate_niqe", "lpips", "bf16", "fp16", "lmdb", "disk", "y", "HWC", "CHW"),
    *("params", "params_ema", "pixelshuffle", "pixelshuffledirect", "nearest+conv", "1conv", "3conv", "identity"),
]
# Values at the edges of what some keys allow, by path; beside the types that the files name
EDGES: dict[str, list[Any]] = {
    "scale": [1, 2, 3, 4, 5, 8],
    "precision": ["bf16", "fp16"],
    "self_ensemble": [True],
    "tile": ["auto", {"tile_size": 1}, {"tile_size": 8, "tile_pad": 100}, {"tile_size": 10**6}, {"tile_pad": 8}],
    "network_g.embed_dim": [1, 2, 6, 13, 10**6],
    "network_g.num_heads": [[1], [0], [13], [12], [2, 2]],
    "network_g.depths": [[1], [0], [], [100], [1, 1, 1]],
    "network_g.gc": [1, 3, 10**6],
    "network_g.mlp_ratio": [1e-9, 0.01, 1e6],
    "network_g.window_size": [1, 2, 3, 5, 7, 16, 64, 10**5],
    "network_g.img_size": [1, 2, 7, [16, 8], [16, 16, 16]],
    "network_g.patch_size": [2, [1, 1], 10**6],
    "network_g.in_chans": [1, 2, 4, 10**6],
    "network_g.img_range": [1e-30, 255.0, 1e30],
    "network_g.qk_scale": [0, -1, 1e30],
    "network_g.drop_rate": [0.5, 1],
    "network_g.attn_drop_rate": [0.5, 1.0],
    "network_g.drop_path_rate": [1.0, 0.5],
    "network_g.ape": [True],
    "network_g.use_checkpoint": [True],
    "network_g.upsampler": ["", "pixelshuffle"],
    "network_g.resi_connection": ["identity"],
    "datasets.train.gt_size": [1, 4, 7, 16, 1000, 10**6],
    "datasets.train.num_worker_per_gpu": [1, 2, 20, 100_000],
    "datasets.train.dataset_enlarge_ratio": [0.01, 0.5, 1e9, 1e30],
    "datasets.train.color": ["y", "x"],
    "datasets.train.mean": [[0.5, 0.5, 0.5], [0.5], 0.5, []],
    "datasets.train.std": [[0.5, 0.5, 0.5], 0, [0, 0, 0], []],
    "datasets.train.filename_tmpl": ["{}x2", "x", "{}{}", "{0}", "{", "{a}", "{:d}"],
    "datasets.train.cache": [True],
    "datasets.val.meta_info_file": ["small.yml"],
    "train.precision": ["bf16", "fp16", "fp32"],
    "train.accumulation": [1, 2, 3],
    "train.cuda_graphs": [True],
    "train.grad_clip": [1e-30, 1e30],
    "train.ema_decay": [0, 0.5, 0.999999999],
    "train.warmup_iter": [0, 1, 5, 10**9, -5],
    "train.optim_g": [
        *({"type": "Adam", "lr": lr} for lr in (0, -1.0, 1e-30, 1e3, 1e30)),
        *(
            {"type": "Adam", "lr": 1e-4, "betas": betas}
            for betas in ([0.9], [0, 0], [1, 1], [0.9, 0.99, 0.9], 0.9, ["a", "b"])
        ),
        *({"type": "Adam", "lr": 1e-4, key: v} for key in ("eps", "weight_decay") for v in (0, -1, 1e30, "x", None)),
        *({"type": "Adam", "lr": 1e-4, key: True} for key in ("amsgrad", "foreach", "fused", "maximize", "capturable")),
        *(
            {"type": kind, "lr": 1e-3}
            for kind in ("AdamW", "SGD", "RAdam", "Adagrad", "ASGD", "Adafactor", "RMSprop", "LBFGS", "MuonAdam")
        ),
        {"type": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    ],
    "train.scheduler": [
        *(
            {"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": n, "pct_start": p}
            for n in (2, 20)
            for p in (0, 0.05, 0.5, 1)
        ),
        *({"type": "CosineAnnealingLR", "T_max": n} for n in (0, 1, 2, -1, 0.5)),
        *(
            {"type": "CosineAnnealingRestartLR", "periods": p, "restart_weights": w}
            for p in ([1], [2, 2], [])
            for w in ([1], [1, 1])
        ),
        *(
            {"type": "MultiStepLR", "milestones": m, "gamma": g}
            for m in ([], [1], [1, 1], [2, 1])
            for g in (0.5, 0, -1, 1e30)
        ),
        *({"type": "StepLR", "step_size": n} for n in (0, 1, -1)),
        *({"type": "ExponentialLR", "gamma": g} for g in (0, 0.5, 1e30, -1)),
        *({"type": kind} for kind in ("ConstantLR", "LinearLR", "PolynomialLR", "CyclicLR", "SequentialLR")),
        *({"type": "CosineAnnealingWarmRestarts", "T_0": n} for n in (0, 1, 2)),
    ],
    "train.pixel_opt": [
        *(
            {"type": kind, "loss_weight": w}
            for kind in ("L1Loss", "MSELoss", "CharbonnierLoss")
            for w in (0, -1, 1e30, 1)
        ),
        *({"type": "L1Loss", "reduction": r} for r in ("mean", "sum", "none", "x")),
        *({"type": "CharbonnierLoss", "eps": e} for e in (0, -1, 1e-12)),
        {"type": "WeightedTVLoss"},
    ],
    "val": [{"val_freq": 1, "save_img": True}, {"val_freq": 1, "metrics": {}}, {"val_freq": 10**9, "save_img": False}],
    "val.val_freq": [1, 2],
    "val.suffix": ["", "x/y", "..", 5, "ü"],
    "val.bicubic": [True],
    "val.comparison": [True],
    "val.report": [True, False],
    "val.protocols": [True],
    "val.metrics.psnr.crop_border": [0, 1, 30, 10**6],
    "val.metrics.psnr.type": ["calculate_ssim", "calculate_niqe"],
    "val.metrics.psnr.better": ["lower", "higher"],
    "val.metrics.psnr.input_order": ["CHW", "x"],
    "logger.print_freq": [1],
    "logger.save_checkpoint_freq": [1],
    "logger.keep_last": [1],
    "logger.save_best": ["psnr", "ssim", "x"],
    "logger.use_tb_logger": [True],
    "path.param_key_g": ["params"],
    "path.strict_load_g": [False],
}
SNIPPETS = [
    *(
        "&a ",
        "*a",
        "<<: *a\n",
        "&a [*a]",
        "!!python/object/apply:os.system [ls]",
        "!!float abc",
        "!!binary x",
        "!!set ",
        "!",
    ),
    *(
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "\t",
        "\0",
        "\ufeff",
        "\u2028",
        "\r",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "? ",
        "| ",
        "> ",
    ),
    *(
        "'",
        '"',
        "#",
        ",",
        "\\",
        "@",
        "`",
        "key: [1, 2\n",
        "1: 2\n",
        "? [a]\n: b\n",
        "~: 1\n",
        ".inf: 1\n",
        "{a: 1}: 2\n",
    ),
    *(
        "network_g: *net\n",
        "name: [a, b\n",
        "name: &n x\nscale: *n\n",
        "0x10",
        "0o17",
        "1_000",
        "1:30",
        "=",
        "2024-02-30",
    ),
]
LAUGHS = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'ha'}]\n" for i in range(12))


def mutate(text: str, rng: random.Random) -> tuple[bytes, str]:
    """Return the bytes of a mutated option file, and the mutations in words."""
    if rng.random() < 0.3:
        return _mutate_text(text, rng)
    tree = parse_yaml(text)
    words = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        words.append(rng.choice(TREE_MUTATIONS)(tree, rng))
        if not isinstance(tree, dict) or not tree:
            break
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass"), "; ".join(words)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, Any, tuple[Any, ...]]]:
    """List every (container, key, path) of a tree."""
    entries = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    found = []
    for key, value in entries:
        found.append((tree, key, (*path, key)))
        found += _places(value, (*path, key)) if len(path) < 12 else []  # a tree may have come to hold itself
    return found


def _place(tree: Tree, rng: random.Random, kind: type | tuple[type, ...] = object) -> tuple[Any, Any, str]:
    places = _places(tree)
    fitting = [place for place in places if isinstance(place[0][place[1]], kind)] or places
    container, key, path = rng.choice(fitting)
    return container, key, ".".join(map(str, path))


def _rename(container: Any, key: Any, new: Any) -> None:
    if isinstance(container, list):
        container[key] = new
        return
    entries = [(new if name == key else name, value) for name, value in container.items()]
    container.clear()
    container.update(entries)


def _delete(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng)
    del container[key]
    return f"without {where}"


def _typo(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng)
    name = str(key)
    at = rng.randrange(len(name))
    wrong = rng.choice((name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:], name.upper(), name + "s"))
    _rename(container, key, wrong or "x")
    return f"{where} called {wrong!r}"


def _other_key(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng, (dict, str, int))
    new = rng.choice(
        (1, 0, -1, 2.5, math.inf, True, None, "", " ", "x" * 5000, "a\nb", "type", "name", "self", "opt", "图")
    )
    if rng.random() < 0.5:
        _rename(container, key, new)
        return f"{where} called {new!r:.40}"
    if isinstance(container, dict):
        container[new] = rng.choice(VALUES)
    return f"{new!r:.40} beside {where}"


def _other_value(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng)
    container[key] = value = copy.deepcopy(rng.choice(VALUES))
    return f"{where} = {value!r:.60}"


def _other_name(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng, str)
    container[key] = value = rng.choice(NAMES)
    return f"{where} = {value!r}"


def _other_number(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng, (int, float))
    value = container[key]
    if not isinstance(value, int | float):
        return _other_value(tree, rng)
    numbers: list[Any] = [
        value * 10,
        -value,
        value + 1,
        value - 1,
        value / 2,
        value * 1e3,
        float(value),
        str(value),
        value + 0.5,
    ]
    container[key] = rng.choice([*numbers, 0, 1, 1e30, math.inf, math.nan, [value], not value])
    return f"{where} = {container[key]!r}"


def _other_list(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng, list)
    entries = container[key]
    if not isinstance(entries, list) or not entries:
        return _other_value(tree, rng)
    at = rng.randrange(len(entries))
    change = rng.randrange(4)
    if change == 0:
        del entries[at]
    elif change == 1:
        entries.insert(at, entries[at])
    elif change == 2:
        entries[at] = copy.deepcopy(rng.choice(VALUES))
    else:
        container[key] = entries[at]
    return f"{where} = {container[key]!r:.60}"


def _swap(tree: Tree, rng: random.Random) -> str:
    kind = rng.choice((dict, object))
    (a, i, where), (b, j, there) = _place(tree, rng, kind), _place(tree, rng, kind)
    a[i], b[j] = copy.deepcopy(b[j]), copy.deepcopy(a[i])
    return f"{where} and {there} swapped"


def _nest(tree: Tree, rng: random.Random) -> str:
    container, key, where = _place(tree, rng)
    value: Any = container[key]
    depth = rng.choice((1, 1, 1, 50))
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {key: value}
    container[key] = value
    return f"{where} nested {depth} deep"


def _share(tree: Tree, rng: random.Random) -> str:
    (a, i, where), (b, j, there) = _place(tree, rng), _place(tree, rng)
    a[i] = b[j]  # written as anchor and alias
    return f"{where} the same as {there}"


def _edge(tree: Tree, rng: random.Random) -> str:
    where = rng.choice([path for path in EDGES if path.split(".")[0] in tree or "." not in path])
    *sections, key = where.split(".")
    container: Any = tree
    for name in sections:
        container = container.get(name) if isinstance(container, dict) else None
    if not isinstance(container, dict):
        return _other_value(tree, rng)
    container[key] = value = copy.deepcopy(rng.choice(EDGES[where]))
    if where == "scale" and isinstance(tree.get("network_g"), dict):
        tree["network_g"]["upscale"] = value
    return f"{where} = {value!r:.80}"


TREE_MUTATIONS: list[Callable[[Tree, random.Random], str]] = [
    *(_delete, _typo, _other_key, _other_value, _other_value, _other_value, _other_name, _other_name),
    *(_other_number, _other_number, _other_list, _swap, _nest, _share),
    *[_edge] * 8,
]


def _mutate_text(text: str, rng: random.Random) -> tuple[bytes, str]:
    lines = text.splitlines(keepends=True)
    for _ in range(200):  # not in the comments
        at = rng.randrange(len(lines))
        if lines[at].strip() and not lines[at].lstrip().startswith("#"):
            break
    line = lines[at]
    change = rng.choice(list(TEXT_MUTATIONS))
    if change == "bytes":
        data = bytearray(text.encode())
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data), "bytes changed"
    if change == "whole":
        return rng.choice(WHOLE_FILES)(text), "another file"
    lines[at : at + 1] = TEXT_MUTATIONS[change](line, rng)
    return "".join(lines).encode(), f"line {at + 1} ({line.strip():.40}): {change}"


def _insert(line: str, rng: random.Random) -> list[str]:
    at = rng.choice((0, len(line) - len(line.lstrip()), rng.randrange(len(line)), line.find(":") + 1, len(line) - 1))
    return [line[:at], rng.choice(SNIPPETS), line[at:]]


TEXT_MUTATIONS: dict[str, Callable[[str, random.Random], list[str]]] = {
    "bytes": lambda line, rng: [line],
    "whole": lambda line, rng: [line],
    "inserted": _insert,
    "inserted again": _insert,
    "deleted": lambda line, rng: [],
    "twice": lambda line, rng: [line, line],
    "indented": lambda line, rng: [" " * rng.choice((1, 2, 4)) + line],
    "outdented": lambda line, rng: [line.lstrip()],
    "tabs": lambda line, rng: ["\t" + line.lstrip()],
    "no colon": lambda line, rng: [line.replace(":", rng.choice(("", " ", "=", "::")), 1)],
    "no space": lambda line, rng: [line.replace(": ", ":", 1)],
    "cut": lambda line, rng: [line[: len(line) // 2]],
    "joined": lambda line, rng: [line.rstrip("\n")],
    "anchor": lambda line, rng: [line.replace(": ", ": &net ", 1)],
    "merge": lambda line, rng: [
        line,
        " " * (len(line) - len(line.lstrip())) + f"<<: {rng.choice(('*x', '{a: 1}', '[1]', '1'))}\n",
    ],
}
WHOLE_FILES: list[Callable[[str], bytes]] = [
    lambda text: b"",
    lambda text: b"# nothing\n",
    lambda text: b"[]\n",
    lambda text: b"text\n",
    lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text[: len(text) // 2].encode(),
    lambda text: text.encode() * 2,
    lambda text: f"{text}\n---\n{text}".encode(),
    lambda text: (text + "\n" + LAUGHS).encode(),
    lambda text: (LAUGHS + text.replace("name: ", "name: *l11 #", 1)).encode(),
    lambda text: (text + "\nloop: &loop {a: *loop}\n").encode(),
    lambda text: text.encode() + b"\nnote: " + b"\xe9\xe8\n",
    lambda text: text.encode() + b"\n" + b"[" * 5000,
    lambda text: text.encode() + b"\nx: " + b"{a: " * 2000,
    lambda text: text.replace("    ", "\t").encode(),
]
