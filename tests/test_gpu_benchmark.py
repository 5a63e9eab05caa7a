"""The benchmark of a GPU, on the CPU with tiny networks; its figures are nobody's test."""

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tables
import torch
from conftest import HAT_TINY, TINY, OriginalDRCT
from torch.autograd import DeviceType

from drct.analysis import contenders, gpu_speed, kernel_kinds
from drct.analysis.contenders import CONTENDERS, choose_contenders, pytorch_runner
from drct.analysis.deadline import Deadline, Outcome, Step, run_steps
from drct.analysis.gpu_report import gpu_table, gpu_text, parity_table
from drct.analysis.speed import SpeedResult
from drct.analysis.speed_report import AttentionTime, Parity, SpeedReport, read_speed
from drct.archs import gpu_switches
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.commands import bench
from drct.commands.bench import main

SOME = ("ours", "ours-bf16", "original-bf16", "hat-ours-bf16", "ours-step-bf16")


def tiny_network(name, **options):
    torch.manual_seed(0)
    kind, arguments = {"DRCT": (DRCT, TINY), "HAT": (HAT, HAT_TINY), "original DRCT": (OriginalDRCT, TINY)}[name]
    return kind(**arguments, upscale=4, upsampler="pixelshuffle", **options).eval()


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(gpu_speed, "make_network", tiny_network)
    monkeypatch.setattr(gpu_speed, "PROFILED", ("ours-step-bf16",))


def test_everything_is_measured_in_this_process(workplace, tiny, capsys):
    arguments = ["--in-process", "--sizes", "16x32", "16x16", "--rounds", "2", "--json", "b.json", "--chart", "b.png"]
    assert main([*arguments, "--contenders", *SOME]) == 0
    out = capsys.readouterr().out
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| 16x32 |")]
    assert {row[2].strip() for row in rows} == {"this project", "original", "HAT, this project"}
    assert sum(line.startswith("| 4 x 16x16 | this project, training step | bf16 |") for line in out.splitlines()) == 1
    assert "| DRCT | fp32 | 16x16 |" in out
    report = read_speed(Path("b.json"))
    assert report.in_process
    assert min(report.product_gflops_per_second[precision] for precision in ("fp32", "bf16", "fp16")) > 0
    assert [(p.network, p.precision) for p in report.parity] == [
        (name, precision) for name in ("DRCT", "HAT") for precision in ("fp32", "bf16", "fp16")
    ]
    assert all(p.holds and p.size == "16x16" for p in report.parity)
    assert len(report.results) == 2 * 4 + 1
    assert all(len(r.seconds) == 2 and min(r.seconds) > 0 and r.operations > 0 for r in report.results)
    ours, original = (next(r for r in report.results if r.contender == key) for key in ("ours-bf16", "original-bf16"))
    assert ours.operations == pytest.approx(original.operations, rel=0.05)  # the definition's
    step = next(r for r in report.results if r.contender == "ours-step-bf16")
    small = next(r for r in report.results if r.contender == "ours-bf16" and r.size == "16x16")
    assert step.operations == 12 * small.operations  # four images, forward and twice as much backward
    assert [(p.contender, p.size) for p in report.profiles] == [("ours-step-bf16", "4 x 16x16")]
    assert all(sum(p.seconds.values()) > 0 and p.kernels > 50 for p in report.profiles)
    assert {a.kernel for a in report.attention} >= {"as executed", "as executed, shifted", "PyTorch, products"}
    assert all(a.seconds or a.error for a in report.attention)
    assert main(["--show", "b.json", "--chart", "again.png"]) == 0
    assert capsys.readouterr().out == out
    assert Path("again.png").read_bytes() == Path("b.png").read_bytes()


