"""Distillation on completions that are sampled while the student learns (`minillm`, `on_policy`).

Completions are sampled when the updates before them are done, are part of the in-step state, and are used for a few passes.

transformers has no public place for three things that this needs, so private methods of its Trainer are overridden, and the
tests pin their signatures (tests/unit/training/test_hooks.py): `_get_train_sampler` (rows in their order),
`_save_checkpoint` and `_load_from_checkpoint` (completions go with the state).
"""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler, TensorDataset
from transformers import PreTrainedModel

from colpipe.config.rollouts import rollouts_of
from colpipe.config.stages import Distill
from colpipe.data.tokens import IGNORE
from colpipe.jobs.device import float64
from colpipe.jobs.job import Job, clock
from colpipe.jobs.state import is_valid, mark_complete
from colpipe.training.objectives import chunked, cross_entropy, forward_kl, weighted
from colpipe.training.projection import all_places, project
from colpipe.training.rollouts import advantages, chosen_prompts, sample, shuffled, whitened
from colpipe.training.sharding import unsharded
from colpipe.training.trainer import ObjectiveTrainer

ROLLOUTS = "rollouts.pt"  # in the in-step state


def sample_all(
    job: Job,
    models: Mapping[str, PreTrainedModel],
    shares: Mapping[str, float],
    prompts: Sequence[Tensor],
    settings: Distill,
    end_ids: Sequence[int],
    seed: int,
    folder: Path,
    label: str = "",
) -> list[dict[str, Tensor]]:
    """Completions of all prompts (see `sample`), in their order; prompts of similar length are completed together.

    The batches are divided among the processes, and kept in a folder: a job that was cut off goes on with the next one.
    How far it is, is said after a batch, under a label.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    size = settings.rollout.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    parallel = torch.distributed.is_initialized()
    process, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if parallel else (0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    completions: dict[int, dict[str, Tensor]] = {}
    own = list(enumerate(batches))[process::processes]
    begun = shown = time.monotonic()
    sampled = 0
    for done, (number, batch) in enumerate(own, 1):
        path = folder / f"{number:06d}.pt"
        if not is_valid(path):
            if job.should_stop():
                job.stop()
            chosen = [prompts[index] for index in batch]
            most = settings.rollout.max_new_tokens or settings.max_length
            limits = [min(most, settings.max_length - len(prompt)) for prompt in chosen]
            _save(sample(models, shares, chosen, limits, end_ids, seed * 1_000_003 + number), path)
            sampled += 1
        completions.update(zip(batch, torch.load(path), strict=True))
        now = time.monotonic()
        if sampled and now - shown >= job.runtime.progress_seconds:
            shown, left = now, (len(own) - done) * (now - begun) / sampled
            prompts_here = sum(len(batch) for _, batch in own)
            job.say(f"{label}{len(completions):,}/{prompts_here:,} prompts answered, {clock(left)} left")
    if processes > 1:
        shared: list[dict] = [{} for _ in range(processes)]
        torch.distributed.all_gather_object(shared, completions)
        completions = {index: row for of_process in shared for index, row in of_process.items()}
    return [completions[index] for index in range(len(prompts))]


def as_item(row: Mapping[str, Tensor], **columns: Tensor) -> dict[str, Tensor]:
    """A sampled row as an item to train on; `columns` (T,) belong to the completion's tokens."""
    before = len(row["prompt"])
    item = {
        "input_ids": torch.cat([row["prompt"], row["answer"]]),
        "labels": torch.cat([torch.full((before,), IGNORE), row["answer"]]),
    }
    return item | {name: torch.cat([torch.zeros(before), value]) for name, value in columns.items()}


