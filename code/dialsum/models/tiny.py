"""Tiny checkpoints in the layouts of the real ones: same files, keys, tensors and traps, random
weights.

Each layout is that of the checkpoint which the experiments of its architecture name: mT5's
spiece.model and pickled weights with a head of their own, the Korean T5's byte-level BPE under a
class that cannot read it, KoBART's bare tokenizer.json and its keys of long ago; GPT-2, which names
no special token, Llama's template with the day's date, Qwen's with its empty thoughts and spare
rows, Gemma's end of a turn that is not its end of a text. So a run on them goes every step of the
way that a run on the real ones goes.

Initial weights decide whether so small a model learns at all. With the library's own (T5 embeddings
of standard deviation 1, BART 0.02) all families stayed at the floor of a constant summary; with
d_model**-0.5 they learn. Must not know experiments.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dialsum.config.schema import Columns
from dialsum.data.rows import load_split
from dialsum.data.tags import find_tags
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.files import new_folder, write_json

ARCHITECTURES = ("mt5", "t5", "bart", "gpt2", "kogpt2", "llama", "qwen", "gemma")
PIECES = 4000
MOST_ROWS = 600
"""Rows whose texts train the tokenizers: all of the sample, some of anybody's."""
WIDTH, HEADS, LAYERS, FEED_FORWARD = 128, 4, 2, 256
SLOPES = (1.0, 0.3, 0.05, 0.0)
"""Of each head of T5's, in logits a token (Press et al. 2022)."""
FURTHEST = 15.0
RECORD = "tiny_checkpoint.json"
SEED = 42
VERSION = 3
"""Of what is written; another one means that folders made before are made again."""

