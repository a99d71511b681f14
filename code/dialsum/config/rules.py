"""What must hold between the keys of one experiment, and which have no effect beside others.

A rule sees the values, and is left out where one that it asks for is not known. Must not know YAML,
nor where a value was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.config.messages import CLAIM, METRIC, Conflict
from dialsum.config.schema import (
    DECODER_ONLY,
    Config,
    Section,
    Training,
    default_of,
    is_section,
    keys_under,
)
from dialsum.config.sources import Resolved
from dialsum.config.yaml import show_value
from dialsum.machine.devices import FP16_OVERFLOWS
from dialsum.paths import project_path
from dialsum.text import shorten

RETRY = "batch.retry"
LEARNING_RATE = "training.learning_rate"
BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
RANK, ALPHA = "qlora.lora_rank", "qlora.lora_alpha"


def count_halvings(number: int) -> int:
    """Return how often a whole number can be halved and stay whole: 12 twice, 7 never."""
    count = 0
    while number > 1 and number % 2 == 0:
        number //= 2
        count += 1
    return count


def retried_rank_can_be_halved(config: Config) -> Iterator[Conflict]:
    """Rank and alpha stay whole, and alpha / r what it was; without adapters there is neither."""
    asked, lora = config.batch.retry.count("rank_half"), config.qlora
    if lora.use_qlora:
        yield from _too_often("rank_half", asked, RANK, lora.lora_rank)
        yield from _too_often("rank_half", asked, ALPHA, lora.lora_alpha)
    elif asked:
        found = "rank_half, but every weight is trained, without a rank (qlora.use_qlora: false)"
        yield Conflict(RETRY, found, "without rank_half, or use_qlora: true")


def retried_batch_can_be_halved(config: Config) -> Iterator[Conflict]:
    """A batch of odd size has no half that keeps the effective one."""
    rows = config.training.per_device_train_batch_size
    if rows != "auto":
        yield from _too_often("batch_half", config.batch.retry.count("batch_half"), BATCH, rows)


def _too_often(by: str, asked: int, key: str, value: int) -> Iterator[Conflict]:
    possible = count_halvings(value)
    if asked <= possible:
        return
    times = "" if asked == 1 else f" {asked} times"
    steps = " -> ".join(str(value // 2**n) for n in range(possible + 1))
    how = f"can be halved {possible} times only ({steps})" if possible else "has no half"
    meant = f"at most {possible} {by}" if possible else f"without {by}"
    yield Conflict(
        RETRY,
        f"{by}{times}, but {key} {value} {how}",
        f"{meant}, or {key} {2**asked}, or a multiple of it",
    )


KOBART_POSITIONS = 1024
"""Positions on which KoBART was trained; its table has two more, and behind it the GPU stops with
an assertion.
"""
KNOWN_CHECKPOINTS = {
    "csebuetnlp/mT5_multilingual_XLSum": "mt5",
    "digit82/kobart-summarization": "bart",
    "eenzeenee/t5-base-korean-summarization": "t5",
    "gogamza/kobart-base-v2": "bart",
    "gogamza/kobart-summarization": "bart",
    "google/mt5-base": "mt5",
    "google/mt5-small": "mt5",
    "google-t5/t5-base": "t5",
    "google/flan-t5-base": "t5",
    "facebook/bart-base": "bart",
    "openai-community/gpt2": "gpt2",
    "skt/kogpt2-base-v2": "kogpt2",
    "Bllossom/llama-3.2-Korean-Bllossom-3B": "llama",
    "meta-llama/Llama-3.2-3B-Instruct": "llama",
    "Qwen/Qwen2.5-3B-Instruct": "qwen",
    "Qwen/Qwen3-4B-Instruct-2507": "qwen",
    "google/gemma-3-270m-it": "gemma",
}
PIECE_CHARACTERS = 16
"""Longest pieces that sentencepiece makes; the tokenizer itself is asked when it is loaded."""
NOT_BLOCKS = ("embed_tokens", "lm_head", "shared")
"""Targets outside of the blocks, which tied models have in common."""
LONGEST, PACKING = "generation.max_new_tokens", "training.packing"
SCHEDULE, WARMUP = "training.lr_scheduler_type", "training.warmup_steps"
SCHEDULE_ARGUMENTS: dict[str, dict[str, str]] = {
    "cosine": {"num_cycles": "a number above 0 (0.5: one fall to zero)"},
    "cosine_with_restarts": {"num_cycles": "a whole number from 2 (one cycle is plain cosine)"},
    "polynomial": {
        "power": "a number above 0",
        "lr_end": "a number from 0, below the learning rate",
    },
    "inverse_sqrt": {"timescale": "a whole number from 1, in steps"},
}
"""Arguments of each shape in transformers' optimization.py; the other shapes have none."""


