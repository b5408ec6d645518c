# Estimate: what the study costs, printed; nothing of it is run.
#   in:  nothing; sizes of data and models that are there already are read
#   out: text


rule estimate:
    """What the study costs, told before anything of it is run: jobs, memory, tokens, FLOPs, hours."""
    log:
        "<logs>/estimate.log",
    conda:
        ENVIRONMENT
    params:
        study=STUDY.model_dump_json(),
    shell:
        "python -P -m colpipe.tools.estimate {params.study:q} 2> >(tee {log:q} >&2)"