def test_bfloat16_comes_first_and_the_rest_is_named_when_time_is_over(workplace, tiny, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    measure = gpu_speed._measure

    def slowly(benchmark, contender, size):
        measure(benchmark, contender, size)
        now[0] += 20

    monkeypatch.setattr(gpu_speed, "_measure", slowly)
    assert main(["--in-process", "--sizes", "16x16", "--rounds", "1", "--minutes", "1.2", "--contenders", *SOME]) == 0
    out = capsys.readouterr().out
    assert "| 16x16 | this project | bf16 |" in out
    assert "not measured for lack of time: ours at 16x16" in out


def test_steps_that_fail_do_not_end_the_others(capsys):
    done, seen = [], []

    def fail():
        raise RuntimeError("CUDA out of memory\nand more")

    steps = [
        Step("one", 0, fail),
        Step("two", 0, lambda: done.append(2)),
        Step("long", 99, fail),
        Step("last", 1, fail),
    ]
    outcome = run_steps(steps, Deadline(50), lambda o: seen.append((len(o.skipped), len(o.failed))))
    assert done == [2]
    assert outcome == Outcome(["long"], dict.fromkeys(("one", "last"), "RuntimeError: CUDA out of memory"))
    assert seen == [(0, 1), (0, 1), (1, 2)]
    assert "s left: two" in capsys.readouterr().err


def test_a_file_is_kept_after_each_step(workplace, tiny, monkeypatch):
    """So that a run that is cut off leaves what it has measured."""
    written = []
    monkeypatch.setattr(gpu_speed, "write_text", lambda path, text: written.append(json.loads(text)))
    plan = gpu_speed.Plan([CONTENDERS["ours-bf16"]], [(16, 16)], (16, 16), "cpu", 1, 1, (16, 16), 64, 1)
    gpu_speed.run_benchmark(plan, "original", ["hat is left out"], Deadline(100), Path("b.json"))
    assert [len(content["results"]) for content in written][:3] == [0, 0, 1]
    assert written[0]["left_out"] == ["hat is left out"]


def test_a_difference_beyond_its_bound_is_a_failure(workplace, tiny, monkeypatch):
    monkeypatch.setattr(gpu_speed, "FP32_BOUND", -1.0)
    assert main(["--in-process", "--sizes", "16x16", "--rounds", "1", "--contenders", "ours"]) == 1
    assert not Parity("DRCT", "fp32", "16x16", math.nan, 1e-4).holds


@pytest.mark.parametrize(("option", "value"), [("minutes", "nan"), ("minutes", "0"), ("rounds", "0"), ("threads", "0")])
def test_amounts_that_are_not_above_0_are_refused(option, value, tiny, monkeypatch, capsys):
    monkeypatch.setattr(bench, "_of_gpu", None)
    assert main(["--in-process", "--sizes", "16x16", "--contenders", "ours", f"--{option}", value]) == 2
    assert capsys.readouterr().err.startswith(f"error: --{option} must be above 0, not {value}")


def test_contenders_of_a_gpu_are_left_out_of_the_cpu_by_name(monkeypatch):
    chosen, notes = choose_contenders(["ours-graphs-bf16", "ours-step-graphs", "ours"], "cpu")
    assert [c.key for c in chosen] == ["ours"]
    assert notes[0] == "ours-graphs-bf16 is left out: it is measured on a GPU only"
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    _, notes = choose_contenders(["original", "ours-triton"], "cuda")
    assert [note.split(":")[1] for note in notes] == [" spandrel is not installed", " triton is not installed"]
    assert set(contenders.CPU_DEFAULT) <= CONTENDERS.keys()


def test_switches_are_on_while_a_contender_runs():
    seen = []
    network = torch.nn.Identity()
    network.register_forward_hook(lambda *args: seen.append(gpu_switches.present()))
    pytorch_runner(CONTENDERS["ours-graphs"], "cpu", network)(torch.zeros(1))
    pytorch_runner(CONTENDERS["ours-compiled"], "cpu", network)(torch.zeros(1))
    pytorch_runner(CONTENDERS["ours"], "cpu", network)(torch.zeros(1))
    assert seen == [gpu_switches.Switches(graphs=True), gpu_switches.Switches("inductor"), gpu_switches.Switches()]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>", "attention"),
        ("void (anonymous namespace)::softmax_warp_forward<c10::BFloat16, float>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("_attention", "attention"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolutions"),
        ("cutlass_tensorop_bf16_s16816dgrad_optimized_bf16", "convolutions"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_bias_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_tn_align1>", "matrix products"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16, float>", "normalization"),
        ("void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>", "moving and reordering"),
        ("void at::native::index_elementwise_kernel<128, 4, index_copy_kernel_impl>", "moving and reordering"),
        (
            "void at::native::elementwise_kernel<direct_copy_kernel_cuda(at::TensorIteratorBase&)>",
            "moving and reordering",
        ),
        ("void at::native::CatArrayBatchedCopy_aligned16_contig<at::native::OpaqueType>", "moving and reordering"),
        ("Memcpy HtoD (Pageable -> Device)", "moving and reordering"),
        ("void at::native::vectorized_elementwise_kernel<4, GeluCUDAKernelImpl>", "activations, additions, sums"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>", "activations, additions, sums"),
        ("something_else_entirely", "other"),
    ],
)
def test_kernels_have_kinds(name, kind):
    assert kernel_kinds.kind_of(name, kernel_kinds.GPU_KINDS) == kind


