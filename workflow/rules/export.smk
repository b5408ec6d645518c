# Export: a member or DesNet as GGUF files.
#   in:  the model
#   out: exported/<path of the model>/   a .gguf of each type, and an Ollama Modelfile beside each


rule export:
    input:
        inputs_of("export"),
    output:
        "<results>/exported/{model}/manifest.json",
    log:
        "<logs>/export/{model}.log",
    wildcard_constraints:
        model=r"(chain|desnets)/.+",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("export"),
    params:
        **PLAN.params("export"),
    shell:
        RUN
