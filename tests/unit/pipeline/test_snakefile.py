"""What is looked at before Snakemake is told of a study."""

import pytest

from colpipe.errors import ColpipeError
from colpipe.pipeline.snakefile import require_folders


@pytest.mark.parametrize("file", ["results", "results/tiny"])
def test_a_file_in_place_of_results_is_named(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    require_folders("results/tiny", "resources")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(ColpipeError) as refusal:
        require_folders("results/tiny", "resources")
    assert str(refusal.value) == f"{file}: is a file, where a folder of results is to be; move it away"
