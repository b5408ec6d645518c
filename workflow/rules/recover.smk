# Recover: pre-train a DesNet on the first tokens of a corpus.
#   in:  the assembled DesNet, a corpus
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
