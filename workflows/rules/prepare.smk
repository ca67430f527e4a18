# Raw sources become clean records.
rule prepare:
    output:
        record("prepare"),
    log:
        log_of("prepare"),
    resources:
        nodes=size("prepare").nodes,
        runtime=size("prepare").timeout_min,
    params:
        asked=run.asked("prepare"),
    shell:
        command