def fp16_fits_the_family(config: Config) -> Iterator[Conflict]:
    """T5's and Gemma's activations pass float16's 65,504: the loss becomes NaN."""
    if config.training.fp16 and config.model.architecture in FP16_OVERFLOWS:
        found = f"fp16: true on {config.model.architecture}, whose activations overflow float16"
        yield Conflict("training.fp16", f"{found} (NaN)", "bf16: true")


def one_mixed_precision(config: Config) -> Iterator[Conflict]:
    """Only one of the two can run."""
    if config.training.fp16 and config.training.bf16 is True:
        yield Conflict("training.fp16", "fp16: true beside bf16: true", "keep bf16: true alone")


def checkpoint_is_of_the_family(config: Config) -> Iterator[Conflict]:
    """The experiments' checkpoints are known without a download."""
    asked = config.model.architecture
    if (family := KNOWN_CHECKPOINTS.get(config.model.checkpoint, asked)) != asked:
        found = f"{asked} for {config.model.checkpoint}"
        yield Conflict("model.architecture", found, f"architecture: {family}")


def each_network_is_asked_its_way(config: Config) -> Iterator[Conflict]:
    """A decoder alone reads a prompt, an encoder its input: what is the other's would do nothing.

    A default that is stated asks for nothing.
    """
    name = config.model.architecture
    alone = name in DECODER_ONLY
    if alone and config.tokenizer.input_prefix:
        found = f"{show_value(config.tokenizer.input_prefix)}, but {name} reads a prompt"
        yield Conflict("tokenizer.input_prefix", found, "put the text into prompt.user")
    if alone:
        return
    for key in (*keys_under("prompt"), "training.prompt_loss_weight", PACKING):
        section, _, own = key.partition(".")
        value = getattr(getattr(config, section), own)
        if value != default_of(key):
            found = f"{shorten(show_value(value), limit=40)}, but {name} has an encoder, no prompt"
            meant = "tokenizer.input_prefix" if section == "prompt" else "remove it"
            yield Conflict(key, found, meant)


def chat_template_can_be_read(config: Config) -> Iterator[Conflict]:
    """What looks like the name of a file has to be one."""
    said = config.prompt.chat_template
    if said is None or "{{" in said or "{%" in said:
        return
    try:
        there = project_path(said).is_file()
    except (OSError, ValueError):  # too long a name, or one with a NUL
        there = False
    if not there:
        found = f"{shorten(said, limit=60)}: no such file, and no Jinja template"
        yield Conflict("prompt.chat_template", found, "a file's path, or a template with {{ … }}")


def shortest_is_below_longest(config: Config) -> Iterator[Conflict]:
    """A summary cannot be longer than the longest."""
    longest = config.generation.max_new_tokens or config.tokenizer.decoder_max_len
    if (least := config.generation.min_new_tokens) > longest:
        found = f"{least}, above the longest, {longest}"
        yield Conflict("generation.min_new_tokens", found, f"at most {longest}")


def draws_can_be_compared(config: Config) -> Iterator[Conflict]:
    """Of two summaries each is as much like all as the other."""
    drawn = config.generation.num_beams
    if config.generation.mbr_temperature is not None and drawn < 3:
        found = f"{drawn}, too few to find the one most like all (generation.mbr_temperature)"
        yield Conflict("generation.num_beams", found, "8 to 64 with mbr_temperature")


