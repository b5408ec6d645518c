"""What the submodels of an elastic member cost: an update with two of them beside a plain one, in one process, in turns.

Student GPT2-B, teacher GPT2-M (random weights), one sequence of 512 tokens, float32, reverse KL. The submodels are the
smallest shape, 6L/6H/384, and one drawn at random between it and the student, others at every update; an update is
forward, backward and AdamW. Seconds are means over the updates, memory is the highest.

    python -m tests.benchmarks.elastic            3 minutes alone on 2 cores, 6 GB of memory
    python -m tests.benchmarks.elastic --quick    a tenth of the sizes; tells nothing

Prints a line per contender and, as the last line, one JSON object. Missing a goal is no failure. Linux only (/proc).
"""

import argparse
import gc
import tempfile

import torch
from transformers import TrainingArguments

from colpipe.config.parts import Architecture, Shape
from colpipe.config.stages import Elastic
from colpipe.learngene.elastic import ElasticMember
from colpipe.training.elastic import Submodels
from colpipe.training.objectives import reverse_kl
from colpipe.training.trainer import ObjectiveTrainer
from tests.benchmarks.distill import gpt2
from tests.benchmarks.measuring import Line, measured, report

UPDATES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    quick = parser.parse_args().quick
    length = 64 if quick else 512
    torch.manual_seed(0)
    student, teacher = (gpt2(4, 4, 128), gpt2(8, 4, 128)) if quick else (gpt2(12, 12, 768), gpt2(24, 16, 1024))
    least = Shape(layers=2, heads=2, hidden=64) if quick else Shape(layers=6, heads=6, hidden=384)
    layers = [0, 3] if quick else [0, 2, 4, 7, 9, 11]
    submodels = Submodels(student, ElasticMember(Architecture().sizes(least), layers, 1.0), Elastic(), seed=0)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5)
    batch = torch.randint(50257, (1, length))
    inputs = {"input_ids": batch, "attention_mask": torch.ones_like(batch), "labels": batch}

    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            name: ObjectiveTrainer(
                model=student,
                args=TrainingArguments(output_dir=folder, use_cpu=True, report_to=[]),
                teacher=teacher,
                objective=lambda labels, columns: reverse_kl,
                submodel_objective=lambda labels, columns: reverse_kl,
                submodels=chosen,
            )
            for name, chosen in (("plain", None), ("elastic", submodels))
        }
        found: dict[str, dict] = {name: {"seconds": [], "peak": 0, "peak_absolute": 0} for name in contenders}
        for update in range(UPDATES + 1):
            for name, trainer in contenders.items():
                trainer.current_gradient_accumulation_steps = 1
                trainer.state.global_step = update

                def step(trainer=trainer) -> None:
                    trainer.training_step(student, inputs, num_items_in_batch=torch.tensor(length - 1))
                    optimiser.step()
                    optimiser.zero_grad(set_to_none=False)

                gc.collect()
                run = measured(step)
                if update:  # the first one makes gradients, optimizer state and skeletons
                    found[name]["seconds"].append(run["seconds"])
                    for key in ("peak", "peak_absolute"):
                        found[name][key] = max(found[name][key], run[key])
    for name, entry in found.items():
        entry["seconds"] = sum(entry["seconds"]) / UPDATES
        peaks = f"{entry['peak_absolute'] / 1e6:,.0f} MB in all, {entry['peak'] / 1e6:,.0f} MB of them for the update"
        print(f"{name:<10}{entry['seconds']:8.2f} s  {peaks}")
    plain, elastic = found["plain"], found["elastic"]
    update = "an update with two submodels"
    lines = [
        Line(update, "s", elastic["seconds"], "without", plain["seconds"], 2.2),
        Line(update, "MB in all", elastic["peak_absolute"] / 1e6, "without", plain["peak_absolute"] / 1e6, 1.2),
        Line(update, "MB", elastic["peak"] / 1e6, "without", plain["peak"] / 1e6),
    ]
    report(lines, **found)


if __name__ == "__main__":
    main()
