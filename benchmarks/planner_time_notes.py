"""What docs/benchmarks/planner-time.md says beside its figures, and what is known about single misses."""

from collections.abc import Mapping

from benchmarks.published import Case

HEAD = """# The planner's step times and FLOPs against published ones

Made by `.venv/bin/python benchmarks/planner_time.py --data ../shared/data/published`. What a row leaves out takes the
defaults at the top of `benchmarks/published.py`."""

COUNT = """{rows} rows: {firm} are predicted and count, {recalled} were written down from memory at least in part (they
are shown and decide nothing), {left} cannot be predicted:
"""

FLOPS = """## FLOPs

Printed TFLOP/s per GPU against the model's FLOPs per token times the printed tokens/s. Nothing is fitted.

| suite | convention | rows | median error | largest | within 1 % | within 1 % and the rounding of tokens/s |
|---|---|---|---|---|---|---|"""

FLOP_NOTES = """
- Megatron-Bridge prints tokens/s of some releases as a whole number of sequences per second over all GPUs (1,664
  tokens/s on 64 GPUs are 13 sequences of 8,192): half a sequence is then the rounding, 4 % of 13. Dense rows that miss
  1 % are of this kind.
- LLM-Foundry counts 6 FLOPs for its learned positions too, one vector for each place of the sequence.
- DeepSeek-V3 in Megatron-Bridge trains one more layer that predicts a second token; rows "w/o MTP" do not.
- GPT OSS has half of its layers attend to 128 tokens only, which is not modelled here (5 %); releases before 26.06
  print a fifth less for the same model, for a reason that they do not give.
- LoRA rows are left out: their weights are frozen and need two matmuls of three."""

TIMES = """## Step time

Median (90th percentile) of |predicted / measured - 1|.

- Null model: every suite, GPU and dtype has one TFLOP/s, the median of its rows ({groups} numbers).
- Fitted: the roofline of `parallelism/cost` with 16 constants for all suites, 5 for the kernels and networks of single
  suites, and {factors} factors, one for each software, which is what the null model has its numbers for. All are fitted
  on {half} of the {firm} rows, chosen by a digest of suite, model, GPU, dtype and layout
  (`benchmarks/published_stacks.py`), by `--fit`. They are committed: without `--fit` nothing is fitted.
- Roofline alone: no factor at all; what the planner says for a machine that nobody measured.
- The null model of the third column has seen every row that it is judged on. That of the fifth has seen the half that
  the constants were fitted on; where a group has no row there, it takes its suite's median.
"""

TABLE = """| suite | rows | null, all rows | fitted, all rows | null, other half | fitted, other half | roofline alone |
|---|---|---|---|---|---|---|"""

RECALLED = """
Rows written down from memory:
"""

WORSE = """
Worse than the null model where that has seen the rows:

- Megatron-LM: {megatron} rows whose micro batch and model chunks are not printed, for strong scaling not even the
  pipeline stages; they lie within 20 % of each other, and the defaults decide more than the model does.
- NeMo 24.07: {nemo} rows of different models within 8 % of each other: there is next to nothing to explain.
- A group of one row has no error under the null model, whatever it says.
"""

MISSES = """## Misses above {limit}

{missed} of {rows} rows, predicted over measured seconds of a step.

| row | suite | model | GPU, dtype | layout | predicted / measured | what is known |
|---|---|---|---|---|---|---|"""

_FULL = "80B parameters fill 61 to 66 of 80 GiB; other layouts of the same model reach twice the speed; likely memory"
_RELEASE = "likely the release: row 485, two releases later, needs 28.9 s for twice the samples"

ROWS: Mapping[str, str] = {
    "602": "17 ms of arithmetic in a step of 375 ms, one microbatch on 64 nodes; what takes the rest is not known",
    "621": _FULL,
    "617": _FULL,
    "315": "the release: 26.06 and 26.08 print 2.5 s for the same layout, 26.06.01 4.0 s",
    "522": "the release: 26.02.01 prints 28.9 s for the same layout, 26.02 51.3 s",
    "554": _RELEASE,
    "521": "micro batch 1, likely too small for the host to start its kernels in time; micro batch 4 takes 9.8 s",
    "548": "micro batch 1, likely too small for the host to start its kernels in time; micro batch 4 takes 9.8 s",
    "4": "micro batch not printed; row 3 with half of the tensor parallel size errs the other way",
}
"""By the row's id."""

_MODELS: Mapping[str, str] = {
    "GPT OSS": "hidden width 2,880, no multiple of 128; the factor is from one row of another model",
    "Qwen3_235B": "until 26.02 experts have one factor, for models of very different size",
    "deepseekv2": "whether its first layer is dense is not printed",
    "DeepSeekV3 (tokendrop)": "tokens beyond a capacity are dropped, which saves work that is counted here",
}


def cause(case: Case) -> str:
    """Returns what is known about a miss."""
    model = next((text for name, text in _MODELS.items() if case.model.startswith(name)), "not known")
    return ROWS.get(case.id, model)
