"""Greedy answers to many prompts: `answer_all` beside transformers' `generate` on batches in the data's order.

A GPT-2 of random weights, float32, and prompts of log-normal length; the same rows to a batch, both pad on the left. In one
process, in turns; the fewest seconds count. Where two answers of a prompt differ, two logits of a position before that, with
the prompt alone and without padding, must be as good as equal: a tie that rounding decides.

    python -m tests.benchmarks.generate            2 minutes alone on 2 cores
    python -m tests.benchmarks.generate --quick    a few prompts, once; tells nothing

Prints one line per contender and, as the last line, one JSON object. Missing a goal is no failure.
"""

import argparse
import random
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from colpipe.evaluation.generation import answer_all
from tests.benchmarks.measuring import Line, report
from tests.conftest import WORDS, make_tokenizer

FASTER = 1.5  # goal: answers a second of ours / in order
TIE = 1e-4  # difference of two logits that rounding may turn round; they are around 1
VOCABULARY, POSITIONS = 1000, 640


def world(layers: int, hidden: int):
    """A model whose answers vary, and its tokenizer."""
    tokenizer = make_tokenizer([" ".join(WORDS)], VOCABULARY)
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    sizes = dict(n_layer=layers, n_head=4, n_embd=hidden, n_positions=POSITIONS, vocab_size=len(tokenizer))
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.5 if parameter.ndim == 1 else 3 / hidden**0.5))
    return model, tokenizer


def prompts_of(count: int) -> list[str]:
    """Prompts of 3 to some 500 words, most of them short."""
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=min(500, 3 + int(chance.lognormvariate(3.7, 1.0))))) for _ in range(count)]


@torch.inference_mode()
def in_order(model, tokenizer, prompts: list[str], new_tokens: int, rows: int) -> list[str]:
    """The plain way."""
    answers = []
    for start in range(0, len(prompts), rows):
        batch = tokenizer(prompts[start : start + rows], return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**batch, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        new = ids[:, batch["input_ids"].shape[1] :]
        answers += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers


@torch.inference_mode()
def gap(model, tokenizer, prompt: str, first: str, second: str, new_tokens: int) -> float:
    """Smallest difference of the two best logits up to where two answers of a prompt part; alone, without padding."""
    ids, smallest = tokenizer(prompt, return_tensors="pt")["input_ids"], float("inf")
    start = ids.shape[1]
    for _ in range(new_tokens):
        best = model(ids).logits[0, -1].topk(2)
        smallest = min(smallest, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[None, :1]], 1)
        said = tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
        if not (first.startswith(said) and second.startswith(said)):
            break
    return smallest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few prompts, once")
    quick = parser.parse_args().quick
    count, new_tokens, rows, layers, hidden = (32, 4, 8, 2, 64) if quick else (128, 16, 16, 4, 192)
    model, tokenizer = world(layers, hidden)
    prompts = prompts_of(count)
    contenders = {
        "ours": lambda: answer_all(model, tokenizer, prompts, new_tokens, rows),
        "in order": lambda: in_order(model, tokenizer, prompts, new_tokens, rows),
    }
    seconds, answers = dict.fromkeys(contenders, float("inf")), {}
    for _ in range(1 if quick else 3):
        for name, work in contenders.items():
            begun = time.perf_counter()
            answers[name] = work()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    for name, taken in seconds.items():
        print(f"{name:<10}{taken:8.2f} s {count / taken:8.1f} answers/s", flush=True)
    pairs = zip(prompts, answers["ours"], answers["in order"], strict=True)
    gaps = [gap(model, tokenizer, *each, new_tokens) for each in pairs if each[1] != each[2]]
    unexplained, different = sum(value > TIE for value in gaps), len(set(answers["ours"]))
    print(f"{len(gaps)} of {count} answers differ, {unexplained} of them without a tie; {different} different answers")
    lines = [
        Line(f"greedy answers to {count} prompts", "s", seconds["ours"], "generate", seconds["in order"], 1 / FASTER),
        Line("other answers than generate's, without a tie", "", unexplained, limit=0),
        Line("prompts with the answer of another one", "", count - different, limit=(count - 1) // 2),
    ]
    report(lines, seconds=seconds, differ=len(gaps))


if __name__ == "__main__":
    main()
