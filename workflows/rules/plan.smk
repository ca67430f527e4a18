# The sizes of the parallel job, against the memory of its GPUs.
rule plan:
    input:
        record("tokenize"),
    output:
        report(record("plan"), caption="../report/record.rst", category="Records", labels={"stage": "plan"}),
    log:
        log_of("plan"),
    resources:
        nodes=size("plan").nodes,
        runtime=size("plan").timeout_min,
    params:
        asked=run.asked("plan", site=site),
    shell:
        command
