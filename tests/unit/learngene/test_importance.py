"""What a model can spare: measured, and an equivalent model in that order."""

import copy
from contextlib import suppress
from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM

from colpipe.errors import ColpipeError
from colpipe.learngene.importance import measure, reorder, signal_gain
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights
from tests.unit.learngene.tiny import GROUPED, IDS, distance


@pytest.fixture
def importance(neighbours):
    return measure(neighbours.large, [IDS])


def test_rank_permutes_and_keeps_the_function(neighbours, importance):
    assembly = reorder(neighbours.weights[1], importance, "rank")
    assert distance(assembly.load(), neighbours.large) < 1e-4
    assert assembly.tied == assembly.config["tie_word_embeddings"] == neighbours.architecture.is_tied
    assert assembly.sizes == neighbours.weights[1].sizes


def test_after_rank_the_leading_indices_are_the_important_ones(neighbours, importance):
    again = measure(reorder(neighbours.weights[1], importance, "rank").load(), [IDS])
    for before, after in ((importance.heads, again.heads), (importance.ffn, again.ffn)):
        torch.testing.assert_close(after, before.sort(1, descending=True).values)
    channels = importance.covariance.diagonal().sort(descending=True).values
    torch.testing.assert_close(again.covariance.diagonal(), channels, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.layers, importance.layers)
    assert reorder(neighbours.weights[1], importance, "rank").details["ranking"] == again.ranking()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", GROUPED)
def test_rotate_keeps_the_function_with_a_head_of_its_own(neighbours_of, family, tied, tmp_path):
    neighbours = neighbours_of(family, tied)
    assembly = reorder(neighbours.weights[1], measure(neighbours.large, [IDS]), "rotate")
    assert not assembly.tied and not assembly.config["tie_word_embeddings"]
    assert distance(assembly.load(), neighbours.large) < 1e-4
    assembly.write(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.get_output_embeddings().weight is not read.get_input_embeddings().weight
    assert distance(read, neighbours.large) < 1e-4
    again = measure(read, [IDS]).covariance  # its channels are the principal components
    assert (again - again.diagonal().diag()).abs().max() < 1e-3
    assert (again.diagonal().diff() < 1e-3).all()


@pytest.mark.parametrize("family", GROUPED)
def test_a_rotation_tied_again_says_so(neighbours_of, family):
    neighbours = neighbours_of(family, True)
    assembly = reorder(neighbours.weights[1], measure(neighbours.large, [IDS]), "rotate", tied=True)
    assert assembly.tied and assembly.config["tie_word_embeddings"]
    model = assembly.load()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert 1e-3 < distance(model, neighbours.large) < 1  # not exact, and not another model


@pytest.mark.parametrize("family", GROUPED)
def test_a_rotation_tied_again_is_exact_where_the_final_norm_has_one_gain(neighbours_of, family):
    model = copy.deepcopy(neighbours_of(family, True).large)
    torch.nn.init.constant_(model.model.norm.weight, 1.5)
    assembly = reorder(Weights(model), measure(model, [IDS]), "rotate", tied=True)
    assert distance(assembly.load(), model) < 1e-4


@pytest.mark.parametrize("select", ["rank", "rotate"])
def test_a_head_of_its_own_is_not_tied_silently(llama, select):
    with pytest.raises(ColpipeError, match=r"large: its head is not tied to the embedding"):
        reorder(llama.weights[1], measure(llama.large, [IDS]), select, tied=True)


def test_rank_may_untie(neighbours_of):
    neighbours = neighbours_of("qwen3", True)
    assembly = reorder(neighbours.weights[1], measure(neighbours.large, [IDS]), "rank", tied=False)
    assert distance(assembly.load(), neighbours.large) < 1e-4
    assert not assembly.tied


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_rotate_is_refused_where_norms_subtract_the_mean(neighbours_of, family):
    neighbours = neighbours_of(family, True)
    with pytest.raises(ColpipeError, match=f"select 'rotate': {family} has LayerNorm"):
        reorder(neighbours.weights[1], measure(neighbours.large, [IDS]), "rotate")


def test_energy_is_the_share_of_the_leading_channels(neighbours, importance):
    energy = reorder(neighbours.weights[1], importance, "rank").details["energy"]
    assert len(energy) == 16 and energy == sorted(energy) and energy[-1] == 1
    shares = [after - before for before, after in pairwise([0, *energy])]
    assert all(before >= after - 2e-6 for before, after in pairwise(shares))  # rounded to 6 digits


def test_channels_are_measured_as_the_norm_sees_them(neighbours, importance):
    covariance = importance.covariance
    assert covariance.trace().item() == pytest.approx(len(covariance), rel=1e-4)  # of unit mean square
    if neighbours.weights[0].family.norm == "layer":
        assert covariance.sum(1).abs().max() < 1e-4  # and of mean 0


def test_what_writes_nothing_comes_last(llama):
    model = copy.deepcopy(llama.large)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 8:16] = 0  # the second group: 2 query heads of 4 channels
        model.model.layers[2].mlp.up_proj.weight[7] = 0
        model.model.layers[3].self_attn.o_proj.weight.zero_()
        model.model.layers[3].mlp.down_proj.weight.zero_()
    importance = measure(model, [IDS[:1], IDS[1:]])
    assert importance.heads[1].argmin() == 1 and importance.heads[1, 1] == 0
    assert importance.ffn[2].argmin() == 7 and importance.ffn[2, 7] == 0
    assert importance.ranking()[-1] == 3 and importance.layers[3] < 1e-6
    kept = take_subset(Weights(model), llama.sizes(4, 4, 40), "rank", importance.ranking())
    assert kept.details["layer_map"] == [0, 1, 2, 4]
    assert distance(kept.load(), model) < 1e-5


