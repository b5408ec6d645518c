# Evaluate: all scores of one model in one job: held-out loss, then each task fine-tuned, generated, scored.
#   in:  a bridge, member or DesNet; corpora and tasks
#   out: scores/<path of the model>/scores.json, and continuations.json: texts that it went on with


rule evaluate:
    input:
        inputs_of("evaluate"),
    output:
        "<results>/scores/{model}/manifest.json",
    log:
        "<logs>/evaluate/{model}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("evaluate"),
    params:
        **PLAN.params("evaluate"),
    shell:
        LAUNCH
