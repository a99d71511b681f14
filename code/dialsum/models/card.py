"""The model card of a saved model: what it came from, what it scored, and code that loads it.

The code needs nothing of this program. Must not know how a run goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.files import write_text

FULL = """\
model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
"""
ADAPTER = """\
model = AutoModelForSeq2SeqLM.from_pretrained({base}{options})
# Rows for the new tokens, each the mean of the pieces that spell it; a head of its own stays one.
if model.lm_head.weight is not model.get_input_embeddings().weight:
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys.pop("lm_head.weight", None)
if len(tokenizer) > len(model.get_input_embeddings().weight):
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
for stack in (model.get_encoder(), model.get_decoder()):
    stack.embed_tokens = copy.copy(stack.embed_tokens)
    stack.embed_tokens._parameters = dict(stack.embed_tokens._parameters)
new, spell = {new}, tokenizer.backend_tokenizer.model.tokenize
ids = tokenizer.convert_tokens_to_ids(new)
with torch.no_grad():
    for weight in {{model.get_input_embeddings().weight, model.lm_head.weight}}:
        for token, row in zip(new, ids):
            pieces = {{piece.id for piece in spell(token.strip())}} if token.strip() else set()
            pieces = sorted(pieces - {{*ids, tokenizer.unk_token_id}})
            weight[row] = weight[pieces or slice(min(ids))].mean(dim=0)
model = PeftModel.from_pretrained(model, folder).eval()
"""
FULL_IMPORTS = "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n"
ADAPTER_IMPORTS = """\
import copy

import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BitsAndBytesConfig
"""
CODE = """\
{imports}
folder = {folder}
tokenizer = AutoTokenizer.from_pretrained(folder)
{load}
dialogue = "#Person1#: 내일 몇 시에 볼까요?\\n#Person2#: 세 시에 역 앞에서 만나요."
inputs = tokenizer({prefix} + dialogue, return_tensors="pt", truncation=True, max_length={longest})
inputs = {{name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}}
written = model.generate(**inputs, {search})
print(tokenizer.decode(written[0], skip_special_tokens=True).strip())
"""


def load_code(folder: Path, info: Mapping[str, Any]) -> str:
    """Return Python code that loads a saved model and summarises a dialogue with it.

    Args:
        info: as it stands in model_info.json.
    """
    config, load, imports = info["config"], FULL, FULL_IMPORTS
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
        imports, load = (
            ADAPTER_IMPORTS,
            ADAPTER.format(base=repr(info["base"]), options=options, new=info["tokens_added"]),
        )
    asked = config["generation"]
    search = asked | {
        "max_new_tokens": asked["max_new_tokens"] or config["tokenizer"]["decoder_max_len"],
        "do_sample": False,
    }
    return CODE.format(
        imports=imports,
        folder=repr(str(folder)),
        load=load,
        prefix=json.dumps(config["tokenizer"]["input_prefix"], ensure_ascii=False),
        longest=config["tokenizer"]["encoder_max_len"],
        search=", ".join(f"{name}={value!r}" for name, value in search.items()),
    )


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
    text = f"""---
base_model: {info["base"]}
language: ko
pipeline_tag: summarization
tags: [dialogue-summarization]
---
# {info["experiment"]}

Summaries of Korean dialogues. Fine-tuned ({how}) from `{info["base"]}`{revision} on {rows} rows;
weights of optimizer step {info["best_step"]:,}. Turns are lines `#Person1#: …`.

| {dev["num_beams"]} beams, dev rows | ROUGE-1 | ROUGE-2 | ROUGE-L | mean |
|---|---|---|---|---|
| this model | {dev["rouge1"]:.2f} | {dev["rouge2"]:.2f} | {dev["rougeL"]:.2f} | \
{dev["rouge_mean"]:.2f} |
{floors}

`{dev["signature"]}`; a floor is what a text earns that was not written by a model.

```python
{load_code(folder, info)}```

The code needs transformers, and for an adapter PEFT, in 4 or 8 bits with bitsandbytes. It searches
as the run did; only that an undertrained model may write pieces that are no text (tokens for other
purposes, halves of characters), which the run's own search never takes. The base has a licence of
its own, and so have the data: read both before you publish this model.
"""
    write_text(folder / "README.md", text)
