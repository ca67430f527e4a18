# Records become token shards.
rule tokenize:
    input:
        record("prepare"),
    output:
        record("tokenize"),
    log:
        log_of("tokenize"),
    resources:
        nodes=size("tokenize").nodes,
        runtime=size("tokenize").timeout_min,
    params:
        asked=run.asked("tokenize"),
    shell:
        command
