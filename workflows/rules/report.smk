# One page for people.
rule report:
    input:
        record("prepare"),
        record("tokenize"),
        record("plan"),
        record("pretrain"),
        record("export"),
        record("evaluate"),
    output:
        report(record("report"), caption="../report/record.rst", category="Records", labels={"stage": "report"}),
    log:
        log_of("report"),
    resources:
        nodes=size("report").nodes,
        runtime=size("report").timeout_min,
    params:
        asked=run.asked("report", site=site),
    shell:
        command
