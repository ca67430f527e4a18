# medscale, from raw data to a report: one include per stage, in the order they run.
include: "workflows/rules/common.smk"
include: "workflows/rules/prepare.smk"
include: "workflows/rules/tokenize.smk"
include: "workflows/rules/plan.smk"
include: "workflows/rules/pretrain.smk"
include: "workflows/rules/export.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/report.smk"


rule all:
    default_target: True
    input:
        record("report"),
