"""What is chosen where there is loss, against masks, in value and gradient."""

import torch

from colpipe.data.tokens import IGNORE
from colpipe.training.projection import all_places, chosen, loss_places, project
from tests.conftest import make_gpt2

LABELS = torch.tensor([[5, 6, IGNORE, 7], [IGNORE, IGNORE, 8, IGNORE], [IGNORE] * 4])


def test_places_are_those_of_a_mask():
    predicts = LABELS[:, 1:] != IGNORE
    places = loss_places(LABELS)
    hidden = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chosen(hidden, places), hidden[:, :-1][predicts])
    assert torch.equal(chosen(LABELS, places + 1), LABELS[:, 1:][predicts])
    assert places.tolist() == [0, 2, 5]


def test_gradients_are_those_of_a_mask_to_the_last_bit():
    hidden = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours = torch.autograd.grad(chosen(hidden, loss_places(LABELS)).sin().sum(), hidden)[0]
    theirs = torch.autograd.grad(hidden[:, :-1][LABELS[:, 1:] != IGNORE].sin().sum(), hidden)[0]
    assert torch.equal(ours, theirs)


def test_rows_with_loss_everywhere_and_nowhere(tmp_path):
    ids = torch.arange(12).view(3, 4)
    assert torch.equal(all_places(ids), loss_places(ids))
    model = make_gpt2(tmp_path, 1, 1, 8, seed=0)
    assert project(model, {"input_ids": ids}, all_places(ids)).hidden.shape == (9, 8)
    assert project(model, {"input_ids": ids}, loss_places(torch.full_like(ids, IGNORE))).hidden.shape == (0, 8)
