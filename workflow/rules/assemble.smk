# Assemble: a DesNet from its two neighbours of the chain (LInit, §3.4), or at random.
#   in:  the neighbours; nothing but the tokenizer for random ones, which all ancestors share
#   out: desnets/<ancestor>/<desnet>/<init>/0/


rule assemble:
    input:
        inputs_of("assemble"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/0/manifest.json",
    log:
        "<logs>/assemble/{ancestor}/{desnet}/{init}.log",
    wildcard_constraints:
        **PLAN.allowed("assemble"),
    conda:
        ENVIRONMENT
    resources:
        **resources_of("assemble"),
    params:
        **PLAN.params("assemble"),
    shell:
        RUN