def test_only_kernels_count_on_a_gpu():
    def event(key, on_gpu, own, count, annotation=False):
        device = DeviceType.CUDA if on_gpu else DeviceType.CPU
        times = {"self_device_time_total": own, "self_cpu_time_total": 7e6}
        return SimpleNamespace(key=key, device_type=device, count=count, is_user_annotation=annotation, **times)

    events = [
        event("aten::addmm", False, 2e6, 3),  # names the time of the kernel that it starts
        event("nvjet_tst_128x256", True, 2e6, 3),
        event("layer_norm_kernel", True, 1e6, 2),
        event("my range", True, 9e6, 1, annotation=True),
    ]
    seconds, count = kernel_kinds._by_kind(events, True)
    assert count == 5
    assert {kind: s for kind, s in seconds.items() if s} == {"matrix products": 2, "normalization": 1}


def test_the_table_compares_equal_precisions_and_names_failures():
    results = [
        SpeedResult("original-bf16", "480x640", [0.4, 0.6, 0.5], 10**9, operations=1e13),
        SpeedResult("ours-bf16", "480x640", [0.05], 2 * 10**8, operations=1e13),
        SpeedResult("ours-graphs-bf16", "480x640", [0.04], 2 * 10**8, operations=1e13),
        SpeedResult("ours", "480x640", [0.25], 2 * 10**8, operations=1e13),
        SpeedResult("original", "480x640", error="OutOfMemoryError: CUDA out of memory"),
        SpeedResult("original-step-bf16", "4 x 64x64", [0.2], 10**9, operations=1e12),
        SpeedResult("ours-step-bf16", "4 x 64x64", [0.1], 10**9, operations=1e12),
    ]
    report = SpeedReport({}, {"bf16": 8e5}, [], "original", results, in_process=True, skipped=["hat at 480x640"])
    rows = gpu_table(report, training=False).splitlines()[2:]
    assert rows[0] == "| 480x640 | original | bf16 | 500.00 | 400.00 .. 600.00 | 1.00 | 1.00 GB | 20.00 | 2% |"
    assert rows[1] == "| 480x640 | this project | bf16 | 50.00 | 50.00 .. 50.00 | 10.00 | 0.20 GB | 200.00 | 25% |"
    assert "| 12.50 | 0.20 GB | 250.00 | 31% |" in rows[2]
    assert rows[3].endswith("| 250.00 | 250.00 .. 250.00 |  | 0.20 GB | 40.00 |  |")
    assert "failed: OutOfMemoryError: CUDA out of memory" in rows[4]
    steps = gpu_table(report, training=True).splitlines()[2:]
    assert [row.split("|")[6].strip() for row in steps] == ["1.00", "2.00"]
    report.parity = [Parity("DRCT", "fp32", "64x96", 2e-5, 1e-4), Parity("DRCT", "bf16", "64x96", 0.5, 0.1)]
    assert parity_table(report).splitlines()[2:] == [
        "| DRCT | fp32 | 64x96 | 2.0e-05 | 1.0e-04 | yes |",
        "| DRCT | bf16 | 64x96 | 5.0e-01 | 1.0e-01 | NO |",
    ]
    assert "not measured for lack of time: hat at 480x640" in gpu_text(report)


def test_the_pages_take_in_what_was_measured(workplace):
    results = [SpeedResult("ours-bf16", "480x640", [0.05], 10**8, operations=1e13)]
    results += [SpeedResult("ours-step-bf16", "4 x 64x64", [0.1], 10**9, operations=1e12)]
    report = SpeedReport({}, {"bf16": 8e5}, [], "original", results, in_process=True)
    report.parity = [Parity("HAT", "fp32", "64x96", 2e-5, 1e-4)]
    report.profiles = [kernel_kinds.KernelProfile("ours-bf16", "480x640", {"attention": 0.03, "other": 0.01}, 700, 0.1)]
    report.attention = [
        AttentionTime("as executed", 6, 32, 256, 0.002),
        AttentionTime("Triton", 6, 32, 256, error="no"),
    ]
    names = ("speed-gpu", "steps-gpu", "parity-gpu", "kernels-gpu", "attention-gpu")
    page = "".join(f"<!-- table: {name} -->\nNot measured yet.\n<!-- end -->\n" for name in names)
    assert tables.with_tables(page, workplace) == (page, [], [])
    Path("speed_gpu.json").write_text(report.as_json())
    text, stale, failures = tables.with_tables(page, workplace)
    assert (stale, failures) == ([*names], [])
    assert "| 480x640 | this project | bf16 | 50.00 |" in text
    assert "| 4 x 64x64 | this project, training step | bf16 | 100.00 |" in text
    assert "| HAT | fp32 | 64x96 | 2.0e-05 |" in text
    assert "| attention | 75% |" in text
    assert "| as executed | 2.000 |\n| Triton | none |" in text
