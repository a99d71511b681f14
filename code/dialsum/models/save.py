"""The saved model of a run, and its way back: weights or adapter (safetensors), tokenizer, card.

The card's code needs nothing of this program. Must not know how a model was trained.

With qlora.train_embeddings, embeddings and norms of the base learn besides the adapters. PEFT's own
way for that, modules_to_save, copies each embedding and so cuts the tie between input embeddings
and head: a small model then has to learn every word twice. Here the weights themselves learn, and
ties stay; they are saved as modules_to_save, which PEFT alone loads.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dialsum.config.load import LoadedConfig
from dialsum.config.schema import Config
from dialsum.data.prompts import SUBJECT_MARK, Frame
from dialsum.errors import RunError, UnfitError
from dialsum.files import give_usual_mode, write_text
from dialsum.models.checkpoint import choose_files, fetch_folder, resolve_checkpoint, weight_files
from dialsum.models.load import load_model, open_checkpoint
from dialsum.models.tokenizers import load_tokenizer
from dialsum.paths import RunPaths
from dialsum.score.show import describe_measured
from dialsum.text import escape_in_quotes

ADAPTER_MARKS = ("lora_", "trainable_tokens_", "modules_to_save")


def save_weights(model: Any, folder: Path) -> None:
    """Write what learned into folder: an adapter with what of its base learned, or the whole model.

    PEFT would ask the hub whether the embeddings changed, and put them whole beside an adapter on
    them; neither is needed, since the base's rows, new ones too, are made again on loading.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        # Each place of a shared weight: loaded by PEFT, they are layers of their own. `shared`
        # computes nothing.
        trained = {
            name: parameter
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if parameter.requires_grad
            and not any(mark in name for mark in ADAPTER_MARKS)
            and not name.endswith("shared.weight")
        }
        tensors = {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in (tensors | trained).items()
        }
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        adapter = copy.copy(model.peft_config["default"])
        adapter.modules_to_save = sorted({name.split(".")[-2] for name in trained}) or None
        adapter.inference_mode = True
        adapter.save_pretrained(folder)
    else:
        # `tie_word_embeddings: false` would leave BART's stacks without embeddings (the file holds
        # the shared ones alone) and T5 v1's head without its scale. Under true the library ties
        # only what is absent or equal in the file, so a head of its own stays one.
        own = model.config
        said = own.tie_word_embeddings
        if own.model_type == "bart" or getattr(own, "scale_decoder_outputs", False):
            own.tie_word_embeddings = True
        try:
            model.save_pretrained(folder)
        finally:
            own.tie_word_embeddings = said
    for path in folder.glob("*.safetensors"):
        give_usual_mode(path)


