# Recover: pre-train a DesNet on some tokens of a corpus.
#   in:  the assembled DesNet, a corpus; the ancestor, where a share of its quality ends it
#   out: desnets/<ancestor>/<desnet>/<init>/<budget>/


rule recover:
    input:
        inputs_of("recover"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/{budget}/manifest.json",
    log:
        "<logs>/recover/{ancestor}/{desnet}/{init}/{budget}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("recover"),
    params:
        **PLAN.params("recover"),
    shell:
        LAUNCH