class RolloutTrainer(ObjectiveTrainer):
    """Updates on sampled completions: `rollout.size` prompts are completed, then passed over `rollout.epochs` times; in the
    end, no more than the steps that are left use.

    The training data that transformers' loop sees are numbers only: the place of each row in the sequence of all rows.
    What stands there is looked up when the update begins, so that completions come from the student as it is then.

    Args:
        prompts: token ids of each.
        text: blocks for the cross-entropy beside the completions, or None.
        end_ids: ids of the tokens that end a text.
    """

    def __init__(
        self,
        job: Job,
        settings: Distill,
        prompts: Sequence[Tensor],
        text: Dataset | None,
        end_ids: Sequence[int],
        **arguments,
    ):
        self.job, self.settings = job, settings
        self.prompts, self.text, self.end_ids = prompts, text, end_ids
        self.plan = plan = rollouts_of(settings, len(prompts))
        self.rollouts: dict = {"number": None, "rows": []}
        self.sampled = 0  # prompts, since this attempt began
        last = plan.size_of(plan.count - 1)
        job.manifest["rollouts"] = {"count": plan.count, "prompts": plan.prompts, "last": last, "passes": plan.passes}
        less = f", the last of {last:,} (rollout.size {plan.size:,}): the steps use no more" if last < plan.size else ""
        job.say(
            f"{plan.count:,} rollout{'s' * (plan.count > 1)}, {plan.prompts:,} prompts, {plan.passes} passes over each{less}"
        )
        super().__init__(train_dataset=TensorDataset(torch.arange(plan.rows)), **arguments)
        self.data_collator = lambda places: {"place": torch.stack([place for (place,) in places])}

    def _get_train_sampler(self, train_dataset=None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """(micro-batches of this process, tokens with loss in the whole update)."""
        places, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not places:
            return [], None
        update, size = int(places[0]["place"][0]) // self.settings.batch_size, self.settings.batch_size
        rows = {place: self._row(place) for place in range(update * size, (update + 1) * size)}
        if self.settings.objective == "minillm" and self.settings.rollout.whiten == "update":
            rows = dict(zip(rows, self._whitened(list(rows.values())), strict=True))
        batches = []
        for batch in places:
            own = batch["place"].tolist()
            batches.append(self.collate_rows([rows[place] for place in own]))
            if self.text is not None:
                batches[-1]["text"] = torch.stack([self._block(self.text, place) for place in own])
        tokens = sum(int((row["labels"] != IGNORE).sum()) for row in rows.values())
        self.batches = batches
        return batches, torch.tensor(tokens, device=device)

    def sampling_left(self) -> float | None:
        left = self.plan.prompts - self.plan.size * self.rollouts["number"] - len(self.rollouts["rows"])
        return left * self.sampling / self.sampled if self.sampled else None if left else 0.0

    def _row(self, place: int) -> dict[str, Tensor]:
        number, place = divmod(place, self.plan.size * self.plan.passes)
        turn, place = divmod(place, self.plan.size_of(number))
        if self.rollouts["number"] != number:
            started = time.monotonic()
            self.rollouts = {"number": number, "rows": self._sample(number)}
            self.sampling += time.monotonic() - started
            self.sampled += self.plan.size_of(number)
        rows = self.rollouts["rows"]
        return rows[shuffled(len(rows), number * self.plan.passes + turn, self.job.seed)[place]]

    def _whitened(self, rows: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The rows of an update, their advantages whitened together, up to the length of MiniLLM's padded completions."""
        answers = [row["labels"] != IGNORE for row in rows]
        values = [row["advantages"][answer] for row, answer in zip(rows, answers, strict=True)]
        settings = self.settings
        longest = settings.rollout.max_new_tokens or settings.max_length - settings.rollout.max_prompt
        found = whitened(values, max(longest, *map(len, values)))
        columns = [row["advantages"].masked_scatter(answer, each.to(row["advantages"].dtype))
                   for row, answer, each in zip(rows, answers, found, strict=True)]  # fmt: skip
        return [{**row, "advantages": column} for row, column in zip(rows, columns, strict=True)]

    def _block(self, text: Dataset, place: int) -> Tensor:
        turn, place = divmod(place, len(text))
        return text[shuffled(len(text), turn, self.job.seed)[place]]["input_ids"]

    def _sample(self, number: int) -> list[dict[str, Tensor]]:
        """Sample rollout `number` from the student as it is now."""
        settings, student = self.settings, self.accelerator.unwrap_model(self.model)
        student.eval()
        mix = settings.rollout.teacher_mix if settings.objective == "minillm" else 0.0
        chosen = chosen_prompts(len(self.prompts), number, self.plan.size, self.job.seed)[: self.plan.size_of(number)]
        home = self.job.state / "rollouts"
        with unsharded(student), self.accelerator.autocast():
            folder = home / f"{number:06d}-{_weights_key(student)}"
            for other in home.glob("*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
            rows = sample_all(
                self.job,
                {"student": student, "teacher": self.teacher},
                {"student": 1 - mix, "teacher": mix},
                [self.prompts[index] for index in chosen],
                settings,
                self.end_ids,
                self.job.seed * 1_000_003 + number,
                folder,
                f"rollout {number + 1} of {self.plan.count:,}: ",
            )
        tokens = sum(len(row["answer"]) for row in rows)
        measured = {"answer_tokens": tokens / len(rows)}
        if settings.objective == "on_policy":
            items = [as_item(row) for row in rows]
        else:
            gained = sum((row["teacher"] - row["student"]).sum().item() for row in rows)
            measured["log_ratio"] = gained / tokens  # of teacher to student, in nats a token
            weights = advantages(rows, settings.rollout)
            items = [
                as_item(row, advantages=weight, sampled=row["sampled"])
                for row, weight in zip(rows, weights, strict=True)
            ]
        self.job.measure(step=self.state.global_step, split="rollout", **measured)
        self.log({f"rollout_{name}": value for name, value in measured.items()})
        return items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.text_rows = inputs.pop("text", None)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def loss_of(self, student, rows, objective, tokens):
        loss, text = super().loss_of(student, rows, objective, tokens), self.text_rows
        if text is not None:
            places = all_places(text)
            labels, teacher, said = cross_entropy(text[:, 1:].flatten()), self.settings.rollout.text_teacher, None
            if teacher:
                labels = weighted((1 - teacher, labels), (teacher, forward_kl))
                with torch.no_grad():
                    said = project(self.teacher, {"input_ids": text}, places)
            total = chunked(labels, student({"input_ids": text}, places), said)
            share = self.settings.batch_size * (text.shape[1] - 1) / self.accelerator.num_processes
            loss = loss + self.settings.rollout.text_weight * total / share
        return loss

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            torch.save(self.rollouts, Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / ROLLOUTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.rollouts = torch.load(Path(resume_from_checkpoint) / ROLLOUTS)


def _weights_key(model: PreTrainedModel) -> str:
    """Names the weights of a model by their sums: cheap, and different after any update."""
    sums = [float64(parameter.detach()).sum().item() for parameter in model.parameters()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def _save(value: object, path: Path) -> None:
    """Write a file, and mark it as complete."""
    torch.save(value, path)
    mark_complete(path)
