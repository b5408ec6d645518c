# Assemble: a DesNet from its two neighbours of the chain (LInit, §3.4), or at random.
#   in:  the neighbours; nothing but the tokenizer for random ones, which all ancestors share
#   out: desnets/<ancestor>/<desnet>/<init>/0/


rule assemble:
    input:
        PLAN.manifests("assemble"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/0/manifest.json",
    log:
        "<logs>/assemble/{ancestor}/{desnet}/{init}.log",
    wildcard_constraints:
        init=PLAN.inits("assembled"),
    conda:
        ENVIRONMENT
    resources:
        **needs_of("assemble"),
    params:
        inputs=PLAN.flags("assemble"),
        contents=PLAN.contents("assemble"),
        settings=PLAN.settings("assemble"),
        seed=STUDY.seed,
        code=PLAN.code("assemble"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.assemble {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
