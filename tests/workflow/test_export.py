"""The target `exported`: every DesNet as GGUF files, and nothing of the study made again for it."""

import pytest

from tests.workflow.conftest import planned, run

pytestmark = pytest.mark.slow


def test_every_desnet_is_exported(finished):
    run(finished.home, "--", "exported")
    exported = finished.results / "exported"
    models = {
        path.parent.relative_to(finished.results) for path in finished.results.glob("desnets/*/*/*/*/manifest.json")
    }
    assert len(models) == 8
    for model in models:
        name = "-".join(model.parts[2:])
        found = {path.name for path in (exported / model).iterdir() if path.suffix in (".gguf", ".Modelfile")}
        assert found == {f"{name}-{type}.{kind}" for type in ("f16", "q8_0", "q4_0") for kind in ("gguf", "Modelfile")}
    assert planned(finished.home) == planned(finished.home, "--", "exported") == set()
