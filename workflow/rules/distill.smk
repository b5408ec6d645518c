# Distill: each member of the chain learns from the member before it (Eq. 1, §3.3).
#   in:  the teacher (member before, bridge, or fine-tuned ancestor), what the student starts from, the data
#   out: chain/<ancestor>/<member>/


rule distill:
    input:
        inputs_of("distill"),
    output:
        "<results>/chain/{ancestor}/{member}/manifest.json",
    log:
        "<logs>/distill/{ancestor}/{member}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: threads_for(STUDY, "distill", CORES, HALF)
    resources:
        **resources_of("distill"),
    params:
        **PLAN.params("distill"),
    shell:
        LAUNCH


# A DesNet that is distilled on its own, the baseline for the chain (Figure 5a).
#   in:  a teacher, which it starts as the subset of, the data
#   out: desnets/<ancestor>/<desnet>/<init>/0/


rule distill_desnet:
    input:
        inputs_of("distill_desnet"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/0/manifest.json",
    log:
        "<logs>/distill/{ancestor}/{desnet}/{init}.log",
    wildcard_constraints:
        **PLAN.allowed("distill_desnet"),
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **resources_of("distill_desnet"),
    params:
        **PLAN.params("distill_desnet"),
    shell:
        LAUNCH


# Cached top-k teacher log-probabilities, where a study wants them (stages.distill.signal): computed once for all epochs
# and students.
#   in:  the teacher, the data
#   out: signals/<ancestor>/<teacher>/   `origin` is the ancestor or its bridge


rule teacher_signal:
    input:
        inputs_of("teacher_signal"),
    output:
        "<results>/signals/{ancestor}/{teacher}/manifest.json",
    log:
        "<logs>/teacher_signal/{ancestor}/{teacher}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **resources_of("teacher_signal"),
    params:
        **PLAN.params("teacher_signal"),
    shell:
        LAUNCH
