"""What neighbours must agree on, so that a mixture of their weights means something: all but their sizes."""

from collections.abc import Mapping, Sequence

from colpipe.errors import ColpipeError
from colpipe.learngene.stored import complete_config, rotations
from colpipe.learngene.weights import Weights

# Keys that do not change what a model computes from its weights, or that are compared apart. Every other key that the class
# in transformers has counts, those of a later version too; what a file says beside them is not read by the model.
BOOKKEEPING = {
    *("_name_or_path", "architectures", "dtype", "transformers_version", "model_type"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type"),
    *("return_dict", "output_attentions", "output_hidden_states", "use_cache", "chunk_size_feed_forward", "is_decoder"),
    *("initializer_range", "pretraining_tp"),
    "reorder_and_upcast_attn",  # the same sums in another order
    *("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout", "classifier_dropout"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
    *("tie_word_embeddings", "layer_types", "use_sliding_window", "max_window_layers"),
    *("no_rope_layers", "no_rope_layer_interval", "_sliding_window_pattern"),
}
SAME_FUNCTION = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_pytorch_tanh"),
    "gelu_python": "gelu",
    "swish": "silu",
}
ROPE_USUAL = {"rope_type": "default", "partial_rotary_factor": 1.0}
YARN_USUAL = {"beta_fast": 32, "beta_slow": 1, "truncate": True}


def require_alike(smaller: Weights, larger: Weights, grown: bool = False) -> None:
    """Refuse neighbours whose weights mean different things.

    Args:
        grown: whether the smaller is grown losslessly, which makes up for another epsilon of the norms.

    Raises:
        ColpipeError: names both, the key and both values.
    """
    if smaller.family.name != larger.family.name:
        raise ColpipeError(
            f"{smaller.name} is {smaller.family.name}, {larger.name} is {larger.family.name}: neighbours share a family"
        )
    if larger.tied and not smaller.tied:
        raise ColpipeError(
            f"{larger.name} ties its head to the embedding, {smaller.name} does not: neighbours must agree"
        )
    ignored = {larger.family.epsilon(larger.config)[0]} if grown else set()
    one, other = _arithmetic(smaller), _arithmetic(larger)
    for key in sorted({*one, *other} - ignored):
        if one.get(key) != other.get(key):
            raise ColpipeError(
                f"{key} is {one.get(key)} in {smaller.name}, {other.get(key)} in {larger.name}: neighbours must agree"
            )


def _arithmetic(weights: Weights) -> dict[str, object]:
    """Key → value of everything that decides what a model computes, beside sizes and kinds of layers."""
    known = set(complete_config({"model_type": weights.family.name}, weights.name))
    known -= BOOKKEEPING | {*weights.family.keys.values(), *weights.family.aliases}
    found = {key: value for key, value in weights.config.items() if key in known}
    for key in ("hidden_act", "activation_function", "hidden_activation"):
        if key in found:
            found[key] = SAME_FUNCTION.get(str(found[key]), found[key])
    if isinstance(rope := found.get("rope_parameters"), Mapping):
        each = {kind: _rotations(one) for kind, one in rotations(rope).items()}
        found["rope_parameters"] = each.get("", each)
    kinds = weights.config.get("layer_types")
    if kinds and "sliding_attention" not in kinds:  # a family without kinds has its window everywhere
        found.pop("sliding_window", None)
    return {key: value for key, value in found.items() if value not in (None, False)}


def _rotations(rope: Mapping) -> dict[str, object]:
    """What of `rope_parameters` counts, with the values that transformers takes for what is left out."""
    found = {**ROPE_USUAL, **{key: value for key, value in rope.items() if value is not None}}
    if found["rope_type"] == "linear" and found.get("factor") == 1:
        found["rope_type"] = "default"
    if found["rope_type"] == "default":
        return {key: value for key, value in found.items() if key in (*ROPE_USUAL, "rope_theta")}
    return {**YARN_USUAL, **found} if found["rope_type"] == "yarn" else found


def require_same_kinds(
    smaller: Weights, theirs: Sequence[int | None], larger: Weights, layers: Sequence[int | None]
) -> None:
    """Refuse to mix layers that attend in different ways, in a window and everywhere.

    Args:
        theirs, layers: for each layer of the target, that of the smaller and that of the larger; None where there is none.

    Raises:
        ColpipeError: names both layers and their kinds.
    """
    for key in larger.family.per_layer:
        small, large = (weights.config.get(key) for weights in (smaller, larger))
        if not small or not large:
            continue
        for one, other in zip(theirs, layers, strict=True):
            if one is not None and other is not None and small[one] != large[other]:
                raise ColpipeError(
                    f"{key} is {small[one]} for layer {one} of {smaller.name}, {large[other]} for layer {other} of "
                    f"{larger.name}, and the two would be mixed: neighbours must agree"
                )
