# Evaluate: all scores of one model in one job: held-out loss, then each task fine-tuned, generated, scored.
#   in:  a bridge, member or DesNet; corpora and tasks
#   out: scores/<path of the model>/scores.json


rule evaluate:
    input:
        PLAN.manifests("evaluate"),
    output:
        "<results>/scores/{model}/manifest.json",
    log:
        "<logs>/evaluate/{model}.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("evaluate"),
    params:
        inputs=PLAN.flags("evaluate"),
        contents=PLAN.contents("evaluate"),
        settings=PLAN.settings("evaluate"),
        seed=STUDY.seed,
        code=PLAN.code("evaluate"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch evaluate {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
