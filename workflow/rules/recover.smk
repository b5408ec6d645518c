# Recover: pre-train a DesNet on the first tokens of a corpus.
#   in:  the assembled DesNet, a corpus
#   out: desnets/<ancestor>/<desnet>/<init>/<budget>/


rule recover:
    input:
        PLAN.manifests("recover"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/{budget}/manifest.json",
    log:
        "<logs>/recover/{ancestor}/{desnet}/{init}/{budget}.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("recover"),
    params:
        inputs=PLAN.flags("recover"),
        contents=PLAN.contents("recover"),
        settings=PLAN.settings("recover"),
        seed=STUDY.seed,
        code=PLAN.code("recover"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch recover {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
