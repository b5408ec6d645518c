"""Hooks of mkdocs: pages that lie beside docs/ join it, and links lead where things are on the site.

On GitHub, the same files are read as they lie.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
JOINED = {
    "README.md": "index.md",
    "config/README.md": "config.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages from beside docs/."""
    for source, name in JOINED.items():
        files.append(File.generated(config, name, content=lead((ROOT / source).read_text(), Path(source))))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead the links of the pages in docs/."""
    return markdown if page.file.src_uri in JOINED.values() else lead(markdown, Path("docs", page.file.src_uri))


def lead(markdown: str, source: Path) -> str:
    """Links of a page, which lies at `source` in the checkout, as the site has them. A file that the site has not stays a
    name."""
    here = Path(
        "docs", JOINED.get(source.as_posix(), source.relative_to("docs") if source.parts[0] == "docs" else source)
    )

    def led(link: re.Match) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        if "://" in path:
            return link[0]
        target = Path(os.path.normpath(source.parent / path))
        if target.as_posix() in JOINED:
            target = Path("docs", JOINED[target.as_posix()])
        elif target.parts[0] != "docs":
            return text
        return f"[{text}]({os.path.relpath(target, here.parent)}{anchor})"

    return LINK.sub(led, markdown)
