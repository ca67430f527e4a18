"""Step times and FLOPs against published ones: a few rows that are always here, all of them where they lie beside."""

from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from benchmarks.planner_time import (
    fitted_error,
    flop_ratio,
    null_error,
    null_rates,
    report,
    rounding,
)
from benchmarks.published import Case, Unpredictable, case, read
from benchmarks.published_stacks import fitted, predict

ROWS = Path(__file__).with_name("planner_time_rows.csv")
PUBLISHED = Path(__file__).parents[3] / "shared/data/published/training_throughput.csv"  # beside the checkout

# What docs/benchmarks/planner-time.md shows, rounded up: medians of |predicted / measured - 1|.
SUITES = {
    "Korthikanti 2022 (Table 5)": 0.07,
    "torchtitan": 0.045,
    "LLM-Foundry": 0.025,
    "Megatron-Bridge": 0.06,
    "NeMo 24.07": 0.06,
    "NeMo long-sequence": 0.035,
    "nanotron v0.5": 0.12,
    "SimuMax B200 (real)": 0.04,
    "Megatron-LM": 0.10,
}
WORSE_THAN_NULL = {
    "Megatron-LM": "7 rows within 13 %, whose micro batch, chunks and in part pipeline stages are not printed",
    "NeMo 24.07": "6 rows within 5 % of each other, each tuned by hand",
}


@pytest.fixture(scope="module")
def few() -> list[Case]:
    return read(ROWS)[0]


@pytest.fixture(scope="module")
def many() -> list[Case]:
    if not PUBLISHED.is_file():
        pytest.skip("the published figures are not here (../shared/data/published)")
    return [row for row in read(PUBLISHED)[0] if not row.recalled]


def test_printed_tflops_follow_from_printed_tokens_per_second(few: list[Case]) -> None:
    assert len(_printed(few)) == 23
    _check_flops(few)


def test_all_printed_tflops_follow(many: list[Case]) -> None:
    assert len(_printed(many)) == 157
    _check_flops(many)


def _printed(cases: list[Case]) -> list[Case]:
    return [row for row in cases if row.printed_tflops and row.tokens_per_s and not row.shape.experts]


def _check_flops(cases: list[Case]) -> None:
    """Within 1 %, or within 1 % of what the printed tokens/s can be: Megatron-Bridge rounds them to whole sequences."""
    errors = {row: abs(flop_ratio(row) - 1) for row in _printed(cases)}
    assert all(error < 0.01 for row, error in errors.items() if row.suite != "Megatron-Bridge")
    assert all(error < 0.01 + rounding(row) for row, error in errors.items())


def test_step_times_of_a_few_rows(few: list[Case]) -> None:
    assert len(few) == 45
    assert median(map(fitted_error, few)) < 0.06
    assert median(abs(predict(row) / row.measured - 1) for row in few) < 0.12  # no factor for the software


def test_step_times_of_every_suite(many: list[Case]) -> None:
    suites = _by_suite(many)
    found = {suite: median(map(fitted_error, suites[suite])) for suite in SUITES}
    assert {suite: error for suite, error in found.items() if error > SUITES[suite]} == {}


def test_better_than_a_constant_rate(many: list[Case]) -> None:
    """On every suite of more than one row but two; the constants are fitted on half of what the null model has seen."""
    worse = set()
    for suite, rows in _by_suite(many).items():
        rates = null_rates(rows)
        if len(rows) > 1 and median(map(fitted_error, rows)) > median(null_error(row, rates) for row in rows):
            worse.add(suite)
    assert worse == set(WORSE_THAN_NULL)


def test_as_good_on_rows_that_were_not_fitted(many: list[Case]) -> None:
    other = [row for row in many if not fitted(row)]
    assert len(other) > len(many) / 3
    assert median(map(fitted_error, other)) < 0.06


def _by_suite(cases: list[Case]) -> dict[str, list[Case]]:
    found = defaultdict(list)
    for row in cases:
        found[row.suite].append(row)
    return found


def test_report_names_what_it_shows(few: list[Case]) -> None:
    text = report(few, [({"id": "1"}, "no data sheet for TPU")])
    assert "| NeMo 24.07, dense | model FLOPs, full square | 6 |" in text
    assert "- 1: no data sheet for TPU" in text
    assert "| Llama-1.34B |" in text  # the worst row of all is listed


ROW = {
    "id": "1",
    "source_suite": "new",
    "model": "m",
    "kind": "dense",
    "layers": "30",
    "hidden": "1024",
    "heads": "8",
    "kv_heads": "",
    "ffn": "",
    "vocab": "",
    "gated_mlp": "",
    "seq": "2048",
    "gbs": "",
    "mbs": "",
    "n_gpus": "64",
    "gpu": "H100-80GB",
    "tp": "",
    "pp": "4",
    "vp": "",
    "cp": "",
    "ep": "",
    "fsdp_zero": "",
    "recompute": "",
    "dtype": "bf16",
    "iter_time_s": "",
    "tokens_per_s_per_gpu": "",
    "tflops_per_gpu": "300",
    "mfu_pct": "",
    "notes": "",
    "evidence": "READ_FILE",
}


def test_defaults_of_what_a_row_leaves_out() -> None:
    found = case(ROW)
    assert found.layout.describe() == "TP1 PP4 VP2 DP16 MBS1"
    assert found.layout.global_batch_size == 8 * 4 * 16
    assert found.shape.ffn_hidden_size == round(2 * 4096 / 3)
    assert found.even_shape.num_layers == 32
    assert found.tflops == pytest.approx(300)
    assert case({**ROW, "pp": ""}).layout.pipeline_model_parallel_size == 1
    assert case({**ROW, "mbs": "2", "gbs": "1024"}).layout.describe() == "TP1 PP4 DP16 MBS2"
    assert case({**ROW, "mbs": "n/a", "tokens_per_s_per_gpu": "1000"}).measured == pytest.approx(512 * 2048 / 64e3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gpu": "TPU-v6e"}, "no data sheet for TPU-v6e"),
        ({"dtype": ""}, "no such number format: none given"),
        ({"dtype": "fp8", "gpu": "A100-80GB"}, "the device has no matmul of that number format"),
        ({"notes": "LoRA Performance"}, "LoRA: most weights are frozen"),
        ({"model": "ESM-2-15B"}, "an encoder on unpadded tokens"),
        ({"model": "Nemotron_3_Nano"}, "a hybrid with state-space layers"),
        ({"n_gpus": ""}, "the number of GPUs is not given"),
        ({"seq": ""}, "the sequence length is not given"),
        ({"layers": ""}, "the model's sizes are not given"),
        ({"tp": "3"}, "tensor x pipeline x context does not divide the GPUs"),
        ({"gbs": "20"}, "the copies of the model do not divide the global batch"),
        ({"tflops_per_gpu": ""}, "no time, tokens/s, TFLOP/s or MFU is given"),
    ],
)
def test_rows_that_cannot_be_predicted(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Unpredictable, match=reason):
        case({**ROW, **change})
