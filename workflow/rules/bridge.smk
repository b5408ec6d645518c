# Bridge: an ancestor of another family or vocabulary teaches through its answers (Eq. 2, §3.2).
#   in:  the fine-tuned ancestor, instructions; a model of the chain's architecture
#   out: answers/<ancestor>/   prompts with the ancestor's answers
#        bridges/<ancestor>/   the bridge, first teacher of the chain


rule bridge_answers:
    input:
        inputs_of("bridge_answers"),
    output:
        "<results>/answers/{ancestor}/manifest.json",
    log:
        "<logs>/bridge_answers/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **resources_of("bridge_answers"),
    params:
        **PLAN.params("bridge_answers"),
    shell:
        LAUNCH


rule bridge:
    input:
        inputs_of("bridge"),
    output:
        "<results>/bridges/{ancestor}/manifest.json",
    log:
        "<logs>/bridge/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **resources_of("bridge"),
    params:
        **PLAN.params("bridge"),
    shell:
        LAUNCH
