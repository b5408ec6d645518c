"""What every job of a study reads and with which settings: the study as data for the Snakefile (no torch here).

A rule's inputs are written once, as {flag: folder} or {flag: {name: folder}}. From that come the files that Snakemake waits
for, the flags on the command line, and the fingerprints that decide about reruns.
"""

import json
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel

from colpipe import checkpoint, exhibits
from colpipe.checks import SCRATCH
from colpipe.jobs import ROOTS, maker
from colpipe.settings import Shape, Source, reader_module, tokens_label
from colpipe.snakefile import one_of
from colpipe.stage_settings import Distill, Task
from colpipe.study import Study

Parents = dict[str, str | dict[str, str]]
ORIGIN = "origin"  # stands for the ancestor, or its bridge, among the teachers of a chain


class Plan:
    """Folders, inputs and settings of every stage of a study.

    For each rule there are two methods named after it, `<rule>_parents` and `<rule>_settings`; both take the rule's
    wildcards. `parents`, `manifests`, `flags`, `contents` and `settings` turn them into what Snakemake wants.
    """

    def __init__(self, study: Study, code_version: Callable[[str], str] = checkpoint.code_version):
        self.study, self.code_version = study, code_version
        self.runtime = study.runtime.model_dump_json()
        self._known: dict[tuple[str, str], Parents] = {}
        self.results = f"results/{study.study}"
        self.datasets = {name: _staged("data", name, entry.source) for name, entry in study.datasets.items()}
        self.fetched = {
            name: _staged("models", name, entry.source) for name, entry in study.models.items() if entry.source
        }
        self.sources = {
            **{self.datasets[name]: study.datasets[name].source for name in self.datasets},
            **{self.fetched[name]: study.models[name].source for name in self.fetched},
        }
        trained = study.tokenizer.train
        self.tokenizer = f"{self.results}/tokenizer" if trained else self.start(study.tokenizer.model)
        self.budgets = {tokens_label(tokens): tokens for tokens in study.budgets if tokens}

    # Folders

    def start(self, model: str) -> str:
        """Folder of a starting model: fetched, or pre-trained here."""
        return self.fetched.get(model, f"{self.results}/pretrained/{model}")

    def data(self, name: str) -> str:
        """Folder of a prepared corpus or of prepared instructions."""
        return f"{self.results}/data/{name}"

    @cached_property
    def models(self) -> dict[str, dict]:
        """Every model that is scored: its path under the results → the columns that describe it in the summary."""
        study, found = self.study, {}
        for ancestor, settings in study.ancestors.items():
            origin = settings.bridge or settings.model
            shape = study.models[origin].shape
            found[self.origin(ancestor).removeprefix(f"{self.results}/")] = {
                "ancestor": ancestor if settings.bridge else "",  # one that is fine-tuned may have several chains
                "desnet": "bridge" if settings.bridge else origin,
                "params": study.parameters(shape) if shape else None,
                "init": "seqkd" if settings.bridge else "sft",
            }
            for member in study.members(ancestor):
                found[f"chain/{ancestor}/{member}"] = {
                    "ancestor": ancestor,
                    "desnet": member,
                    "params": study.parameters(study.chain[member].shape),
                    "init": "distilled",
                }
            for desnet, init, tokens in study.built(ancestor):
                path, parent = self.desnet(ancestor, desnet, init, tokens)
                found[path] = {
                    "ancestor": parent,
                    "desnet": desnet,
                    "params": study.parameters(study.desnets[desnet].shape),
                    "init": init,
                    "tokens": tokens,
                }
        for name, stack in study.stacks.items():
            found[f"stacks/{name}"] = {
                "ancestor": stack.ancestor,
                "desnet": f"{len(stack.steps) + 1} × {stack.member}",
                "params": (len(stack.steps) + 1) * study.parameters(study.chain[stack.member].shape),
                "init": name,
            }
        return found

    def desnet(self, ancestor: str, desnet: str, init: str, tokens: int) -> tuple[str, str]:
        """(path under the results, ancestor) of a DesNet; random ones have no ancestor and are shared by all."""
        parent = "" if self.study.initialisers[init].kind == "rand" else ancestor
        return f"desnets/{parent or SCRATCH}/{desnet}/{init}/{tokens_label(tokens)}", parent

    def inits(self, kind: str) -> str:
        """A wildcard constraint: the initialisers that are `assembled`, or those that are `distilled`."""
        initialisers = self.study.initialisers.items()
        return one_of(name for name, entry in initialisers if (entry.kind == "distilled") == (kind == "distilled"))

    def manifests_of(self, kind: str) -> list[str]:
        """Manifests behind the named targets: `chain`, `desnets` (before recovery), `recovered`, `scores`, `paper`."""
        models = self.models
        chosen = {
            "chain": [path for path in models if path.startswith("chain/")],
            "desnets": [path for path, columns in models.items() if columns.get("tokens") == 0],
            "recovered": [path for path in models if path.startswith("desnets/")],
            "scores": [f"scores/{path}" for path in models],
            "paper": [f"paper/{name}" for name in exhibits.paper() if exhibits.has(self, name)],
        }
        return [f"{self.results}/{path}/manifest.json" for path in chosen[kind]]

    def cards(self) -> list[str]:
        """The card of every DesNet, behind the target `published`."""
        return [f"{self.results}/published/{path}/README.md" for path in self.models if path.startswith("desnets/")]

    def lineage(self, *folders: str) -> list[str]:
        """All folders that these descend from, and themselves: parents before their children, fetched ones too."""
        found: dict[str, None] = {}
        waiting = list(folders)
        while waiting:
            rule, wildcards = maker(self, waiting[-1])
            parents = self.parents(rule, wildcards) if rule and rule not in ROOTS else []
            before = [parent for _, parent in parents if parent not in found]
            if not before:
                found[waiting.pop()] = None
            waiting += before
        return list(found)

    def check_finished(self) -> None:
        """Look over what is there already.

        Raises:
            ColpipeError: a file that a manifest names is gone.
        """
        for root in (Path(self.results), Path("resources")):
            for manifest in root.glob("**/" + checkpoint.MANIFEST):
                checkpoint.read_manifest(manifest.parent)

    # What a rule wants

    def parents(self, rule: str, wildcards: object = None) -> list[tuple[str, str]]:
        """(name, folder) of every input of a job, as its manifest records them."""
        found = []
        for flag, value in self._inputs(rule, wildcards).items():
            if isinstance(value, dict):
                found += [(f"{flag}.{name}", folder) for name, folder in value.items()]
            else:
                found.append((flag, value))
        return found

    def manifests(self, rule: str):
        """Input function: the manifest of every parent."""
        return lambda wildcards: [f"{folder}/manifest.json" for _, folder in self.parents(rule, wildcards)]

    def contents(self, rule: str):
        """Params function: the fingerprint of every parent. Snakemake compares it between runs, so a changed byte reruns
        exactly the consumers and a touched file reruns nothing."""

        return lambda wildcards: {
            name: checkpoint.fingerprint(folder) for name, folder in self.parents(rule, wildcards)
        }

    def flags(self, rule: str):
        """Params function: the parents on the command line."""

        def build(wildcards) -> list[str]:
            words = []
            for flag, value in self._inputs(rule, wildcards).items():
                pairs = [f"{name}={folder}" for name, folder in value.items()] if isinstance(value, dict) else [value]
                words += [f"--{flag}", *pairs]
            return words

        return build

    def settings(self, rule: str):
        """Params function: the settings as JSON text. In a whole study, which reporting reads, the order means something."""
        sort_keys = rule not in ("report", "exhibit")
        return lambda wildcards: _json(getattr(self, f"{rule}_settings")(wildcards), sort_keys)

    def where(self, wildcards, output) -> str:
        """Params function: output, work folder and runtime settings. A param that looks at the output is never compared
        between runs, so moving or tuning these reruns nothing."""
        home = Path(output[0]).parent
        root = Path(self.results if home.is_relative_to(self.results) else "resources")
        words = ["--output", str(home), "--work", str(root / "work" / home.relative_to(root))]
        return shlex.join([*words, "--runtime", self.runtime])

    def code(self, rule: str):
        """Params function: the version of a stage's code, its module and every colpipe module that it uses."""
        return lambda wildcards: self.code_version(f"colpipe.stages.{rule}")

    def reading_code(self, rule: str):
        """Params function: that of a stage that reads a data set, and that of the data set's reader."""

        def versions(wildcards) -> list[str]:
            datasets = {folder: name for name, folder in self.datasets.items()}
            read = [datasets[folder] for _, folder in self.parents(rule, wildcards) if folder in datasets]
            readers = sorted({self.study.datasets[name].reader for name in read})
            return [self.code(rule)(wildcards), *(self.code_version(reader_module(reader)) for reader in readers)]

        return versions

    def _inputs(self, rule: str, wildcards: object) -> Parents:
        """Those of a job, worked out once: Snakemake asks several times for each of thousands."""
        key = (rule, repr(wildcards))
        if key not in self._known:
            self._known[key] = getattr(self, f"{rule}_parents")(wildcards)
        return self._known[key]

    # Inputs and settings, rule by rule

    def source(self, kind: str):
        """Params function: the source of a staged model or data set, as JSON text."""
        return lambda wildcards: _json(self.sources[f"resources/{kind}/{wildcards.staged}"])

    def source_content(self, kind: str):
        """Params function: content of a local source, so that changing it is noticed; published ones are fixed by their
        version or revision."""

        def read(wildcards) -> str:
            path = self.sources[f"resources/{kind}/{wildcards.staged}"].path
            return checkpoint.fingerprint(path) if path else "published"

        return read

    def train_tokenizer_parents(self, _: object) -> Parents:
        return {"dataset": self.datasets[self.study.corpora[self.study.tokenizer.train].dataset]}

    def train_tokenizer_settings(self, _: object) -> dict:
        study = self.study
        return {
            "dataset": study.datasets[study.corpora[study.tokenizer.train].dataset],
            "vocabulary": study.architecture.vocabulary,
            "positions": study.architecture.positions,
        }

    def prepare_corpus_parents(self, wildcards) -> Parents:
        dataset = self.study.corpora[wildcards.corpus].dataset
        return {"dataset": self.datasets[dataset], "tokenizer": self.tokenizer}

    def prepare_corpus_settings(self, wildcards) -> BaseModel:
        return self.study.datasets[self.study.corpora[wildcards.corpus].dataset]

    def prepare_instructions_parents(self, wildcards) -> Parents:
        dataset = self.study.instructions[wildcards.instructions].dataset
        return {"dataset": self.datasets[dataset], "tokenizer": self.tokenizer}

    def prepare_instructions_settings(self, wildcards) -> dict:
        instructions = self.study.instructions[wildcards.instructions]
        return {"dataset": self.study.datasets[instructions.dataset], "instructions": instructions}

    def pretrain_parents(self, _: object) -> Parents:
        return {"corpus": self.data(self.study.stages.pretrain.corpus), "tokenizer": self.tokenizer}

    def pretrain_settings(self, wildcards) -> dict:
        owner = {**self.study.models, **self.study.chain}[wildcards.start]
        return {
            "architecture": self.study.architecture,
            "shape": owner.shape,
            "training": self.study.stages.pretrain,
        }

    def sft_parents(self, wildcards) -> Parents:
        return {"model": self.start(wildcards.start), "instructions": self.data(self.study.stages.sft.instructions)}

    def sft_settings(self, wildcards) -> dict:
        return {"training": self.study.stages.sft, "prompts": self._prompts(wildcards.start)}

    def _prompts(self, model: str) -> str:
        return self.study.models[model].prompts if model in self.study.models else "paper"

    def bridge_answers_parents(self, wildcards) -> Parents:
        return {
            "model": f"{self.results}/sft/{self.study.ancestors[wildcards.ancestor].model}",
            "instructions": self.data(self.study.stages.answers.instructions),
        }

    def bridge_answers_settings(self, wildcards) -> dict:
        prompts = self._prompts(self.study.ancestors[wildcards.ancestor].model)
        return {"answers": self.study.stages.answers, "prompts": prompts}

    def bridge_parents(self, wildcards) -> Parents:
        bridge = self.study.ancestors[wildcards.ancestor].bridge
        return {"model": self.start(bridge), "answers": f"{self.results}/answers/{wildcards.ancestor}"}

    def bridge_settings(self, _: object) -> BaseModel:
        return self.study.stages.bridge

    def origin(self, ancestor: str) -> str:
        """Folder of the model that the chain of an ancestor descends from: its bridge, or itself after SFT."""
        if self.study.ancestors[ancestor].bridge:
            return f"{self.results}/bridges/{ancestor}"
        return f"{self.results}/sft/{self.study.ancestors[ancestor].model}"

    def order_parents(self, wildcards) -> Parents:
        return {"model": self.origin(wildcards.ancestor), "corpus": self.data(self.study.stages.order.corpus)}

    def order_settings(self, wildcards) -> dict:
        return {
            "select": self.study.ancestors[wildcards.ancestor].select,
            "tied": self.study.architecture.is_tied,
            "measuring": self.study.stages.order,
        }

    def teacher(self, ancestor: str, member: str | None) -> str:
        """Folder of a teacher: a member, or (None) what the chain descends from."""
        return f"{self.results}/chain/{ancestor}/{member}" if member else self.origin(ancestor)

    def distill_parents(self, wildcards) -> Parents:
        ancestor, member = self.study.ancestors[wildcards.ancestor], self.study.chain[wildcards.member]
        settings = self.study.distill_settings(wildcards.ancestor, wildcards.member)
        before = self.study.teacher(wildcards.ancestor, wildcards.member)
        begins = ancestor.start or member.start
        start = {"pretrained": member.model, "scratch": wildcards.member}.get(begins)
        signal = f"{self.results}/signals/{wildcards.ancestor}/{before or ORIGIN}" if settings.signal else None
        return {
            **self._taught(wildcards.ancestor, before, settings, inherits=begins == "inherit"),
            **({"student": f"{self.results}/sft/{start}"} if start else {}),
            **({"signal": signal} if signal else {}),
        }

    def distill_settings(self, wildcards) -> dict:
        settings = self.study.distill_settings(wildcards.ancestor, wildcards.member)
        distilled = self._distilled(wildcards.ancestor, self.study.chain[wildcards.member].shape, settings)
        return {**distilled, "elastic": self.study.elastic(wildcards.ancestor, wildcards.member)}

    def distill_desnet_parents(self, wildcards) -> Parents:
        teacher, (_, larger) = None, self.study.neighbours(wildcards.desnet, wildcards.ancestor)
        if self.study.initialisers[wildcards.init].teacher == "shared":
            teacher = self.study.teacher(wildcards.ancestor, larger)
        settings = self.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
        return self._taught(wildcards.ancestor, teacher, settings, inherits=True)

    def distill_desnet_settings(self, wildcards) -> dict:
        settings = self.study.desnet_distill_settings(wildcards.ancestor, wildcards.init)
        return self._distilled(wildcards.ancestor, self.study.desnets[wildcards.desnet].shape, settings)

    def _taught(self, ancestor: str, teacher: str | None, settings: Distill, inherits: bool) -> Parents:
        """What every distillation reads."""
        ordered = inherits and not teacher and self.study.ancestors[ancestor].select in ("rank", "rotate")
        return {
            "teacher": self.teacher(ancestor, teacher),
            **({"ordered": f"{self.results}/ordered/{ancestor}"} if ordered else {}),
            "tokenizer": self.tokenizer,
            "data": {name: self.data(name) for name in settings.data},
        }

    def _distilled(self, ancestor: str, shape: Shape, settings: Distill) -> dict:
        return {
            "architecture": self.study.architecture,
            "shape": shape,
            "select": self.study.ancestors[ancestor].select,
            "training": settings,
        }

    def teacher_signal_parents(self, wildcards) -> Parents:
        teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
        data = self._shared_settings(wildcards).data
        return {"teacher": self.teacher(wildcards.ancestor, teacher), "data": {name: self.data(name) for name in data}}

    def teacher_signal_settings(self, wildcards) -> dict:
        settings = self._shared_settings(wildcards)
        return {
            "architecture": self.study.architecture,
            "top_k": settings.signal,
            "max_length": settings.max_length,
        }

    def _shared_settings(self, wildcards) -> Distill:
        """Those of any student of a teacher that uses its signal; the study is refused where they differ."""
        teacher = None if wildcards.teacher == ORIGIN else wildcards.teacher
        students = self.study.taught_by(wildcards.ancestor, teacher)
        found = [self.study.distill_settings(wildcards.ancestor, member) for member in students]
        return next(settings for settings in found if settings.signal)

    def assemble_parents(self, wildcards) -> Parents:
        study, chain = self.study, f"{self.results}/chain/{wildcards.ancestor}"
        initialiser = study.initialisers[wildcards.init]
        smaller, larger = study.neighbours(wildcards.desnet, wildcards.ancestor)
        parents: Parents = {"tokenizer": self.tokenizer}
        if initialiser.kind == "linit" and initialiser.method != "cut" and smaller and larger:
            parents |= {"smaller": f"{chain}/{smaller}", "larger": f"{chain}/{larger}"}
            if study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor) == "search":
                parents["corpus"] = self.data(study.perplexity[0])
        elif initialiser.kind in ("auto-learngene", "vanilla-learngene"):
            parents["source"] = self.origin(wildcards.ancestor)
        elif initialiser.kind != "rand":
            cloned = study.cloned(wildcards.desnet, wildcards.ancestor)
            member = {"single": smaller, "hypercloning": cloned}.get(initialiser.kind, larger)
            parents["source"] = f"{chain}/{member}"
        return parents

    def assemble_settings(self, wildcards) -> dict:
        initialiser = self.study.initialisers[wildcards.init]
        ancestor = self.study.ancestors.get(wildcards.ancestor)  # random DesNets have none
        return {
            "architecture": self.study.architecture,
            "shape": self.study.desnets[wildcards.desnet].shape,
            "kind": initialiser.kind,
            "method": initialiser.method,
            "alpha": self.study.alpha(wildcards.desnet, wildcards.init, wildcards.ancestor),
            "compensate": initialiser.compensate,
            "select": ancestor.select if ancestor else "even",
        }

    def recover_parents(self, wildcards) -> Parents:
        assembled = f"desnets/{wildcards.ancestor}/{wildcards.desnet}/{wildcards.init}/0"
        return {"model": f"{self.results}/{assembled}", "corpus": self.data(self.study.stages.recover.corpus)}

    def recover_settings(self, wildcards) -> BaseModel:
        return self.study.stages.recover.model_copy(update={"tokens": self.budgets[wildcards.budget]})

    def evaluate_parents(self, wildcards) -> Parents:
        parents: Parents = {"model": f"{self.results}/{wildcards.model}"}
        if self.study.perplexity:
            parents["corpus"] = {name: self.data(name) for name in self.study.perplexity}
        tasks = self.tasks_of(wildcards.model)
        if tasks:
            parents["task"] = {name: self.data(task.instructions) for name, task in tasks.items()}
        if trained := {name: self.data(task.train) for name, task in tasks.items() if task.train}:
            parents["train"] = trained
        return parents

    def evaluate_settings(self, wildcards) -> dict:
        return {"tasks": self.tasks_of(wildcards.model)}

    def tasks_of(self, model: str) -> dict[str, Task]:
        """The tasks that a model is scored on, by its path under the results."""
        ancestor, init = self.models[model]["ancestor"], self.models[model]["init"]
        stack = self.study.stacks.get(init) if model.startswith("stacks/") else None
        return {
            name: self.study.tasks[name] for name in (stack.tasks if stack else self.study.tasks_of(ancestor, init))
        }

    def stack_parents(self, wildcards) -> Parents:
        stack = self.study.stacks[wildcards.stack]
        return {
            "model": f"{self.results}/chain/{stack.ancestor}/{stack.member}",
            "teacher": self.origin(stack.ancestor),
            "task": {name: self.data(self.study.tasks[name].instructions) for name in stack.tasks},
        }

    def stack_settings(self, wildcards) -> dict:
        tasks = self.tasks_of(f"stacks/{wildcards.stack}")
        return {
            "stack": self.study.stacks[wildcards.stack],
            "tasks": tasks,
            "positions": self.study.architecture.positions,
        }

    def publish_parents(self, wildcards) -> Parents:
        model, evaluated = f"{self.results}/{wildcards.model}", self.evaluate_parents(wildcards)
        return {
            **evaluated,
            "score": f"{self.results}/scores/{wildcards.model}",
            "made-of": {folder.removeprefix(f"{self.results}/"): folder for folder in self.lineage(model)[:-1]},
        }

    def publish_settings(self, wildcards) -> dict:
        study, (kind, ancestor, name, *_) = self.study, Path(wildcards.model).parts
        datasets = {name: study.corpora[name].dataset for name in study.perplexity}
        datasets |= {name: study.instructions[task.instructions].dataset for name, task in study.tasks.items()}
        scored = {name: self.datasets[dataset] for name, dataset in datasets.items()}
        named = {self.fetched[name]: (name, study.models[name]) for name in self.fetched}
        named |= {self.datasets[name]: (name, study.datasets[name]) for name in self.datasets}
        used = {*self.lineage(f"{self.results}/{wildcards.model}"), *scored.values()}
        return {
            "study": study.study,
            "path": wildcards.model,
            "ancestor": "" if ancestor == SCRATCH else study.ancestors[ancestor].model,
            "family": study.architecture.family,
            "shape": (study.chain if kind == "chain" else study.desnets)[name].shape,
            "sources": {
                folder: {"name": name, "source": entry.source, "license": entry.license}
                for folder, (name, entry) in named.items()
                if folder in used
            },
            "scored": scored,
            "tasks": study.tasks,
        }

    def leakage_parents(self, _: object) -> Parents:
        trained, evaluated = self._trained(), self._evaluated()
        used = sorted({*trained, *evaluated})
        corpora = {name: self.study.corpora[name].dataset for name in used if name in self.study.corpora}
        return {
            "instructions": {name: self.data(name) for name in used if name in self.study.instructions},
            "corpus": {name: self.datasets[dataset] for name, dataset in corpora.items()},
        }

    def leakage_settings(self, _: object) -> dict:
        trained, evaluated = self._trained(), self._evaluated()
        corpora = [name for name in self.study.corpora if name in (*trained, *evaluated)]
        datasets = {name: self.study.datasets[self.study.corpora[name].dataset] for name in corpora}
        return {"corpora": datasets, "trained": trained, "evaluated": evaluated}

    def _trained(self) -> list[str]:
        """Names of the instructions and corpora that models of the study learn from."""
        study, stages = self.study, self.study.stages
        named = [getattr(stage, "corpus", None) for stage in (stages.pretrain, stages.recover)]
        named += [getattr(stage, "instructions", None) for stage in (stages.sft, stages.answers)]
        for ancestor in study.ancestors:
            for member in study.members(ancestor):
                named += study.distill_settings(ancestor, member).data
        named += [task.train or task.instructions for task in study.tasks.values() if task.fine_tune]
        return sorted({name for name in named if name})

    def _evaluated(self) -> list[str]:
        """Names of those that they are scored on."""
        return sorted({*self.study.perplexity, *(task.instructions for task in self.study.tasks.values())})

    def report_parents(self, _: object) -> Parents:
        tasks = self.study.tasks.values()
        used = {*self.study.perplexity, *(name for task in tasks for name in (task.instructions, task.train) if name)}
        return {
            "score": {model: f"{self.results}/scores/{model}" for model in self.models},
            "data": {name: self.data(name) for name in sorted(used)},
            **({"leakage": f"{self.results}/leakage"} if self._evaluated() and self._trained() else {}),
        }

    def report_settings(self, _: object) -> BaseModel:
        return self.study.model_copy(update={"runtime": type(self.study.runtime)()})

    def built_exhibits(self, _: object) -> dict[str, str]:
        """Params function: the exhibits of the paper that are there. The page shows them and does not ask for them."""
        folders = sorted(path.parent for path in Path(self.results).glob(f"paper/*/{checkpoint.MANIFEST}"))
        return {folder.name: checkpoint.fingerprint(folder) for folder in folders}

    def exhibit_parents(self, wildcards) -> Parents:
        metric, paths = exhibits.paper()[wildcards.exhibit]["metric"], exhibits.models(self, wildcards.exhibit).values()
        if metric == "parameters":
            return {}
        paths = [f"scores/{path}" if metric == "rouge_l" else path for path in dict.fromkeys(paths)]
        return {"made-of": {path: f"{self.results}/{path}" for path in paths}}

    def exhibit_settings(self, wildcards) -> dict:
        """Of a whole study only what the table or figure shows, so that it is made again when that changes."""
        shown, found = exhibits.paper()[wildcards.exhibit], exhibits.models(self, wildcards.exhibit)
        study, named = self.study, {name for cell in exhibits.all_cells(shown) for name in cell.names.values()}
        sizes = {}
        if shown["metric"] == "parameters":
            shapes = {path: study.desnets[path.rpartition("/")[2]].shape for path in found.values()}
            sizes = {
                path: {**shape.model_dump(), "parameters": round(study.parameters(shape) / 1e6, 3)}
                for path, shape in shapes.items()
            }
        return {
            "exhibit": wildcards.exhibit,
            "shown": shown,
            "models": found,
            "stand_ins": {name: study.paper[name] for name in sorted(named) if name in study.paper},
            "sizes": sizes,
        }


def _staged(kind: str, name: str, source: Source) -> str:
    """Where a source is staged; studies that name the same source share the folder."""
    return f"resources/{kind}/{name}-{checkpoint.key_of(source.model_dump())[:8]}"


def _json(value: object, sort_keys: bool = True) -> str:
    """JSON text of settings: pydantic models, or plain mappings of them."""
    return json.dumps(value, sort_keys=sort_keys, default=lambda model: model.model_dump(mode="json"))
