"""Checkpoints as they are loaded: weights read safely, heads tied or not, rows for tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.errors import RunError, UnfitError
from dialsum.models.checkpoint import refuse_foreign_tokenizer
from dialsum.models.families import FAMILIES, HEAD_WEIGHT
from dialsum.models.load import find_weight_problems, load_model, open_checkpoint, prepare_tokenizer
from dialsum.models.save import save_weights
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from small_models import (
    KINDS,
    SPARE_ROWS,
    UNTIED,
    Checkpoints,
    Malicious,
    make_config,
    read_weights,
    write_checkpoint,
)

pytestmark = pytest.mark.training

SORTS = list(KINDS)
FOUR_BIT = {"use_qlora": True, "load_in_4bit": True}
FIFTEEN = STANDARD_DIALOGUE_TOKENS[:15]
"""More than the spare rows: the embeddings have to grow."""
EMBEDDINGS = {
    "mt5": "shared.weight",
    "t5": "shared.weight",
    "t5_v1_1": "shared.weight",
    "bart": "model.shared.weight",
}


def load(
    folder: Path, sort: str, tokens: tuple[str, ...] = (), **sections: Any
) -> tuple[Any, Any, list[str]]:
    """Load a folder as an experiment does: tokenizer, tokens added, model."""
    import torch

    tokenizer = load_tokenizer(folder)
    new = add_dialogue_tokens(tokenizer, tokens) if tokens else []
    config = make_config(sort, folder, **sections)
    model = load_model(
        open_checkpoint(config),
        config=config,
        tokenizer=tokenizer,
        new_tokens=new,
        device="cpu",
        dtype=torch.float32,
    )
    return model, tokenizer, new


def rows_of(model: Any) -> tuple[Any, Any]:
    """Return the weights of input embeddings and head."""
    return (
        model.get_input_embeddings().weight.detach(),
        model.get_output_embeddings().weight.detach(),
    )


def check_old_rows(model: Any, sort: str, folder: Path, *, pieces: int) -> None:
    """Hold embeddings and head against the checkpoint's file, a row for each of its pieces."""
    import torch

    state = read_weights(folder)
    embeddings, head = rows_of(model)
    assert torch.equal(embeddings[:pieces], state[EMBEDDINGS[sort]][:pieces])
    assert model.config.tie_word_embeddings == (sort not in UNTIED)
    if sort in UNTIED:
        assert torch.equal(head[:pieces], state["lm_head.weight"][:pieces])
        assert not torch.allclose(head[:pieces], embeddings[:pieces], atol=0.1)
    else:
        assert head.data_ptr() == embeddings.data_ptr()


