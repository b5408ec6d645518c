"""Upload a model's folder and its card to the Hugging Face hub, as one commit. Nothing that is there is deleted.

colpipe push results/demo/published/desnets/smollm2/90M/fit/10k me/small-90m --private
colpipe push gguf me/small-90m-gguf --card results/demo/published/desnets/smollm2/90M/fit/10k/README.md

The token is that of HF_TOKEN, or of `hf auth login`.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import colpipe
from colpipe.config.parts import require_repository
from colpipe.errors import ColpipeError
from colpipe.hashing import sha256
from colpipe.jobs.artifacts import APART, HASHES, MANIFEST
from colpipe.tools.parser import Parser

CARD = "README.md"
# What a model consists of, for those who load it; everything else is somebody's work, and stays.
PARTS = (
    *(CARD, "LICENSE*", "NOTICE*", "*.png", "*.svg"),
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
    *("*.gguf", "*.Modelfile"),
)
WEIGHTS = (".safetensors", ".gguf")
MOST_TOLD = 5  # files that a refusal names


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("push", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a published one, or one of GGUF files")
    parser.add_argument("name", metavar="owner/name", help="model of the hub; it is made where there is none")
    parser.add_argument("--card", type=Path, metavar="FILE", help="the model card, where the folder has none")
    parser.add_argument("--private", action="store_true", help="make a private one; a public one is refused")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to; it is made where there is none")
    parser.add_argument("--overwrite", action="store_true", help="replace files that have another content there")
    given = parser.parse_args(arguments)
    files = files_of(given.folder, given.card)
    repository = _repository(given.name)
    for name, path in files.items():
        print(f"{path.stat().st_size:>15,} bytes  {name}")
    print(f"{sum(path.stat().st_size for path in files.values()):>15,} bytes in {len(files)} files", flush=True)
    print(push(files, repository, given.private, given.revision, given.overwrite))


def files_of(folder: Path, card: Path | None = None) -> dict[str, Path]:
    """Name → path of what is uploaded: a model's files and its card, by name.

    Of a result, such as an exported folder, what says how it was made stays here.

    Raises:
        ColpipeError: there is no card, or more than one, or no weights; or a file that is no part of a model.
    """
    if not folder.is_dir():
        raise ColpipeError(f"{folder}: is no folder")
    apart = {*APART, HASHES} if (folder / MANIFEST).is_file() else set()
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name not in apart)
    if others := [name for name in names if not any(fnmatchcase(name, part) for part in PARTS)]:
        more = f" and {len(others) - MOST_TOLD} more" if len(others) > MOST_TOLD else ""
        raise ColpipeError(
            f"{folder}: {', '.join(others[:MOST_TOLD])}{more}: no part of a model; give a published folder, or move away "
            "what others shall not have"
        )
    if not any(name.endswith(WEIGHTS) for name in names):
        raise ColpipeError(f"{folder}: holds no {' or '.join(WEIGHTS)} file; give the folder of a model")
    files = {name: folder / name for name in names}
    if card and CARD in files:
        raise ColpipeError(f"--card {card}: {folder} has a {CARD} of its own; leave --card out")
    if card:
        files[CARD] = card
    if not files.get(CARD, folder / CARD).is_file():
        raise ColpipeError(
            f"{files.get(CARD, folder / CARD)}: there is no model card; `snakemake published` writes one: give that folder, "
            "or its README.md as --card"
        )
    return dict(sorted(files.items()))


def _repository(name: str) -> str:
    try:
        if name.count("/") != 1:
            raise ValueError(f"{name!r} is no repository of the Hugging Face hub: give owner/name")
        return require_repository(name)
    except ValueError as error:
        raise ColpipeError(str(error)) from None


def push(files: Mapping[str, Path], repository: str, private: bool, revision: str | None, overwrite: bool) -> str:
    """Make the repository and the branch where they are missing, and upload the files in one commit; gives its address.

    Files that are there with the same content are not uploaded again; what is there besides stays.

    Raises:
        ColpipeError: there is no token; files are there with another content, or came there meanwhile; the repository is
            public and was to be private; or what the hub said, in one line.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HTTPError  # httpx's own

    if not get_token():
        raise ColpipeError("no token of the Hugging Face hub: set HF_TOKEN, or run hf auth login")
    api = HfApi(library_name="colpipe", library_version=colpipe.__version__)
    try:
        api.create_repo(repository, private=True if private else None, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        state = api.model_info(repository, revision=revision)
        if private and not state.private:
            raise ColpipeError(
                f"{repository}: is there already, and public; make it private there, or leave --private out"
            )
        there = _there(api, repository, files, revision)
        changed = {name: path for name, path in files.items() if there.get(name) is not True}
        differ = [name for name in changed if name in there]
        if differ and not overwrite:
            raise ColpipeError(
                f"{repository}: {', '.join(differ)}: there with another content; --overwrite replaces "
                f"{'them' if len(differ) > 1 else 'it'}, --revision uploads to a branch"
            )
        if not changed:
            return f"{api.endpoint}/{repository}: has all of this already"
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, str(path)) for name, path in changed.items()],
            commit_message=f"{', '.join(changed) if len(changed) <= MOST_TOLD else f'{len(changed)} files'} from colpipe",
            revision=revision,
            parent_commit=state.sha,  # what was compared: a file that comes meanwhile is not overwritten
        )
        there = _there(api, repository, files, revision)
        if lost := [name for name in files if there.get(name) is not True]:
            raise ColpipeError(f"{repository}: {', '.join(lost)}: not there after the upload; see its .gitignore")
    except (HTTPError, OSError, ValueError) as error:
        raise ColpipeError(f"{repository}: {' '.join(str(error).split())}") from None
    return str(commit.commit_url)


def _there(api, repository: str, files: Mapping[str, Path], revision: str | None) -> dict[str, bool]:
    """Name → whether its content is the same, of the files that are there."""
    from huggingface_hub.utils.sha import git_hash

    found = api.get_paths_info(repository, list(files), revision=revision)
    return {
        each.path: each.size == files[each.path].stat().st_size
        and (
            each.lfs.sha256 == sha256(files[each.path])
            if each.lfs
            else each.blob_id == git_hash(files[each.path].read_bytes())
        )
        for each in found
    }
