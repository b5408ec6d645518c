# Leakage: what the evaluation sets share with the training sets.
#   in:  prepared instructions, staged data sets of the corpora
#   out: leakage/leakage.csv


rule leakage:
    """What the evaluation sets share with the training sets."""
    input:
        inputs_of("leakage"),
    output:
        "<results>/leakage/manifest.json",
    log:
        "<logs>/leakage.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("leakage"),
    params:
        **PLAN.params("leakage"),
    shell:
        RUN