def tags_can_be_written(config: Config) -> Iterator[Conflict]:
    """A speaker's tag that is no token of its own is spelled with letters, digits and signs."""
    allowed = config.generation.allowed_scripts
    lacking = [one for one in ("latin", "digits", "punctuation") if one not in (allowed or [one])]
    if lacking and config.tokenizer.dialogue_tokens == "none":
        found = f"without {', '.join(lacking)}, but #Person1# has to be spelled"
        wanted = "latin, digits and punctuation besides, or tokenizer.dialogue_tokens: standard"
        yield Conflict("generation.allowed_scripts", found, wanted)


def prefix_leaves_room(config: Config) -> Iterator[Conflict]:
    """Each word of the prefix takes a token at least, and the end token one."""
    words, longest = config.tokenizer.input_prefix.split(), config.tokenizer.encoder_max_len
    if longest <= max(len(words), len("".join(words)) // PIECE_CHARACTERS) + 1:
        found = f"{longest} tokens, of which the prefix and the end take all"
        yield Conflict("tokenizer.encoder_max_len", found, "512, or more")


def lengths_fit_kobart(config: Config) -> Iterator[Conflict]:
    """A known KoBART's learned positions end; any other checkpoint says its limit when loaded."""
    if "kobart" not in config.model.checkpoint.lower() or config.model.architecture != "bart":
        return
    for key in (
        "tokenizer.encoder_max_len",
        "tokenizer.decoder_max_len",
        "generation.max_new_tokens",
    ):
        section, _, name = key.partition(".")
        length = getattr(getattr(config, section), name, None) or 0
        if length > KOBART_POSITIONS:
            found = f"{length:,} tokens, but KoBART has positions for {KOBART_POSITIONS:,}"
            yield Conflict(key, found, f"at most {KOBART_POSITIONS}")


def training_rows_are_not_dev_rows(config: Config) -> Iterator[Conflict]:
    """A score on rows that were trained on says nothing."""
    if config.data.train_file == config.data.dev_file:
        yield Conflict("data.dev_file", f"{config.data.dev_file} also trains", "another file")


def dev_rows_come_from_one_place(config: Config) -> Iterator[Conflict]:
    """A file, or a share of the train file's rows."""
    share, file = config.data.dev_share, config.data.dev_file
    if share is not None and file is not None:
        found = f"{share:g} beside data.dev_file {file}"
        yield Conflict("data.dev_share", found, "one of the two: set the other to null")
    if share is None and file is None:
        meant = "a file, or a share of the train rows as data.dev_share, such as 0.05"
        yield Conflict("data.dev_file", "null, and no data.dev_share", meant)


def columns_differ(config: Config) -> Iterator[Conflict]:
    """A column is one thing."""
    first: dict[str, str] = {}
    for ours in ("fname", "dialogue", "summary", "topic"):
        own = getattr(config.data.columns, ours)
        if first.setdefault(own, ours) != ours:
            found = f"{own!r}, which is data.columns.{first[own]} too"
            yield Conflict(f"data.columns.{ours}", found, "another column")


def one_quantisation(config: Config) -> Iterator[Conflict]:
    """A weight is held in one way only."""
    qlora = config.qlora
    if qlora.use_qlora and qlora.load_in_4bit and qlora.load_in_8bit:
        default = "" if "load_in_4bit" in qlora.model_fields_set else " (the default)"
        found = f"true beside load_in_4bit: true{default}"
        yield Conflict("qlora.load_in_8bit", found, "load_in_4bit: false beside it")


def dora_reads_its_base(config: Config) -> Iterator[Conflict]:
    """DoRA needs the base's rows at every step; PEFT gets those of 8-bit layers back wrongly."""
    if config.qlora.use_qlora and config.qlora.use_dora and config.qlora.load_in_8bit:
        found = "true on an 8-bit base, whose scales PEFT loses when DoRA reads the weights"
        yield Conflict("qlora.use_dora", found, "load_in_4bit: true, or no quantisation")


def pissa_can_change_its_base(config: Config) -> Iterator[Conflict]:
    """PiSSA takes the largest directions out of the base, which must be floats, and no one else's.

    A tied head is the embeddings too: what is taken out of it would be missing there.
    """
    qlora, key = config.qlora, "qlora.init_lora_weights"
    if not qlora.use_qlora or qlora.init_lora_weights != "pissa":
        return
    for bits, held in ((4, qlora.load_in_4bit), (8, qlora.load_in_8bit)):
        if held:
            found = f"pissa over {bits}-bit weights: it takes directions out of floats"
            yield Conflict(key, found, f"load_in_{bits}bit: false, or default")
    if shared := [name for name in qlora.target_modules if name in NOT_BLOCKS]:
        found = f"pissa with {show_value(shared)} among the target_modules"
        yield Conflict(key, found, "layers of the blocks alone, or default")


def what_learns_is_float32(config: Config) -> Iterator[Conflict]:
    """A bfloat16 weight has 8 bits of mantissa: an update below a 500th of it is rounded away."""
    if config.model.dtype != "bfloat16":
        return
    whole = not config.qlora.use_qlora
    if whole or config.qlora.train_embeddings:
        what = "every weight" if whole else "embeddings and norms"
        found = f"bfloat16, but {what} would learn in it, and most updates be rounded away"
        yield Conflict("model.dtype", found, "auto; training.bf16 computes in bfloat16")


def rdrop_has_dropout(config: Config) -> Iterator[Conflict]:
    """Two passes without dropout say the same, at twice the time."""
    asked, lora = config.training.rdrop_alpha, config.qlora
    if asked and config.model.dropout == 0 and not (lora.use_qlora and lora.lora_dropout):
        found = f"{asked:g}, but nothing drops out (model.dropout: 0)"
        yield Conflict("training.rdrop_alpha", found, "model.dropout: null, or no rdrop_alpha")


def schedule_knows_its_arguments(config: Config) -> Iterator[Conflict]:
    """An argument of another shape would stop the library at the first step."""
    shape = config.training.lr_scheduler_type
    known = SCHEDULE_ARGUMENTS.get(shape, {})
    for name, value in config.training.lr_scheduler_kwargs.items():
        if name not in known:
            meant = f"{shape} takes {', '.join(known)}" if known else f"{shape} takes none: {{}}"
        elif _fits(name, value, config):
            continue
        else:
            meant = known[name]
        yield Conflict("training.lr_scheduler_kwargs", f"{name}: {show_value(value)}", meant)


def _fits(name: str, value: Any, config: Config) -> bool:
    if type(value) not in (int, float):
        return False
    if name == "lr_end":
        return bool(0 <= value < getattr(config.training, "learning_rate", 1))
    if name == "timescale":
        return isinstance(value, int) and value >= 1
    if config.training.lr_scheduler_type == "cosine_with_restarts":
        return isinstance(value, int) and value >= 2
    return bool(0 < value < float("inf"))


def restarts_restart(config: Config) -> Iterator[Conflict]:
    """The library's default of one cycle is plain cosine under another name."""
    shape, arguments = config.training.lr_scheduler_type, config.training.lr_scheduler_kwargs
    if shape == "cosine_with_restarts" and "num_cycles" not in arguments:
        found = "cosine_with_restarts without num_cycles: one cycle, plain cosine"
        yield Conflict(SCHEDULE, found, "lr_scheduler_kwargs: {num_cycles: 4}, or cosine")


def warmup_can_end(config: Config) -> Iterator[Conflict]:
    """At the last step the peak learning rate would still be ahead."""
    steps, warmup = config.training.max_steps, config.training.warmup_steps
    if steps is not None and warmup >= steps:
        found = f"{warmup:g} of {steps} steps: the peak learning rate is never reached"
        yield Conflict(WARMUP, found, "fewer than max_steps, or a share below 1")


def find_length_problems(asked: Training, *, train_rows: int | None) -> tuple[list[str], list[str]]:
    """Hold what is counted in steps against the run's length, which its rows decide.

    Returns:
        What forbids the run, and what should be known of it; the keys stand first in each line.
    """
    steps = asked.count_steps(train_rows=train_rows)
    if steps is None:
        return [], []
    problems, notes = [], []
    if 1 <= steps <= asked.warmup_steps:
        problems.append(
            f"training.warmup_steps {asked.warmup_steps:,.0f}: the run has {steps:,} optimizer "
            "steps, so the peak learning rate is never reached; give fewer, or a share below 1"
        )
    cycles = asked.lr_scheduler_kwargs.get("num_cycles", 0)
    if asked.lr_scheduler_type == "cosine_with_restarts" and cycles > steps:
        problems.append(
            f"training.lr_scheduler_kwargs num_cycles {cycles:,}: the run has {steps:,} "
            "optimizer steps, so no cycle has a step of its own; give fewer"
        )
    if steps < asked.eval_steps:
        notes.append(
            f"training.eval_steps {asked.eval_steps:,}: the run has {steps:,} optimizer steps, "
            "so it is evaluated at its end alone"
        )
    return problems, notes


RULES: tuple[Callable[[Config], Iterator[Conflict]], ...] = (
    fp16_fits_the_family,
    one_mixed_precision,
    checkpoint_is_of_the_family,
    each_network_is_asked_its_way,
    chat_template_can_be_read,
    shortest_is_below_longest,
    draws_can_be_compared,
    tags_can_be_written,
    prefix_leaves_room,
    lengths_fit_kobart,
    training_rows_are_not_dev_rows,
    dev_rows_come_from_one_place,
    columns_differ,
    one_quantisation,
    dora_reads_its_base,
    pissa_can_change_its_base,
    what_learns_is_float32,
    rdrop_has_dropout,
    schedule_knows_its_arguments,
    restarts_restart,
    warmup_can_end,
    retried_rank_can_be_halved,
    retried_batch_can_be_halved,
)


def find_conflicts(config: Config, resolved: Resolved) -> Iterator[Conflict]:
    """Give what does not fit together among the values that are known.

    Args:
        config: see known_values.
    """
    for rule in RULES:
        try:
            yield from rule(config)
        except AttributeError as error:
            if not isinstance(error.obj, Section):
                raise
    yield from _find_overruled(resolved)
    if not resolved.complete_record:
        yield from _find_ignored(resolved)


def known_values(resolved: Resolved, model: Any = Config, prefix: str = "") -> Any:
    """Return the values that are known, as a config; asking for another raises AttributeError."""
    section = model.model_construct(_fields_set=set())
    for name, field in model.model_fields.items():
        key = prefix + name
        if is_section(field):
            section.__dict__[name] = known_values(resolved, field.annotation, f"{key}.")
        elif key in resolved.unread:
            section.__dict__.pop(name, None)
        elif key in resolved.stated:
            section.__dict__[name] = resolved.stated[key].value
            section.model_fields_set.add(name)
    return section


@dataclass(frozen=True)
class Switch:
    """A key that at one value takes the effect of others away.

    Args:
        key: dotted key.
        off: the value at which it does so, or GIVEN.
        why: what is the case then.
        names: dotted keys and sections that it silences.
    """

    key: str
    off: Any
    why: str
    names: tuple[str, ...]

    def is_off(self, resolved: Resolved) -> bool:
        """Say whether the key is known to have the value."""
        value = resolved.value(self.key)
        known = self.key not in resolved.unread
        if self.off is GIVEN:
            return known and value is not None
        return known and type(value) is type(self.off) and value == self.off

    def silenced(self) -> list[str]:
        """Return every key that it silences."""
        return [key for name in self.names for key in keys_under(name) if key != self.key]


GIVEN = object()
"""As a switch's value: any but null."""

SWITCHES = (
    Switch("qlora.use_qlora", False, "every weight is trained, without adapters", ("qlora",)),
    Switch(
        "training.early_stopping_patience",
        None,
        "training never stops early",
        ("training.early_stopping_threshold",),
    ),
    Switch(
        "generation.num_beams",
        1,
        "greedy search has no beams to weigh",
        ("generation.length_penalty", "generation.early_stopping"),
    ),
    Switch(
        "generation.mbr_temperature",
        GIVEN,
        "drawn summaries have no beams to weigh",
        ("generation.length_penalty", "generation.early_stopping"),
    ),
    Switch(
        PACKING,
        True,
        "packed rows come at random, and none is padded",
        ("training.train_sampling_strategy",),
    ),
    Switch("data.test_file", None, "no test rows are read", ("data.max_test_rows",)),
    Switch("tracking.wandb", False, "W&B is off", ("tracking.project", "tracking.entity")),
    Switch(
        "batch.executor",
        "local",
        "on this machine experiments share the cores by batch.slots",
        ("batch.cpus_per_experiment",),
    ),
    Switch(SCHEDULE, "constant", "it has no warm-up; constant_with_warmup has one", (WARMUP,)),
)


def _find_overruled(resolved: Resolved) -> Iterator[Conflict]:
    """max_steps rules over num_train_epochs, so a later num_train_epochs would do nothing, and the
    metric over a claim of which scores are better.
    """
    epochs, steps = "training.num_train_epochs", "training.max_steps"
    ruling = resolved.value(steps)
    if ruling is not None and resolved.rank(epochs) > resolved.rank(steps):
        found = f"{resolved.value(epochs):g}, but max_steps {ruling} rules"
        yield Conflict(epochs, found, f"{steps}: null beside it")
    claim, metric = resolved.stated.get(CLAIM), resolved.value(METRIC)
    if claim and METRIC not in resolved.unread and claim.value == (metric == "loss"):
        found = f"{show_value(claim.value)}, but metric_for_best_model is {metric}"
        yield Conflict(CLAIM, found, "remove it: it follows from the metric")


def _find_ignored(resolved: Resolved) -> Iterator[Conflict]:
    """Give each key that is stated beside, or after, what silences it: it would be accepted and
    then ignored.

    A value that an earlier source gave is no mistake: switching adapters off with --set need not
    take their rank away; that it has no effect then is said.
    """
    for switch in SWITCHES:
        for key in switch.silenced() if switch.is_off(resolved) else ():
            value = resolved.value(key)
            # null, false and no steps ask for nothing, so nothing is ignored.
            if value is None or value is False or (key == WARMUP and not value):
                continue
            if resolved.rank(switch.key) <= resolved.rank(key) != 0:
                off = f"{switch.key}: {show_value(resolved.value(switch.key))} ({switch.why})"
                found = f"{show_value(value)} has no effect under {off}"
                yield Conflict(key, found, f"remove it, or change {switch.key}")


def note_silenced(resolved: Resolved, *, files: Resolved) -> Iterator[str]:
    """Say which keys have no effect any more.

    Args:
        files: what the experiment's files alone come to, without overlays and --set.
    """
    for switch in SWITCHES:
        if not switch.is_off(resolved) or switch.is_off(files):
            continue
        rank, section = resolved.rank(switch.key), switch.key.rpartition(".")[0]
        names = [
            key.removeprefix(f"{section}.")
            for key in switch.silenced()
            if 0 < resolved.rank(key) < rank
            and (value := resolved.value(key)) is not None
            and value not in (False, "auto")
            # Inherited ones that equal the default ask for nothing.
            and (resolved.origin(key).file == resolved.path or value != default_of(key))
        ]
        if names:
            said = show_value(resolved.value(switch.key))
            place = f"{resolved.origin(switch.key).text} {switch.key} {said}"
            verb = "have" if len(names) > 1 else "has"
            yield f"{place}: {', '.join(names)} {verb} no effect ({switch.why})"
    key = "data.data_dir"
    rows = [resolved.value(f"data.{kind}_file") for kind in ("train", "dev", "test")]
    whole = all(Path(name).is_absolute() for name in rows if name)
    if whole and resolved.value(key) != files.value(key):
        why = "train_file, dev_file and test_file are whole paths"
        yield f"{resolved.origin(key).text} {key}: it has no effect ({why})"
