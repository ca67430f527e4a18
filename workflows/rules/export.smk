# The last good checkpoint becomes Hugging Face safetensors.
rule export:
    input:
        record("tokenize"),
        record("pretrain"),
    output:
        report(record("export"), caption="../report/record.rst", category="Records", labels={"stage": "export"}),
    log:
        log_of("export"),
    resources:
        nodes=size("export").nodes,
        runtime=size("export").timeout_min,
    params:
        asked=run.asked("export", site=site),
    shell:
        command
