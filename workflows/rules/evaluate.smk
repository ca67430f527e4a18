# Benchmarks with a baseline beside each.
rule evaluate:
    input:
        record("prepare"),
        record("export"),
    output:
        report(record("evaluate"), caption="../report/record.rst", category="Records", labels={"stage": "evaluate"}),
    log:
        log_of("evaluate"),
    resources:
        nodes=size("evaluate").nodes,
        runtime=size("evaluate").timeout_min,
    params:
        asked=run.asked("evaluate", site=site),
    shell:
        command
