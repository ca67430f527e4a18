# The model is trained over many GPUs; checkpoints stay beside the record.
rule pretrain:
    input:
        record("tokenize"),
        record("plan"),
    output:
        report(record("pretrain"), caption="../report/record.rst", category="Records", labels={"stage": "pretrain"}),
    log:
        log_of("pretrain"),
    resources:
        nodes=size("pretrain").nodes,
        runtime=size("pretrain").timeout_min,
    params:
        asked=run.asked("pretrain", site=site),
    shell:
        command