EXTRA_IDS = [f"<extra_id_{number}>" for number in range(100)]
T5_SIZE = {
    "d_model": WIDTH,
    "d_kv": WIDTH // HEADS,
    "d_ff": FEED_FORWARD,
    "num_heads": HEADS,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
}
T5_KEYS: dict[str, Any] = {
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    # csebuetnlp/mT5_multilingual_XLSum: its search bans every n-gram of 2.
    "mt5": T5_SIZE
    | T5_KEYS
    | {
        "architectures": ["MT5ForConditionalGeneration"],
        "length_penalty": 0.6,
        "max_length": 84,
        "model_type": "mt5",
        "no_repeat_ngram_size": 2,
        "num_beams": 4,
        "tokenizer_class": "T5Tokenizer",
    },
    # eenzeenee/t5-base-korean-summarization.
    "t5": T5_SIZE
    | T5_KEYS
    | {
        "architectures": ["T5ForConditionalGeneration"],
        "max_length": 128,
        "model_type": "t5",
        "relative_attention_max_distance": 128,
        "torch_dtype": "float32",
        "transformers_version": "4.24.0",
    },
    # digit82/kobart-summarization: decoding starts with <usr>, and is forced to end with it.
    "bart": {
        "activation_dropout": 0.0,
        "activation_function": "gelu",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "architectures": ["BartForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "classifier_dropout": 0.1,
        "d_model": WIDTH,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": FEED_FORWARD,
        "decoder_layers": LAYERS,
        "decoder_start_token_id": 2,
        "do_blenderbot_90_layernorm": False,
        "dropout": 0.1,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": FEED_FORWARD,
        "encoder_layers": LAYERS,
        "eos_token_id": 1,
        "extra_pos_embeddings": 2,
        "force_bos_token_to_be_generated": False,
        "forced_eos_token_id": 2,
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "max_position_embeddings": 1026,
        "model_type": "bart",
        "normalize_before": False,
        "normalize_embedding": True,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 3,
        "scale_embedding": False,
        "static_position_embeddings": False,
        "transformers_version": "4.2.2",
        "use_cache": True,
    },
}


LLAMA_KEYS: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": WIDTH // HEADS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS // 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
}
GPT2_KEYS: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_layer": LAYERS,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
}
CONFIGS |= {
    # openai-community/gpt2: one token for start, end and what is unknown.
    "gpt2": GPT2_KEYS | {"bos_token_id": 0, "eos_token_id": 0},
    # skt/kogpt2-base-v2.
    "kogpt2": GPT2_KEYS | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3},
    # meta-llama/Llama-3.2-3B-Instruct: three ends, of which a turn has the last.
    "llama": LLAMA_KEYS | {"bos_token_id": 0, "eos_token_id": [1, 5, 6]},
    # Qwen/Qwen3-4B.
    "qwen": LLAMA_KEYS
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "model_type": "qwen3",
        "use_sliding_window": False,
    },
    # google/gemma-3-270m-it.
    "gemma": LLAMA_KEYS
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "bos_token_id": 2,
        "eos_token_id": 1,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ["sliding_attention", "full_attention"],
        "max_position_embeddings": 32768,
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": WIDTH // HEADS,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 512,
        "use_bidirectional_attention": False,
    },
}
LLAMA_TEMPLATE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{%- if date_string is not defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- (message['content'] | trim) + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
QWEN_TEMPLATE = """\
{%- for message in messages %}
{%- set content = message['content'] %}
{%- if message['role'] == 'assistant' and loop.last %}
{%- set content = '<think>\\n\\n</think>\\n\\n' + content %}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""
GEMMA_TEMPLATE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{%- set before = messages[0]['content'] + '\\n\\n' %}{%- set messages = messages[1:] %}
{%- else %}{%- set before = '' %}{%- endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
{{- (before if loop.first else '') + (message['content'] | trim) + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}
"""
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Where Llama's and Qwen's tokenizers cut a text, English endings left out."""
SAMPLES = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}


def describe_making(data: Path, seed: int = SEED) -> dict[str, Any]:
    """Return what tiny checkpoints of these rows are known by: who finds it need not make them.

    Raises:
        UnfitError: data cannot be read.
    """
    try:
        digest = hashlib.sha256(data.read_bytes()).hexdigest()
    except OSError as error:
        raise UnfitError(f"{data}: cannot be read: {error.strerror or error}") from error
    return {"version": VERSION, "data_sha256": digest, "seed": seed}


def is_made(folder: Path, making: dict[str, Any]) -> bool:
    """Say whether a folder holds the tiny checkpoint that describe_making describes."""
    try:
        return bool(json.loads((folder / RECORD).read_text(encoding="utf-8")) == making)
    except (OSError, ValueError):
        return False


def make_tiny_checkpoints(
    out: Path,
    data: Path,
    *,
    architectures: Sequence[str] = ARCHITECTURES,
    seed: int = SEED,
    columns: Columns | None = None,
) -> list[Path]:
    """Write OUT/ARCHITECTURE for each; one that is there and the same stays.

    Args:
        data: train rows; their texts train the tokenizers. Tags stand in pieces there.
        seed: decides every weight.
        columns: the file's own names of its columns.

    Raises:
        UnfitError: a folder is there and holds something else.
        DataError: the rows cannot be read, with file and row.
        RunError: too few texts for a tokenizer.
    """
    making = describe_making(data, seed)
    folders = [out / architecture for architecture in architectures]
    wanted = [folder for folder in folders if not is_made(folder, making)]
    if not wanted:
        return folders
    rows = load_split(data, kind="train", columns=columns, option="--columns ").rows[:MOST_ROWS]
    texts = [_spell_tags(text) for row in rows for text in (row.dialogue, row.summary or "")]
    for folder in wanted:
        if (folder / RECORD).is_file():
            shutil.rmtree(folder)
        with new_folder(folder) as draft:
            try:
                pieces = TOKENIZERS[folder.name](draft, texts)
            except Exception as error:  # the libraries raise nothing more special
                raise RunError(
                    f"{data}: no tokenizer could be trained on its {len(texts):,} texts "
                    f"({first_line(error)}); give more rows"
                ) from error
            _write_network(draft, CONFIGS[folder.name], pieces=pieces, seed=seed)
            write_json(draft / RECORD, making)
    return folders


def _spell_tags(text: str) -> str:
    """Take tags apart, so that no tokenizer learns one as a piece: the real ones know none."""
    for tag in find_tags(text):
        word = tag.strip("#").rstrip("0123456789")
        text = text.replace(tag, f"# {word} {tag[len(word) + 1 : -1]} #")
    return text


def _write_spiece(folder: Path, texts: Iterable[str]) -> int:
    """Write mT5's spiece.model, with no tokenizer.json, and return its rows: 12 are spare."""
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if line.strip()),
        model_writer=made,
        model_type="unigram",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        normalization_rule_name="nmt_nfkc",
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(made.getvalue())
    named = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(folder / "special_tokens_map.json", named)
    more = {"extra_ids": 0, "additional_special_tokens": None, "tokenizer_file": None}
    write_json(folder / "tokenizer_config.json", named | more)
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return int(model.get_piece_size()) + 12


