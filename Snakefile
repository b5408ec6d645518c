# colpipe: Chain-of-Learngene as a pipeline. What can be asked for; how it is made is in workflow/rules/.
#
#     snakemake --cores 2                                  the demo study, config/config.yaml
#     snakemake --cores 2 --configfile my-study.yaml       another study
#     snakemake chain --cores 2                            one of the targets below
from snakemake.utils import min_version

min_version("9.20")

# A study is one file: --configfile replaces the demo study, it does not extend it; --config changes single keys of either.
if not workflow.overwrite_configfiles and not {"models", "chain"} <= set(config):

    configfile: f"{workflow.current_basedir}/config/config.yaml"


# What `snakemake --report report.zip` opens with.
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/sft.smk"
include: "workflow/rules/write.smk"
include: "workflow/rules/bridge.smk"
include: "workflow/rules/order.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/assemble.smk"
include: "workflow/rules/recover.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/stack.smk"
include: "workflow/rules/leakage.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/exhibit.smk"
include: "workflow/rules/estimate.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/export.smk"


onstart:
    share_start(workflow)


localrules:
    all,
    estimate,
    prepared,
    chain,
    desnets,
    recovered,
    scores,
    published,
    exported,
    paper,


rule all:
    """The report: what a plain `snakemake` makes."""
    default_target: True
    input:
        rules.report.output,


rule prepared:
    """Models fetched and data prepared: what `colpipe estimate` knows exact sizes of then."""
    input:
        lambda _: PLAN.manifests_of("prepared"),


rule chain:
    """The learngene chain of every ancestor."""
    input:
        PLAN.manifests_of("chain"),


rule desnets:
    """Every DesNet as assembled, before recovery."""
    input:
        PLAN.manifests_of("desnets"),


rule recovered:
    """Every DesNet after each recovery budget."""
    input:
        PLAN.manifests_of("recovered"),


rule scores:
    """Scores of every bridge, member and DesNet."""
    input:
        PLAN.manifests_of("scores"),


rule published:
    """Every DesNet as a folder to use or upload as it is, with a model card."""
    input:
        PLAN.cards(),


rule exported:
    """Every DesNet as GGUF files for llama.cpp and Ollama."""
    input:
        PLAN.manifests_of("exported"),


rule paper:
    """Tables and figures of the paper, as far as this study has what they show."""
    input:
        PLAN.manifests_of("paper"),


for name in asked_exhibits(PLAN, workflow):

    rule:
        name:
            name
        input:
            f"results/{STUDY.study}/paper/{name}/manifest.json",
        localrule: True

    workflow.get_rule(workflow.modifier.modify_rulename(name)).docstring = paper()[name]["title"]


# A model by its name, as in `snakemake 90M`: its published folders.
for name, cards in asked_by_name(PLAN, workflow).items():

    rule:
        name:
            name
        input:
            cards,
        localrule: True


refuse_unknown_targets(PLAN, workflow)
