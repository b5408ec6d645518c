# Leakage: what the evaluation sets share with the training sets.
#   in:  prepared instructions, staged data sets of the corpora
#   out: leakage/leakage.csv


rule leakage:
    """What the evaluation sets share with the training sets."""
    input:
        PLAN.manifests("leakage"),
    output:
        "<results>/leakage/manifest.json",
    log:
        "<logs>/leakage.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("leakage"),
    params:
        inputs=PLAN.flags("leakage"),
        contents=PLAN.contents("leakage"),
        settings=PLAN.settings("leakage"),
        seed=STUDY.seed,
        code=PLAN.reading_code("leakage"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.leakage {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
