# Raw sources become clean records.
rule prepare:
    output:
        report(record("prepare"), caption="../report/record.rst", category="Records", labels={"stage": "prepare"}),
    log:
        log_of("prepare"),
    resources:
        nodes=size("prepare").nodes,
        runtime=size("prepare").timeout_min,
    params:
        asked=run.asked("prepare", site=site),
    shell:
        command
