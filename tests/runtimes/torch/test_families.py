"""Models of other people, built from small configurations: opened, captured, called again; every
value is that of a plain hook, and the model gives the same bits as before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layertap

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SMALL, "intermediate_size": 40, "vocab_size": 99, "pad_token_id": 0}
VISION = {**SMALL, "intermediate_size": 37, "image_size": 32, "patch_size": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
SEQ2SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 99, **ENDS}
SEQ2SEQ |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
SEQ2SEQ |= {"encoder_ffn_dim": 37, "decoder_ffn_dim": 37}
SPEECH = {**SMALL, "intermediate_size": 37, "conv_dim": (8, 8), "conv_stride": (4, 4)}
SPEECH |= {"conv_kernel": (8, 8), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4}
SPEECH |= {"num_conv_pos_embedding_groups": 2}
CONV = {"hidden_sizes": [8, 16], "depths": [1, 1]}


def words() -> dict[str, Any]:
    return {"input_ids": torch.randint(5, 90, (3, 7))}


def pairs() -> dict[str, Any]:
    return {**words(), "decoder_input_ids": torch.randint(5, 90, (3, 5))}


def images() -> dict[str, Any]:
    return {"pixel_values": torch.rand(3, 3, 32, 32)}


def sounds() -> dict[str, Any]:
    return {"input_values": torch.rand(3, 400)}


def spectra() -> dict[str, Any]:
    return {"input_features": torch.rand(3, 8, 32), "decoder_input_ids": pairs()["input_ids"]}


FAMILIES: dict[str, tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = {
    "Bert": (TEXT, words),
    "Roberta": (TEXT, words),
    "Electra": ({**TEXT, "embedding_size": 16}, words),
    "GPT2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}, words),
    "GPTNeoX": (TEXT, words),
    "Llama": (TEXT, words),
    "Mistral": ({**TEXT, "num_key_value_heads": 2}, words),
    "Qwen2": ({**TEXT, "num_key_value_heads": 2}, words),
    "Mixtral": ({**TEXT, "num_key_value_heads": 2, "num_local_experts": 4}, words),
    "Mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99}, words),
    "T5": (T5, pairs),
    "SwitchTransformers": ({**T5, "num_experts": 4}, pairs),
    "Bart": (SEQ2SEQ, pairs),
    "Whisper": ({**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 16}, spectra),
    "ViT": (VISION, images),
    "DINOv3ViT": (VISION, images),
    "Beit": (VISION, images),
    "Data2VecVision": (VISION, images),
    "Swin": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2],
         "num_heads": [2, 2], "window_size": 4}, images,
    ),
    "ResNet": ({**CONV, "embedding_size": 8, "layer_type": "basic"}, images),
    "ConvNext": ({**CONV, "num_stages": 2}, images),
    "Wav2Vec2": (SPEECH, sounds),
    "Data2VecAudio": (SPEECH, sounds),
}  # fmt: skip


def make(family: str) -> tuple[Any, dict[str, Any]]:
    settings, inputs = FAMILIES[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = getattr(T, f"{family}Model")(getattr(T, f"{family}Config")(**settings))
    return net.eval(), inputs()


def tensors(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in tensors(item)]
    return []


def hooked(net: Any, x: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The first tensor that each module returns in its first call, and the model's output."""
    seen: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def keep(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                seen.setdefault(name, output.clone())

        return keep

    handles = [m.register_forward_hook(hook(name)) for name, m in net.named_modules() if name]
    with torch.no_grad():
        output = tensors(net(**x))
    for handle in handles:
        handle.remove()
    return seen, output


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(family: str) -> None:
    torch.manual_seed(0)
    net, x = make(family)
    with torch.no_grad():
        before = tensors(net(**x))
    with layertap.open(net) as model:
        first = model.capture(x)
        second = model.capture([x, x])
    expected, after = hooked(net, x)
    assert all(map(torch.equal, before, after))
    compared = 0
    for name in expected.keys() & first.keys():
        tap, raw = first[name].tap, np.asarray(first[name].raw)
        value = raw[0] if tap.per == "batch" else np.moveaxis(raw, 0, tap.batch_axis)
        np.testing.assert_array_equal(value, expected[name].numpy(), name)
        rows = np.asarray(second[name].raw)
        np.testing.assert_array_equal(rows, np.concatenate([raw, raw]), name)
        compared += 1
    assert compared > 5
