import pytest

from colpipe.architectures import GPT2, family_of
from colpipe.errors import ColpipeError
from tests.conftest import make_gpt2


def test_the_table_names_every_tensor_with_its_size(tmp_path):
    model = make_gpt2(tmp_path, layers=3, heads=2, hidden=8, seed=0)
    sizes = GPT2.sizes(model.config.to_dict())
    table = GPT2.tensor_axes(3)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}  # tied
    assert set(table) == set(tensors)
    for name, axes in table.items():
        groups = axes.replace("(", "( ").replace(")", " )").split()
        shape, product, inside = [], 1, False
        for word in groups:
            if word == "(":
                inside, product = True, 1
            elif word == ")":
                inside = False
                shape.append(product)
            elif inside:
                product *= sizes[word]
            else:
                shape.append(sizes[word])
        assert tuple(shape) == tuple(tensors[name].shape), name
    assert GPT2.parameters(sizes) == model.num_parameters()


def test_an_unknown_family_is_named():
    with pytest.raises(ColpipeError, match=r"x/config.json: model_type 'bert' has no axis table; known are gpt2"):
        family_of({"model_type": "bert"}, "x/config.json")