def load_weights(model: Any, folder: Path) -> None:
    """Copy what save_weights wrote from folder back into the model that it was saved from.

    Raises:
        RunError: the files lack weights of the model, or hold others.
    """
    from safetensors.torch import load_file

    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(
            model, load_file(folder / "adapter_model.safetensors")
        )
        unknown, missing = found.unexpected_keys, []
    else:
        tensors = {
            name: tensor
            for file in sorted(folder.glob("model*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        found = model.load_state_dict(tensors, strict=False)
        named = dict(model.named_parameters(remove_duplicate=False))
        # A tied weight has several names, one of which is in the files.
        filled = {id(one) for name, one in named.items() if name in tensors}
        unknown = found.unexpected_keys
        missing = [
            one for one in found.missing_keys if one in named and id(named[one]) not in filled
        ]
    if unknown or missing:
        raise RunError(
            f"{folder}: is not of this model: lacks {missing[:3] or 'nothing'}, holds "
            f"{unknown[:3] or 'nothing'} beside it"
        )


def save_model(
    model: Any,
    tokenizer: Any,
    *,
    paths: RunPaths,
    loaded: LoadedConfig,
    best_step: int,
    new_tokens: Sequence[str],
    tags: Sequence[str],
    dtype: Any,
    frame: Frame | None = None,
) -> dict[str, Any]:
    """Write the best model of a run.

    Args:
        best_step: optimizer step of the checkpoint that the weights are of.
        new_tokens: tokens that the base does not have; their first rows are made again on loading.
        tags: tokens of the dialogues, which a search may repeat.
        dtype: torch dtype of weights that are not quantised.
        frame: of a decoder alone: what stands around each dialogue.

    Returns:
        What stands in model_info.json.
    """
    source = resolve_checkpoint(loaded.config.model.checkpoint)
    base = str(source.resolve()) if isinstance(source, Path) else source
    config = loaded.config.model_copy(
        update={"model": loaded.config.model.model_copy(update={"checkpoint": base})}
    )
    if config.qlora.use_qlora:
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = base
            adapter.revision = config.model.revision
    save_weights(model, paths.model)
    tokenizer.save_pretrained(paths.model)
    if config.qlora.use_qlora and isinstance(source, Path):
        _copy_tiny(source, paths.model / BASE, code=config.model.trust_remote_code)
    info = {
        "schema_version": 1,
        "experiment": loaded.name,
        "config_sha256": loaded.sha256,
        "architecture": config.model.architecture,
        "kind": "adapter" if config.qlora.use_qlora else "full",
        "base": base,
        "base_revision": config.model.revision,
        **({"base_sha256": hash_weights(source)} if isinstance(source, Path) else {}),
        "tokens_added": list(new_tokens),
        "tags": list(tags),
        "best_step": best_step,
        "dtype": str(dtype),
        **({} if frame is None else {"prompt": [frame.head, frame.tail]}),
        **({"subject_of": frame.subject_of} if frame and frame.subject_of else {}),
        "config": config.model_dump(mode="json"),
    }
    write_info(paths.model, info)
    return info


def _copy_tiny(source: Path, out: Path, *, code: bool) -> None:
    """Copy those of a checkpoint's files that a run reads, where they are small."""
    names = choose_files({path.name for path in source.iterdir()}, code=code)
    files = [source / name for name in names]
    if sum(file.stat().st_size for file in files) <= TINY_BYTES:
        out.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, out)


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """Write model_info.json, its nulls too: in the config they stand against the defaults."""
    text = json.dumps(info, ensure_ascii=False, indent=2, allow_nan=False)
    write_text(folder / "model_info.json", escape_in_quotes(text) + "\n")


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weight files."""
    digest = hashlib.sha256()
    for name in weight_files({path.name for path in folder.iterdir()}):
        with (folder / name).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def read_info(folder: Path) -> dict[str, Any]:
    """Return what stands in a saved model's model_info.json.

    Raises:
        UnfitError: the folder has none, so nothing whole was saved there.
    """
    path = folder / "model_info.json"
    if not path.is_file():
        raise UnfitError(f"{folder}: no model_info.json, so this is no finished model of a run")
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return info


def load_saved_model(
    folder: Path, *, config: Config, device: str, dtype: Any, with_adapter: bool = True
) -> tuple[Any, Any]:
    """Load a saved model for prediction, its base quantised as in the run.

    Args:
        folder: as save_model wrote it.
        config: the run's resolved config.
        with_adapter: put a saved adapter on its base.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        UnfitError: nothing whole was saved there, or its base is not there or has changed.
    """
    info, tokenizer = read_info(folder), load_tokenizer(folder)
    new_tokens, base = info["tokens_added"], folder
    if info["kind"] == "full":
        # A merged model, too: its weights are floats, whatever its run's base was held in.
        whole = config.qlora.model_copy(update={"use_qlora": False})
        config, new_tokens = config.model_copy(update={"qlora": whole}), []
    elif not Path(info["base"]).is_absolute():
        base = fetch_folder(config.model.model_copy(update={"checkpoint": info["base"]}))
    else:
        base, wanted = Path(info["base"]), info.get("base_sha256")
        if (folder / BASE).is_dir():
            base = folder / BASE
        if not base.is_dir():
            raise UnfitError(
                f"{folder}: its adapter belongs to the checkpoint in {base}, which is not there "
                "any more; put it back"
            )
        if wanted and hash_weights(base) != wanted:
            raise UnfitError(
                f"{folder}: its adapter belongs to the checkpoint that was in {base}, and other "
                "weights are there now; put those back"
            )
    model = load_model(
        open_checkpoint(config, folder=base),
        config=config,
        tokenizer=tokenizer,
        new_tokens=new_tokens,
        device=device,
        dtype=dtype,
    )
    if with_adapter and info["kind"] == "adapter":
        model = attach_adapter(model, folder)
    return model, tokenizer


def attach_adapter(base: Any, folder: Path) -> Any:
    """Put the adapter of a folder on its base and return the model in evaluation mode."""
    from peft import PeftModel

    from dialsum.models.layers import compute_faster

    adapted = PeftModel.from_pretrained(base, str(folder))
    compute_faster(adapted)
    return adapted.eval()


BASE = "base"
"""Folder, beside an adapter, of the copy of its base where that is tiny."""
TINY_BYTES = 50_000_000
"""Up to here a checkpoint is tiny, and goes where its adapter goes."""
SEARCH = """\
# The run's search; nothing of the checkpoint's own.
model.generation_config = GenerationConfig(
    pad_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
    decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    {search},
)
"""
FULL = f"""\
model = {{auto}}.from_pretrained(folder).eval()
{SEARCH}"""
ADAPTER = (
    """\
model = {auto}.from_pretrained({base}{options})
# Rows for the new tokens, each the mean of the pieces that spell it; a head of its own stays one.
if model.lm_head.weight is not model.get_input_embeddings().weight:
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys.pop("lm_head.weight", None)
if len(tokenizer) > len(model.get_input_embeddings().weight):
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
{stacks}new, spell = {new}, tokenizer.backend_tokenizer.model.tokenize
ids = tokenizer.convert_tokens_to_ids(new)
with torch.no_grad():
    for weight in {{model.get_input_embeddings().weight, model.lm_head.weight}}:
        for token, row in zip(new, ids):
            pieces = {{piece.id for piece in spell(token.strip())}} if token.strip() else set()
            pieces = sorted(pieces - {{*ids, tokenizer.unk_token_id}})
            weight[row] = weight[pieces or slice(min(ids))].mean(dim=0)
"""
    + SEARCH
    + "model = PeftModel.from_pretrained(model, folder).eval()\n"
)
FOUR_BITS = """\
for layer in model.modules():  # on some CPUs bitsandbytes would repack 4-bit weights, and round
    if hasattr(layer, "support_avx512bf16_for_cpu"):
        layer.support_avx512bf16_for_cpu = False
"""
STACKS = """\
for stack in (model.get_encoder(), model.get_decoder()):
    stack.embed_tokens = copy.copy(stack.embed_tokens)
    stack.embed_tokens._parameters = dict(stack.embed_tokens._parameters)
"""
FULL_IMPORTS = "from transformers import {auto}, AutoTokenizer, GenerationConfig\n"
ADAPTER_IMPORTS = """\
{copy}import torch
from peft import PeftModel
from transformers import (
    {auto},
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)
"""
READ = """\
inputs = tokenizer({prefix} + dialogue, return_tensors="pt", truncation=True, max_length={longest})
"""
READ_ALONE = """\
prompt = {head} + dialogue + {tail}
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
"""
CODE = """\
{imports}
folder = {folder}
tokenizer = AutoTokenizer.from_pretrained(folder)
{load}
dialogue = "#Person1#: 내일 몇 시에 볼까요?\\n#Person2#: 세 시에 역 앞에서 만나요."
{read}inputs = {{name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}}
written = model.generate(**inputs)
print(tokenizer.decode(written[0]{own}, skip_special_tokens=True).strip())
"""


def load_code(folder: Path, info: Mapping[str, Any]) -> str:
    """Return Python code that loads a saved model and summarises a dialogue with it.

    Args:
        info: as it stands in model_info.json.
    """
    config = info["config"]
    asked = config["generation"]
    longest = asked["max_new_tokens"] or config["tokenizer"]["decoder_max_len"]
    search = ",\n    ".join(
        f"{name}={value!r}"
        for name, value in (asked | {"max_new_tokens": longest, "do_sample": False}).items()
    )
    alone = "prompt" in info
    auto = "AutoModelForCausalLM" if alone else "AutoModelForSeq2SeqLM"
    load, imports = FULL.format(search=search, auto=auto), FULL_IMPORTS.format(auto=auto)
    if info["kind"] == "adapter":
        qlora, options = config["qlora"], ""
        if info["base_revision"]:
            options += f", revision={info['base_revision']!r}"
        options += f", dtype={info['dtype']}"
        if qlora["load_in_4bit"]:
            bits = (
                "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, "
                f"bnb_4bit_compute_dtype={info['dtype']}"
            )
            options += f",\n    quantization_config=BitsAndBytesConfig({bits})"
        elif qlora["load_in_8bit"]:
            options += ", quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
        imports = ADAPTER_IMPORTS.format(auto=auto, copy="" if alone else "import copy\n\n")
        base = 'folder + "/base"' if (folder / BASE).is_dir() else repr(info["base"])
        load = ADAPTER.format(
            auto=auto,
            base=base,
            options=options,
            stacks="" if alone else STACKS,
            new=info["tokens_added"],
            search=search,
        )
        load += FOUR_BITS if qlora["load_in_4bit"] else ""
    tokenizer = config["tokenizer"]
    prefix = json.dumps(tokenizer["input_prefix"], ensure_ascii=False)
    read, own = READ.format(prefix=prefix, longest=tokenizer["encoder_max_len"]), ""
    if alone:
        head, tail = (
            json.dumps(part.replace(SUBJECT_MARK, config["prompt"]["subject"]), ensure_ascii=False)
            for part in info["prompt"]
        )
        read, own = READ_ALONE.format(head=head, tail=tail), '[inputs["input_ids"].shape[1] :]'
    return CODE.format(imports=imports, folder=repr(str(folder)), load=load, read=read, own=own)


def write_model_card(
    folder: Path, info: Mapping[str, Any], *, data: Mapping[str, Any], dev: Mapping[str, Any]
) -> None:
    """Write README.md into a saved model's folder.

    Args:
        info: as it stands in model_info.json.
        data: rows by split, of the run's record.
        dev: scores of the dev rows, with signature and floors, of the run's record.
    """
    config = info["config"]
    revision = f" at commit `{info['base_revision']}`" if info.get("base_revision") else ""
    revision += f" (sha256 `{info['base_sha256']}`)" if info.get("base_sha256") else ""
    how = "every weight"
    if info["kind"] == "adapter":
        qlora = config["qlora"]
        bits = ", 4-bit base" if qlora["load_in_4bit"] else ""
        bits = ", 8-bit base" if qlora["load_in_8bit"] else bits
        how = f"LoRA of rank {qlora['lora_rank']}{bits}"
    rows = ", ".join(f"{count:,} {kind}" for kind, count in data.items())
    floors = "\n".join(
        f"| {name} | {one['rouge1']:.2f} | {one['rouge2']:.2f} | {one['rougeL']:.2f} | "
        f"{one['rouge_mean']:.2f} |"
        for name, one in {f"floor: {name}": one for name, one in dev["floors"].items()}.items()
    )
    written = describe_measured(
        rows=None, num_beams=dev["num_beams"], mbr_temperature=dev.get("mbr_temperature")
    )
    text = f"""---
base_model: {info["base"]}
language: ko
pipeline_tag: summarization
tags: [dialogue-summarization]
---
# {info["experiment"]}

Summaries of Korean dialogues. Fine-tuned ({how}) from `{info["base"]}`{revision} on {rows} rows;
weights of optimizer step {info["best_step"]:,}. Turns are lines `#Person1#: …`.

| {written}, dev rows | ROUGE-1 | ROUGE-2 | ROUGE-L | mean |
|---|---|---|---|---|
| this model | {dev["rouge1"]:.2f} | {dev["rouge2"]:.2f} | {dev["rougeL"]:.2f} | \
{dev["rouge_mean"]:.2f} |
{floors}

`{dev["signature"]}`; a floor is what a text earns that was not written by a model.

```python
{load_code(folder, info)}```

The code needs transformers, and for an adapter PEFT, in 4 or 8 bits with bitsandbytes. It searches
as the run did, but for three things, in which only `scripts/predict.py` is exact: a dialogue of
more than {config["tokenizer"]["encoder_max_len"]:,} tokens is cut otherwise there, by whole turns;
a ban on repeated n-grams holds for speaker tags here, and spares them there; pieces that are no
text (tokens for other purposes, halves of characters) may be written here, and never there. The
base has a licence of its own, and so have the data: read both before you publish this model.
"""
    write_text(folder / "README.md", text)
