# Write: an ancestor writes text for its chain, going on from the openings of documents.
#   in:  the fine-tuned ancestor; a corpus
#   out: data/<corpus>/   as prepared corpora (prepare.smk)


rule write_corpus:
    input:
        inputs_of("write_corpus"),
    output:
        "<results>/data/{corpus}/manifest.json",
    log:
        "<logs>/write_corpus/{corpus}.log",
    wildcard_constraints:
        **PLAN.allowed("write_corpus"),
    priority: 10
    conda:
        ENVIRONMENT
    threads: threads_for(STUDY, "write_corpus", CORES, HALF)
    resources:
        **resources_of("write_corpus"),
    params:
        **PLAN.params("write_corpus"),
    shell:
        LAUNCH
