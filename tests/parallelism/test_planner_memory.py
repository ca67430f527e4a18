"""The planner's memory stays as near to what others measured as docs/benchmarks/planner-memory.md says.

planner_memory_rows.csv: 28 of the rows that Megatron-LM's functional tests record (github.com/NVIDIA/Megatron-LM,
tests/functional_tests, golden values); planner_memory_b200.csv: those of full-size layers on 8 B200
(github.com/MooreThreads/SimuMax, docs/b200). The whole files are compared where ../shared has them.
"""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from benchmarks import megatron_rows, planner_memory
from benchmarks.megatron_rows import Row

HERE = Path(__file__).parent
PUBLISHED = HERE.parents[1].parent / "shared/data/published"
PAGE = planner_memory.PAGE


def medians(path: Path, suite: str) -> tuple[float, float]:
    found = [item for item in megatron_rows.errors(megatron_rows.read_rows(path)) if item[0].suite == suite]
    return median(abs(state) for _, state, _ in found), median(abs(peak) for _, _, peak in found)


def test_small_models_of_many_layouts() -> None:
    state, peak = medians(HERE / "planner_memory_rows.csv", "gpt")
    assert state < 0.005
    assert peak < 0.01


def test_experts_of_many_layouts() -> None:
    state, peak = medians(HERE / "planner_memory_rows.csv", "moe")
    assert state < 0.02
    assert peak < 0.03


def test_full_size_layers() -> None:
    rows = planner_memory.full_size(HERE / "planner_memory_b200.csv")
    assert len(rows) == 18
    assert max(abs(row.error) for row in rows) < 0.01
    assert median(abs(row.error) for row in rows) < 0.005


def test_whole_files() -> None:
    if not PUBLISHED.is_dir():
        pytest.skip("the published figures are not here (../shared/data/published)")
    state, peak = medians(PUBLISHED / "megatron_functional.csv", "gpt")
    assert state < 0.005
    assert peak < 0.01
    assert planner_memory.page(PUBLISHED) + "\n" == PAGE.read_text()


def test_what_is_not_planned_has_a_reason() -> None:
    row = megatron_rows.read_rows(HERE / "planner_memory_rows.csv")[0]
    reasons = {
        "another architecture: t5": replace(row, suite="t5"),
        "parameters sharded by FSDP": replace(row, case="gpt3_mcore_te_tp2_zp_z3"),
        "its sizes are not in the row": with_fields(row, layers=""),
        "its recipe changed after it was measured": with_fields(row, config_changed_after_golden="True"),
        "fp8": with_fields(row, fp8="hybrid"),
        "what is computed again is not in the row": with_fields(row, recompute="selective"),
        "its number of GPUs is not in the row": replace(with_fields(row, nodes=""), case="gpt3_release"),
        "layers divided unevenly over stages": with_fields(row, pp="5"),
    }
    assert {reason: megatron_rows.refusal(other) for reason, other in reasons.items()} == {
        reason: reason for reason in reasons
    }
    assert megatron_rows.errors(reasons.values()) == []


def with_fields(row: Row, **fields: str) -> Row:
    return replace(row, fields={**row.fields, **fields})


def test_a_miss_has_a_cause_or_says_that_none_was_found() -> None:
    row = megatron_rows.read_rows(HERE / "planner_memory_rows.csv")[0]
    assert "logits" in planner_memory.cause(replace(row, case="gpt3_mcore_te_cross_entropy_loss_fusion"))
    assert planner_memory.cause(replace(row, case="gpt3_mcore_te", env="dev", platform="dgx_h100")) == "not found"