@pytest.mark.parametrize("qlora", [{}, FOUR_BIT], ids=["float", "4-bit"])
@pytest.mark.parametrize("sort", SORTS)
def test_old_rows_stay_when_tokens_are_added(
    sort: str, qlora: dict[str, bool], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(sort)
    model, tokenizer, new = load(folder, sort, FIFTEEN, qlora=qlora)
    assert len(new) >= 15
    assert len(rows_of(model)[0]) == len(rows_of(model)[1]) == len(tokenizer)
    assert bool(getattr(model, "is_loaded_in_4bit", False)) == bool(qlora)
    check_old_rows(model, sort, folder, pieces=len(tokenizer) - len(new))
    if not qlora:
        check_after_saving(model, tokenizer, sort, tmp_path / "saved")


def check_after_saving(model: Any, tokenizer: Any, sort: str, folder: Path) -> None:
    """Save a model, load it again, in 4 bits too, and hold it against what it was."""
    import torch

    save_weights(model, folder)
    assert not list(folder.glob("*.bin"))
    tokenizer.save_pretrained(folder)
    for qlora in ({}, FOUR_BIT):
        again, _, new = load(folder, sort, FIFTEEN, qlora=qlora)
        assert new == []
        check_old_rows(again, sort, folder, pieces=len(tokenizer))
        for before, after in zip(rows_of(model), rows_of(again), strict=True):
            assert torch.equal(before, after)


@pytest.mark.parametrize("sort", SORTS)
def test_a_model_with_spare_rows_never_shrinks(sort: str, checkpoints: Checkpoints) -> None:
    folder = checkpoints(sort)
    tokens = STANDARD_DIALOGUE_TOKENS[:3]
    model, tokenizer, new = load(folder, sort, tokens)
    rows = len(read_weights(folder)[EMBEDDINGS[sort]])
    assert rows == len(load_tokenizer(folder)) + SPARE_ROWS
    assert len(tokenizer) == rows - SPARE_ROWS + len(new) < rows
    assert len(rows_of(model)[0]) == len(rows_of(model)[1]) == rows
    assert model.config.tie_word_embeddings == (sort not in UNTIED)


def check_new_rows(model: Any, tokenizer: Any, new: list[str], sort: str, folder: Path) -> None:
    """Hold the rows of new tokens against the mean of what spelled them, each piece once."""
    import torch

    state = read_weights(folder)
    embeddings, head = rows_of(model)
    pairs = [(embeddings, state[EMBEDDINGS[sort]])]
    if sort in UNTIED:
        pairs.append((head, state["lm_head.weight"]))
    spelling = load_tokenizer(folder).backend_tokenizer.model
    for token in new:
        pieces = spelling.tokenize(token)
        assert "".join(piece.value for piece in pieces) == token
        ids = sorted({piece.id for piece in pieces})
        for weight, old in pairs:
            row = weight[tokenizer.convert_tokens_to_ids(token)]
            assert torch.allclose(row, old[ids].mean(dim=0), atol=1e-6)
            assert not torch.allclose(row, old.mean(dim=0), atol=1e-2)


@pytest.mark.parametrize("sort", SORTS)
def test_new_rows_start_as_the_mean_of_their_pieces(sort: str, checkpoints: Checkpoints) -> None:
    folder = checkpoints(sort)
    words = ("약속장소", "도서관에서")
    model, tokenizer, new = load(folder, sort, words)
    assert new[:2] == list(words)
    check_new_rows(model, tokenizer, new[:2], sort, folder)


def test_a_token_without_pieces_starts_as_the_mean_of_all(checkpoints: Checkpoints) -> None:
    import torch

    folder = checkpoints("mt5")
    model, tokenizer, new = load(folder, "mt5", ("#Person1#",))
    assert new == ["#Person1#", "\n"]
    old = read_weights(folder)["shared.weight"][: len(tokenizer) - 2]
    row = rows_of(model)[0][tokenizer.convert_tokens_to_ids("\n")]
    assert torch.allclose(row, old.mean(dim=0), atol=1e-6)


@pytest.mark.parametrize(
    ("sort", "name", "pieces"), [("mt5", "mt5", 250_100), ("bart", "kobart", 30_000)]
)
def test_real_tokenizers_fit_spare_rows_and_grow_beyond(
    sort: str, name: str, pieces: int, shared_dir: Path, tmp_path: Path
) -> None:
    import torch

    tokenizer = load_tokenizer(shared_dir / "tokenizers" / name)
    write_checkpoint(tmp_path, sort, tokenizer=tokenizer, width=4)
    state = read_weights(tmp_path)
    old = state[EMBEDDINGS[sort]]
    assert len(old) == pieces + SPARE_ROWS
    config = make_config(sort, tmp_path)
    new: list[str] = []
    for tokens in (FIFTEEN[:3], FIFTEEN):
        new += add_dialogue_tokens(tokenizer, tokens)
        model = load_model(
            open_checkpoint(config),
            config=config,
            tokenizer=tokenizer,
            new_tokens=new,
            device="cpu",
            dtype=torch.float32,
        )
        # Rows beyond the pieces were never one's: the first new tokens take them.
        assert len(tokenizer) == pieces + len(new)
        assert len(rows_of(model)[0]) == len(rows_of(model)[1]) == max(len(old), len(tokenizer))
        check_old_rows(model, sort, tmp_path, pieces=pieces)
    assert len(new) >= 15
    tags = [token for token in new if token != "\n"]
    check_new_rows(model, tokenizer, tags, sort, tmp_path)


@pytest.mark.parametrize("sort", SORTS)
def test_model_and_tokenizer_agree_on_padding_and_end(sort: str, checkpoints: Checkpoints) -> None:
    model, tokenizer, _ = load(checkpoints(sort), sort)
    for said in (model.config, model.generation_config):
        assert said.pad_token_id == tokenizer.pad_token_id
        assert said.eos_token_id == tokenizer.eos_token_id


def test_dropout_of_the_config_arrives(checkpoints: Checkpoints) -> None:
    import torch

    for sort in SORTS:
        model, _, _ = load(checkpoints(sort), sort, model={"dropout": 0.37})
        layers = [one for one in model.modules() if isinstance(one, torch.nn.Dropout)]
        rates = {one.p for one in layers} or {model.config.dropout}
        assert 0.37 in rates


def test_pytorch_model_bin_is_read_and_said(checkpoints: Checkpoints) -> None:
    import torch

    for sort in SORTS:
        folder, plain = checkpoints(sort, "pytorch_model.bin"), checkpoints(sort)
        model, _, _ = load(folder, sort)
        same, _, _ = load(plain, sort)
        formats = [open_checkpoint(make_config(sort, one)).weights for one in (folder, plain)]
        assert formats == ["pytorch_model.bin", "safetensors"]
        for name, weight in same.state_dict().items():
            assert torch.equal(weight, model.state_dict()[name]), name


@pytest.fixture
def malicious(checkpoints: Checkpoints, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint whose pytorch_model.bin runs a command, and the file that command makes."""
    import torch

    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(checkpoints("t5"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Malicious(marker)}, folder / "pytorch_model.bin")
    # The command does run where nobody looks out for it.
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert marker.exists()
    marker.unlink()
    return folder, marker


def test_a_malicious_pickle_does_not_run(malicious: tuple[Path, Path]) -> None:
    folder, marker = malicious
    with pytest.raises(RunError, match="could not be loaded") as caught:
        load(folder, "t5")
    assert str(folder) in str(caught.value)
    assert "holds more than weights" in str(caught.value)
    # The library's advice would be to read it all the same.
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()


def test_safetensors_go_before_a_pickle(
    malicious: tuple[Path, Path], checkpoints: Checkpoints
) -> None:
    folder, marker = malicious
    shutil.copy(checkpoints("t5") / "model.safetensors", folder)
    load(folder, "t5")
    assert not marker.exists()


def test_damaged_weights_are_said(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints("t5"), folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnfitError, match="where its header states") as caught:
        load(folder, "t5")
    assert str(folder) in str(caught.value)


def absent(*names: str) -> dict[str, Any]:
    """Return the library's report of a load that lacked these weights."""
    return {"missing_keys": set(names), "unexpected_keys": set(), "mismatched_keys": set()}


T5_PLACES, BART_PLACES = FAMILIES["t5"].embeddings, FAMILIES["bart"].embeddings


@pytest.mark.parametrize(
    ("family", "tied", "report", "said"),
    [
        ("t5", None, absent(), None),
        ("t5", None, absent(*T5_PLACES[1:], HEAD_WEIGHT), None),
        ("t5", True, absent(*T5_PLACES[:2]), None),
        ("bart", None, absent(*BART_PLACES[1:], HEAD_WEIGHT, "final_logits_bias"), None),
        ("bart", False, absent(*BART_PLACES[1:]), None),
        ("bart", False, absent(HEAD_WEIGHT), "1 absent (lm_head.weight)"),
        ("mt5", False, absent(HEAD_WEIGHT), "1 absent (lm_head.weight)"),
        ("mt5", None, absent(*T5_PLACES, HEAD_WEIGHT), "3 absent (decoder.embed_tokens.weight"),
        # What one family builds anew, another does not.
        ("t5", None, absent("final_logits_bias"), "1 absent (final_logits_bias)"),
        ("t5", None, absent("a", "b", "c", "d", "e"), "5 absent (a, b, c and 2 more)"),
        ("bart", None, absent() | {"unexpected_keys": {"model.encoder.version"}}, None),
        ("t5", None, absent() | {"unexpected_keys": {"model.encoder.version"}}, "1 unused"),
        (
            "t5",
            None,
            absent()
            | {
                "unexpected_keys": {
                    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
                }
            },
            None,
        ),
        (
            "t5",
            None,
            absent() | {"mismatched_keys": {("shared.weight", (9, 4), (8, 4))}},
            "1 of another size (shared.weight (9 x 4 in the file, 8 x 4 by config.json))",
        ),
        # A layer too many and a layer too few are no prefix.
        (
            "t5",
            None,
            absent("encoder.block.1.q.weight") | {"unexpected_keys": {"decoder.block.2.q.weight"}},
            "1 absent (encoder.block.1.q.weight); 1 unused",
        ),
        (
            "bart",
            None,
            absent("model.encoder.fc1.bias")
            | {"unexpected_keys": {"net.m.encoder.fc1.bias", "net.m.final_logits_bias"}},
            "begin with 'net.m.'",
        ),
    ],
)
def test_which_weights_a_file_may_lack_or_hold_besides(
    family: str, tied: bool | None, report: dict[str, Any], said: str | None
) -> None:
    own = {} if tied is None else {"tie_word_embeddings": tied}
    found = find_weight_problems(report, family=FAMILIES[family], own=own)
    assert (found is None) if said is None else (found is not None and said in found)


Weights = dict[str, Any]


def halve_a_layer(state: Weights) -> Weights:
    """Cut the columns of one linear layer of the blocks."""
    ends = ("wi.weight", "wi_0.weight", "fc1.weight")
    name = next(name for name in sorted(state) if name.endswith(ends))
    return state | {name: state[name][:, ::2].contiguous()}


TORN: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "wrapped": (
        lambda state: {f"module.{name}": one for name, one in state.items()},
        "begin with 'module.'",
    ),
    "without a decoder": (
        lambda state: {name: one for name, one in state.items() if "decoder." not in name},
        "absent",
    ),
    "without embeddings": (
        lambda state: {name: one for name, one in state.items() if "shared" not in name},
        "3 absent",
    ),
    "a layer too many": (
        lambda state: (
            state
            | {
                name.replace(".0.", ".7.", 1): one.clone()
                for name, one in state.items()
                if "decoder." in name
            }
        ),
        "unused",
    ),
    "a narrow layer": (halve_a_layer, "1 of another size"),
    "rows too few": (
        lambda state: (
            state | {name: one[:-3].contiguous() for name, one in state.items() if "shared" in name}
        ),
        "1 of another size",
    ),
}
BITS = {
    "float": {},
    "4-bit": FOUR_BIT,
    "8-bit": {"use_qlora": True, "load_in_4bit": False, "load_in_8bit": True},
}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("fault", TORN)
@pytest.mark.parametrize(
    ("sort", "file"), [("mt5", "pytorch_model.bin"), ("t5", "safetensors"), ("bart", "safetensors")]
)
def test_weights_that_do_not_fit_are_refused(
    sort: str, file: str, fault: str, bits: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    shutil.copytree(checkpoints(sort, file), folder)
    tear, said = TORN[fault]
    state = tear(read_weights(folder))
    if file == "safetensors":
        save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    else:
        torch.save(state, folder / file)
    with pytest.raises(RunError, match=said) as caught:
        load(folder, sort, qlora=BITS[bits])
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
def test_bart_finds_its_embeddings_whatever_its_config_says_of_ties(
    tied: bool, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    shutil.copytree(checkpoints("bart"), folder)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["tie_word_embeddings"] = tied
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    state = read_weights(folder)
    shared = state["model.shared.weight"]
    if not tied:
        state["lm_head.weight"] = shared + 1.0
        save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    model, _, _ = load(folder, "bart")
    for stack in (model.get_encoder(), model.get_decoder()):
        assert torch.equal(stack.embed_tokens.weight, shared)
    assert model.config.tie_word_embeddings is tied
    assert torch.equal(rows_of(model)[1], shared if tied else shared + 1.0)


def give_own_head(folder: Path) -> None:
    """Untie the head of a checkpoint on disk, in its weights and in its config.json."""
    from safetensors.torch import save_file

    state = read_weights(folder)
    head = next(one for name, one in state.items() if name.endswith("shared.weight")) + 1.0
    save_file(
        state | {HEAD_WEIGHT: head}, str(folder / "model.safetensors"), metadata={"format": "pt"}
    )
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"tie_word_embeddings": False}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("own_head", [False, True], ids=["as it is", "own head"])
@pytest.mark.parametrize("sort", SORTS)
def test_the_embeddings_are_found_under_whichever_name_the_file_keeps(
    sort: str, own_head: bool, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file, save_model

    folder = tmp_path / "model"
    shutil.copytree(checkpoints(sort), folder)
    if own_head:
        give_own_head(folder)
    original, _, _ = load(folder, sort)
    untied = own_head or sort in UNTIED
    assert original.config.tie_word_embeddings is not untied
    whole = {name: weight.clone() for name, weight in original.state_dict().items()}
    places = FAMILIES[sort.partition("_")[0]].embeddings
    file = str(folder / "model.safetensors")
    save_model(original, file, metadata={"format": "pt"})
    files = [read_weights(folder)]
    assert len({*places, HEAD_WEIGHT}.intersection(files[0])) == 1 + untied
    names = [(place,) for place in places] + [places[1:], places]
    names += [] if untied else [(HEAD_WEIGHT,), (HEAD_WEIGHT, places[1])]
    for held in names:
        kept = {*held, HEAD_WEIGHT} if untied else set(held)
        files.append(
            {
                name: one
                for name, one in whole.items()
                if name in kept or name not in {*places, HEAD_WEIGHT}
            }
        )
    for state in files:
        save_file(state, file, metadata={"format": "pt"})
        for bits in ({}, FOUR_BIT):
            again, _, _ = load(folder, sort, qlora=bits)
            found = again.state_dict()
            assert again.config.tie_word_embeddings is not untied
            for name in whole if not bits else (*places, HEAD_WEIGHT):
                assert torch.equal(found[name], whole[name]), name
            assert again.all_tied_weights_keys == original.all_tied_weights_keys


@pytest.mark.parametrize("sort", SORTS)
def test_a_stack_with_embeddings_of_its_own_keeps_them(
    sort: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    shutil.copytree(checkpoints(sort), folder)
    state = read_weights(folder)
    shared, encoder, decoder = FAMILIES[sort.partition("_")[0]].embeddings
    one = state.pop(shared)
    state |= {encoder: one, decoder: one * 2}
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    found = load(folder, sort)[0].state_dict()
    assert torch.equal(found[shared], one)
    assert torch.equal(found[encoder], one)
    assert torch.equal(found[decoder], one * 2)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("part", ["shared.weight", "fc1.weight", "layer_norm.bias"])
def test_weights_that_are_not_finite_are_refused_with_their_names(
    part: str, value: str, bits: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    shutil.copytree(checkpoints("bart"), folder)
    state = read_weights(folder)
    name = next(name for name in sorted(state) if name.endswith(part))
    state[name].view(-1)[5] = float(value)
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(RunError, match=f"1 of its weights hold NaN or infinity .{name}") as caught:
        load(folder, "bart", qlora=BITS[bits])
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("rows", "fits"), [(99, False), (100, True), (128, True)])
def test_a_tokenizer_with_more_pieces_than_rows_is_refused(rows: int, fits: bool) -> None:
    # Numbers may have gaps: the highest counts.
    vocabulary = {"a": 0, "b": 99}
    if fits:
        refuse_foreign_tokenizer(vocabulary, rows=rows, source="x")
        return
    with pytest.raises(UnfitError, match="up to number 99, but its embeddings have 99 rows"):
        refuse_foreign_tokenizer(vocabulary, rows=rows, source="x")


def test_a_run_refuses_the_tokenizer_of_another_checkpoint(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints("t5"), folder)
    larger = load_tokenizer(folder)
    larger.add_tokens([f"조각{number}" for number in range(SPARE_ROWS + 1)])
    larger.save_pretrained(folder)
    config = make_config("t5", folder)
    with pytest.raises(UnfitError, match="tokenizer and weights are of two checkpoints"):
        prepare_tokenizer(open_checkpoint(config), config, tags=[])
