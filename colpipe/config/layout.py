"""Where everything that a study makes lies, and which models it has (no torch here)."""

from collections.abc import Callable
from functools import cached_property

from colpipe.config.constants import SCRATCH
from colpipe.config.folders import staged
from colpipe.config.parts import tokens_label
from colpipe.config.stages import Task
from colpipe.config.study import Study


class Layout:
    """Folders, models and tasks of a study.

    Args:
        place: where a folder of the workflow lies, `results/<study>` and `resources`: another one where it is a module of
            a workflow that puts it elsewhere.
    """

    def __init__(self, study: Study, place: Callable[[str], str] = str):
        self.study, self.place = study, place
        self.results, self.resources = place(f"results/{study.study}"), place("resources")
        self.datasets = {
            name: staged(self.resources, "data", name, entry.source) for name, entry in study.datasets.items()
        }
        self.fetched = {
            name: staged(self.resources, "models", name, entry.source)
            for name, entry in study.models.items()
            if entry.source
        }
        self.sources = {
            **{self.datasets[name]: study.datasets[name].source for name in self.datasets},
            **{self.fetched[name]: study.models[name].source for name in self.fetched},
        }
        trained = study.tokenizer.train
        self.tokenizer = f"{self.results}/tokenizer" if trained else self.start(study.tokenizer.model)
        self.budgets = {tokens_label(tokens): tokens for tokens in study.budgets if tokens}

    def declared(self, path: str) -> str:
        """A path as rules declare it: Snakemake itself moves those of a module to their place."""
        for placed, written in ((self.results, f"results/{self.study.study}"), (self.resources, "resources")):
            if path.startswith(f"{placed}/"):
                return written + path[len(placed) :]
        return path

    def start(self, model: str) -> str:
        """Folder of a starting model: fetched, or pre-trained here."""
        return self.fetched.get(model, f"{self.results}/pretrained/{model}")

    def corpora(self, origin: str) -> list[str]:
        """Names of the corpora that come of a `dataset`, are `written`, or are mixed of other `data`."""
        return [name for name, entry in self.study.corpora.items() if getattr(entry, origin) is not None]

    def data(self, name: str) -> str:
        """Folder of a prepared corpus or of prepared instructions."""
        return f"{self.results}/data/{name}"

    def origin(self, ancestor: str) -> str:
        """Folder of the model that the chain of an ancestor descends from: its bridge, or itself after SFT."""
        if self.study.ancestors[ancestor].bridge:
            return f"{self.results}/bridges/{ancestor}"
        return f"{self.results}/sft/{self.study.ancestors[ancestor].model}"

    def ordered(self, ancestor: str) -> str:
        """Folder of that model in the order that the ancestor selects by; ancestors that have both in common share it."""
        asked = {name: (self.origin(name), each.select) for name, each in self.study.ancestors.items()}
        first = next(name for name in asked if asked[name] == asked[ancestor])
        return f"{self.results}/ordered/{first}"

    def teacher(self, ancestor: str, member: str | None) -> str:
        """Folder of a teacher: a member, or (None) what the chain descends from."""
        return f"{self.results}/chain/{ancestor}/{member}" if member else self.origin(ancestor)

    @cached_property
    def exports(self) -> list[str]:
        """Paths of every DesNet's GGUF files, under the results."""
        return [f"exported/{path}" for path in self.models if path.startswith("desnets/")]

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
                "init": "seqkd" if settings.bridge else "sft" if study.stages.sft else "as it is",
            }
            for member in study.members(ancestor):
                found[f"chain/{ancestor}/{member}"] = {
                    "ancestor": ancestor,
                    "desnet": member,
                    "params": study.parameters(study.chain[member].shape),
                    "init": "distilled",
                }
            for desnet, init, tokens in study.builds_of(ancestor):
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

    def compared_with(self, model: str) -> str:
        """Path under the results of the model that another one, by its path there, is compared with: what its chain descends
        from; for random ones, which descend from none, that of the first ancestor."""
        origins = {name: self.origin(name).removeprefix(f"{self.results}/") for name in self.study.ancestors}
        if model in origins.values():
            return model
        return origins[self.models[model]["ancestor"] or next(iter(origins))]

    def initialisers(self, distilled: bool) -> list[str]:
        """Those that are distilled on their own, or those that are assembled."""
        return [name for name, entry in self.study.initialisers.items() if (entry.kind == "distilled") == distilled]

    def tasks_of(self, model: str) -> dict[str, Task]:
        """The tasks that a model is scored on, by its path under the results."""
        ancestor, init = self.models[model]["ancestor"], self.models[model]["init"]
        stack = self.study.stacks.get(init) if model.startswith("stacks/") else None
        return {
            name: self.study.tasks[name] for name in (stack.tasks if stack else self.study.tasks_of(ancestor, init))
        }