def _write_byte_level(folder: Path, texts: Iterable[str]) -> int:
    """Write the Korean T5's tokenizer.json (bytes merged, <pad> for what is unknown, a truncation
    inside) and return its rows: none is spare.
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens(EXTRA_IDS)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    core.enable_truncation(128)
    core.save(str(folder / "tokenizer.json"))
    named: dict[str, Any] = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<pad>"}
    named["additional_special_tokens"] = EXTRA_IDS
    write_json(folder / "special_tokens_map.json", named)
    more = {"extra_ids": 100, "model_max_length": 128, "tokenizer_class": "T5TokenizerFast"}
    write_json(folder / "tokenizer_config.json", named | more)
    search = {"decoder_start_token_id": 0, "eos_token_id": 1, "max_length": 128, "pad_token_id": 0}
    write_json(folder / "generation_config.json", {"_from_model_config": True} | search)
    return int(core.get_vocab_size())


def _write_bare(folder: Path, texts: Iterable[str]) -> int:
    """Write KoBART's tokenizer.json, which adds no end and names no special token's role, and
    return its rows.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    specials = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
    specials += [f"<unused{number}>" for number in range(5)]
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=specials, show_progress=False)
    core.train_from_iterator(texts, trainer)
    core.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return int(core.get_vocab_size())


def _write_bare_lines(folder: Path, texts: Iterable[str]) -> int:
    """Write KoGPT2's tokenizer.json, KoBART's kind without a piece for the line end."""
    return _write_bare(folder, (line for text in texts for line in text.splitlines()))


def _train_byte_level(texts: Iterable[str], specials: Sequence[str], *, words: str | None) -> Any:
    """Return a BPE of bytes with special tokens in front.

    Args:
        words: pattern of where texts are cut; None: GPT-2's own.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    if words is not None:
        cut = pre_tokenizers.Split(Regex(words), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([cut, core.pre_tokenizer])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return core


def _put_first(core: Any, token: str) -> None:
    """Have a tokenizer begin each text with a token, as its own template of a conversation does."""
    from tokenizers import processors

    core.post_processor = processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B",
        special_tokens=[(token, core.token_to_id(token))],
    )


def _write_gpt2(folder: Path, texts: Iterable[str]) -> int:
    core = _train_byte_level(texts, ["<|endoftext|>"], words=None)
    core.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 1024})
    return int(core.get_vocab_size())


def _write_llama(folder: Path, texts: Iterable[str]) -> int:
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"]
    specials += ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"]
    core = _train_byte_level(texts, specials, words=WORDS)
    _put_first(core, "<|begin_of_text|>")
    core.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    write_json(folder / "special_tokens_map.json", named)
    more = {"chat_template": LLAMA_TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", named | more)
    search = {"bos_token_id": 0, "eos_token_id": [1, 5, 6]}
    write_json(folder / "generation_config.json", search | SAMPLES)
    return int(core.get_vocab_size())


def _write_qwen(folder: Path, texts: Iterable[str]) -> int:
    """Write Qwen's tokenizer, which knows no start, and return its rows: 267 are spare."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    core = _train_byte_level(texts, specials, words=WORDS)
    core.save(str(folder / "tokenizer.json"))
    named = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    more = {"chat_template": QWEN_TEMPLATE, "unk_token": None, "tokenizer_class": "Qwen2Tokenizer"}
    write_json(folder / "tokenizer_config.json", named | more)
    search = {"bos_token_id": 0, "eos_token_id": [2, 0], "pad_token_id": 0}
    write_json(folder / "generation_config.json", search | SAMPLES)
    return int(core.get_vocab_size()) + 267


