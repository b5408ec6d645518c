"""The speed of a core, measured: a number that a processor of today can have."""

from colpipe.jobs.processor import FASTER, cores, has_bfloat16, lacks_bfloat16, training_rate


def test_a_processor():
    assert 1e8 < training_rate() < 1e12 and training_rate() == training_rate()
    assert cores() >= 1
    assert training_rate("bfloat16") == training_rate() * (FASTER if has_bfloat16() else 1)


def test_what_linux_says_of_a_processor(tmp_path):
    told = tmp_path / "cpuinfo"
    assert has_bfloat16(told) is None and not lacks_bfloat16(told)
    told.write_text("flags\t: fpu avx512f avx512vl\n")
    assert has_bfloat16(told) is False and lacks_bfloat16(told)
    told.write_text("flags\t: fpu avx512f avx512_bf16\n")
    assert has_bfloat16(told) is True and not lacks_bfloat16(told)
