"""What a fitted cut costs: 20 of 30 layers of a model of SmolLM2-135M's shape (random weights), fitted on 16,384 tokens.

`gather` runs the whole model once and keeps its residual streams in files, `fit` is what every further size costs,
`ten_steps` is what training costs instead: ten updates of the cut by forward KL from the whole model, 1,024 tokens each.
All in float32, and the first two in bfloat16 as well where the processor has arithmetic in it.
Seconds are of one run, memory is the peak on top of what is there before (of the fit: the model and the cut not counted).

    python -m tests.benchmarks.fit            5 minutes alone on 2 cores, 4 GB of memory, 2.3 GB of disk
    python -m tests.benchmarks.fit --quick    a tenth of the sizes; tells nothing

Its malloc keeps freed blocks, as that of the workflow's jobs does, which saves a tenth of the fit.

Prints a line for each and, as the last line, one JSON object. Missing a goal is no failure. Linux only (/proc).
"""

import argparse
import functools
import gc
import os
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from colpipe.jobs.processor import lacks_bfloat16
from colpipe.learngene.fit import fit
from colpipe.learngene.linit import take_subset
from colpipe.learngene.streams import gather
from colpipe.learngene.weights import Weights
from colpipe.pipeline.snakefile import MALLOC
from colpipe.training.objectives import forward_kl
from colpipe.training.trainer import ObjectiveTrainer
from tests.benchmarks.measuring import Line, measured, report

# SmolLM2's layers that are kept, by how much each turns the residual stream.
KEPT = [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23, 24, 27, 28, 29]
STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    quick = parser.parse_args().quick
    if not os.environ.keys() >= MALLOC.keys():  # it is read when a process starts
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.benchmarks.fit", *sys.argv[1:]], {**MALLOC, **os.environ}
        )
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    if quick:
        sizes = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 3, "num_key_value_heads": 1}
    tokens, length = (2048, 1024) if quick else (16384, 1024)
    torch.manual_seed(0)
    vocabulary = 4096 if quick else 49152
    config = LlamaConfig(vocab_size=vocabulary, num_hidden_layers=30, tie_word_embeddings=True, **sizes)
    model = LlamaForCausalLM(config).float().eval()
    weights = Weights(model)
    batches = torch.randint(vocabulary, (tokens // 256, 256)).split(8)
    start = take_subset(weights, {**weights.sizes, "layer": len(KEPT)}, layers=KEPT)

    precisions = ["float32"] if lacks_bfloat16() else ["float32", "bfloat16"]
    found, kept = {}, {}
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            once = functools.partial(gather, model, batches, Path(folder), precision=precision)
            found[f"gather, {precision}"] = measured(lambda once=once: kept.update(streams=once()))
            found[f"fit, {precision}"] = measured(lambda: kept.update(cut=fit(start, kept["streams"])))
            kept["streams"].close()
        student = kept["cut"].load()
        ids = torch.randint(vocabulary, (length // 256, 256))
        trainer = ObjectiveTrainer(
            model=student,
            args=TrainingArguments(output_dir=folder, use_cpu=True, report_to=[]),
            teacher=model,
            objective=lambda labels, columns: forward_kl,
        )
        optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5)

        def train() -> None:
            trainer.current_gradient_accumulation_steps = 1
            for _ in range(STEPS):
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
                trainer.training_step(student, inputs, num_items_in_batch=torch.tensor(length - len(ids)))
                optimiser.step()
                optimiser.zero_grad()

        found["ten_steps"] = measured(train)
    copy = sum(value.nbytes for value in student.parameters())
    found["fit, float32"]["peak"] -= copy
    for name, entry in found.items():
        seconds, processor = entry["seconds"], entry["processor_seconds"]
        print(f"{name:<20}{seconds:8.1f} s{processor:8.1f} s of processors{entry['peak'] / 1e6:8,.0f} MB")
    lines, cost = [], (f"{STEPS} steps of distillation", found["ten_steps"]["seconds"])
    for precision in precisions:
        whole, cut = found[f"gather, {precision}"], found[f"fit, {precision}"]
        first = whole["seconds"] + cut["seconds"]
        lines += [
            Line(f"20 of 30 layers, fitted on {tokens:,} tokens in {precision}", "s", first, *cost),
            Line(f"the first cut, {precision}", "s", first, limit=60),
            Line(f"each further cut, {precision}", "s", cut["seconds"], limit=30),
        ]
    # Of float32 alone, which needs more: what comes after it takes what it has given back.
    peak = max(found["gather, float32"]["peak"], found["fit, float32"]["peak"])
    lines += [Line("memory beside both models, float32", "MB", peak / 1e6, limit=1500)]
    report(lines, **found)


if __name__ == "__main__":
    main()