def _write_gemma(folder: Path, texts: Iterable[str]) -> int:
    """Write Gemma's tokenizer, whose last token has no row, and return its rows."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=[*specials, *spelled], show_progress=False
    )
    core.train_from_iterator((line for text in texts for line in text.splitlines()), trainer)
    described = json.loads(core.to_str())
    described["added_tokens"] = described["added_tokens"][: len(specials)]
    core = Tokenizer.from_str(json.dumps(described))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    rows = int(core.get_vocab_size())
    core.add_special_tokens([AddedToken("<image_soft_token>", special=True, normalized=False)])
    _put_first(core, "<bos>")
    core.save(str(folder / "tokenizer.json"))
    named = {role: f"<{role[:3]}>" for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
    write_json(folder / "tokenizer_config.json", named | {"tokenizer_class": "GemmaTokenizer"})
    (folder / "chat_template.jinja").write_text(GEMMA_TEMPLATE, encoding="utf-8")
    search = {"do_sample": True, "eos_token_id": [1, 5], "top_k": 64, "top_p": 0.95}
    write_json(folder / "generation_config.json", search)
    return rows


TOKENIZERS = {
    "mt5": _write_spiece,
    "t5": _write_byte_level,
    "bart": _write_bare,
    "gpt2": _write_gpt2,
    "kogpt2": _write_bare_lines,
    "llama": _write_llama,
    "qwen": _write_qwen,
    "gemma": _write_gemma,
}


def _write_network(folder: Path, keys: dict[str, Any], *, pieces: int, seed: int) -> None:
    """Write config.json and pytorch_model.bin of random weights."""
    import torch
    import transformers

    keys = dict(sorted((keys | {"vocab_size": pieces}).items()))
    write_json(folder / "config.json", keys)
    torch.manual_seed(seed)
    config: Any = transformers.AutoConfig.for_model(**keys)
    # Under False the library of today would part encoder and decoder too.
    config.tie_word_embeddings = True
    std = float(WIDTH**-0.5)
    if keys["model_type"] == "bart":
        config.init_std = std
    elif "initializer_range" in vars(config):
        config.initializer_range = std
    model: Any = getattr(transformers, keys["architectures"][0])(config)
    with torch.no_grad():
        if keys["model_type"] == "bart":
            for stack in (model.model.encoder, model.model.decoder):
                stack.embed_positions.weight.copy_(_sinusoids(*stack.embed_positions.weight.shape))
        elif keys["model_type"] == "gpt2":
            positions = model.transformer.wpe.weight
            positions.copy_(_sinusoids(*positions.shape))
        elif not keys.get("is_encoder_decoder"):
            pass  # positions turn queries and keys
        else:
            model.lm_head.weight = torch.nn.Parameter(torch.empty(pieces, WIDTH))
            for layer in (model.shared, model.lm_head):
                layer.weight.normal_(0.0, std)
            for stack in (model.encoder, model.decoder):
                _slope_by_distance(stack.block[0].layer[0].SelfAttention)
    torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")


def _slope_by_distance(attention: Any) -> None:
    """Let each head of T5's attend less to what is further away, as pre-trained ones do.

    From random biases four epochs of the demo end at a mean of 61.0 (T5) and 40.9 to 42.2 (mT5),
    from these at 69.6 and 54.4.
    """
    import torch

    table = attention.relative_attention_bias.weight
    distances = torch.arange(-200, 1 if attention.is_decoder else 201)
    buckets = attention._relative_position_bucket(
        distances,
        bidirectional=not attention.is_decoder,
        num_buckets=len(table),
        max_distance=attention.relative_attention_max_distance,
    )
    for bucket in buckets.unique():
        away = distances[buckets == bucket].abs().float().mean()
        # Beyond it probabilities come near float32's smallest, which a CPU multiplies slowly.
        table[bucket] = -(torch.tensor(SLOPES) * away).clamp(max=FURTHEST)


def _sinusoids(count: int, width: int) -> Any:
    """Return positions [count, width] as waves (Vaswani et al. 2017) of the embeddings' size.

    From random positions a model this small learns the training rows by heart and nothing that
    carries over; with waves it can attend by distance from the first step, as T5's relative
    positions let it.
    """
    import torch

    position = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    waves = torch.cat([torch.sin(position * rate), torch.cos(position * rate)], dim=1)
    return waves * math.sqrt(2.0 / width)
