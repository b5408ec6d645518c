"""The package takes the workflow along, so that `colpipe run` works where there is no checkout. All else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithWorkflow(build_py):
    """Copies what Snakemake needs into `colpipe/checkout/`, laid out as it lies here."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # an editable installation has the checkout itself
            return
        target = Path(self.build_lib) / "colpipe" / "checkout"
        shutil.rmtree(target, ignore_errors=True)
        for name in ("workflow", "envs", "config"):
            shutil.copytree(HERE / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "Snakefile", target)


setup(cmdclass={"build_py": BuildWithWorkflow})
