# Records become token shards.
rule tokenize:
    input:
        record("prepare"),
    output:
        report(record("tokenize"), caption="../report/record.rst", category="Records", labels={"stage": "tokenize"}),
    log:
        log_of("tokenize"),
    resources:
        nodes=size("tokenize").nodes,
        runtime=size("tokenize").timeout_min,
    params:
        asked=run.asked("tokenize", site=site),
    shell:
        command
