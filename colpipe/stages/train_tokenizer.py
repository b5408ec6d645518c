"""Train a byte-level BPE tokenizer on a data set's training documents, for chains without a public one."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from colpipe.config.parts import Dataset, Positive, Strict
from colpipe.data.prompts import WITH_INPUT, WITHOUT_INPUT
from colpipe.data.records import read
from colpipe.errors import ColpipeError
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job

END_OF_TEXT = "<|endoftext|>"
TEMPLATE_WEIGHT = 0.01  # the prompt templates open every row, so they count as this share of the documents


class Settings(Strict):
    dataset: Dataset
    vocabulary: Positive
    positions: Positive


def main(job: Job[Settings]) -> None:
    settings = job.settings
    texts = [
        record["text"]
        for record in read(settings.dataset, job.parents["dataset"])
        if "text" in record and record["split"] == "train"
    ]
    texts += [WITH_INPUT, WITHOUT_INPUT] * round(TEMPLATE_WEIGHT * len(texts) + 1)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found != settings.vocabulary:
        raise ColpipeError(
            f"architecture.vocabulary: {settings.vocabulary:,} entries were asked for, the corpus gives {found:,}; "
            "lower it or use more text"
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=settings.positions,
    )
    wrapped.save_pretrained(job.staging)
    job.publish(vocabulary=found, documents=len(texts))


if __name__ == "__main__":
    run_stage(
        "train_tokenizer",
        __doc__,
        main,
        inputs={"dataset": "staged data set with documents"},
        settings=Settings,
    )
