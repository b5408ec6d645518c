"""Places in transformers' Trainer that training relies on: each is there. test_distillation.py shows that each is called."""

import inspect

import pytest
from transformers import Trainer

from colpipe.training.resumable import RemembersBatch
from colpipe.training.rollout_trainer import RolloutTrainer
from colpipe.training.trainer import ObjectiveTrainer

# Private methods that are overridden or called, with the parameters that transformers gives them. When a new release
# changes one, this fails before a training does: read what became of it, then pin the new one.
PRIVATE = {
    "_get_train_sampler": ["self", "train_dataset"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_prepare_inputs": ["self", "inputs"],
    "_save_checkpoint": ["self", "model", "trial"],
}
# Public ones that are overridden with other bodies, which the training loop must go on calling.
PUBLIC = {
    "create_scheduler": ["self", "num_training_steps", "optimizer"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
}


@pytest.mark.parametrize(("name", "parameters"), [*PRIVATE.items(), *PUBLIC.items()])
def test_transformers_has_it(name, parameters):
    assert list(inspect.signature(getattr(Trainer, name)).parameters) == parameters


def test_no_other_private_method_is_overridden():
    private = {name for name in vars(Trainer) if name.startswith("_") and not name.startswith("__")}
    for trainer in (RemembersBatch, ObjectiveTrainer, RolloutTrainer):
        assert private & set(vars(trainer)) <= set(PRIVATE), trainer