def test_batches_add_up(gpt2):
    whole, parts = measure(gpt2.large, [IDS]), measure(gpt2.large, [IDS[:1], IDS[1:]])
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(parts, name), value)
    with pytest.raises(ColpipeError, match="no tokens to measure it on"):
        measure(gpt2.large, [])


def test_a_model_in_training_is_measured_without_dropout_and_goes_on_training(gpt2):
    model = copy.deepcopy(gpt2.large).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    found, wanted = measure(model, [IDS]), measure(gpt2.large, [IDS])
    assert model.training
    for name, value in vars(wanted).items():
        torch.testing.assert_close(getattr(found, name), value)


def test_activations_whose_squares_do_not_add_up_are_refused(llama):
    model = copy.deepcopy(llama.large)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight.mul_(1e25)
        model.model.layers[2].mlp.down_proj.weight.zero_()
    with pytest.raises(ColpipeError, match="layer 2: its activations are too large to be ranked"):
        measure(model, [IDS])


@pytest.mark.parametrize("ids", [IDS, IDS + 10**6], ids=["measured", "failed"])
def test_measuring_leaves_no_hooks(gpt2, ids):
    def hooks() -> list[int]:
        return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in gpt2.large.modules()]

    before = hooks()  # what counts the model's calls
    with suppress(ColpipeError):
        measure(gpt2.large, [ids])
    assert hooks() == before


def test_kept_signal_makes_up_for_channels_that_carry_little():
    even, steep = [0.25, 0.5, 0.75, 1.0], [0.7, 0.9, 0.98, 1.0]
    assert signal_gain(even, 4, 2) == 1.0
    assert signal_gain(steep, 4, 2) == pytest.approx((0.9 / 0.5) ** 0.5)
    assert signal_gain(steep, 3, 2) == pytest.approx((0.9 / 0.98 * 3 / 2) ** 0.5)  # cut once already
    assert signal_gain(None, 4, 2) == signal_gain(steep, 4, 4) == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_model_on_a_gpu_is_measured_there(gpt2):
    on_cpu, on_gpu = measure(gpt2.large, [IDS]), measure(copy.deepcopy(gpt2.large).cuda(), [IDS])
    for name, value in vars(on_cpu).items():
        torch.testing.assert_close(getattr(on_gpu, name).cpu(), value, rtol=1e-3, atol=1e-3)
