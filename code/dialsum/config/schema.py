"""The one schema of every experiment file: each key with type, bounds, default, meaning, unit.

Must not know where a value came from, nor rules about two keys (rules.py), nor any library that
trains. Defaults here are the neutral ones; the project's own choices, with their reasons, stand in
config/base_config.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from dialsum.config.yaml import describe_found, show_value
from dialsum.paths import NAME_BYTES, find_name_fault

Auto = Literal["auto"]
# No bound forbids what a run could mean: beyond each stands a slip of the keyboard.
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
"""Optimizer steps."""
RowCount = Annotated[int, Field(ge=1, le=1_000_000_000)]
Name = Annotated[str, Field(min_length=1)]
BatchRows = Annotated[int, Field(ge=1, le=65_536)]
"""Rows on the device at once, or forward passes to a step."""
Size = Annotated[int, Field(ge=1, le=65_536)]
"""A width of the network, or a rank."""
Beams = Annotated[int, Field(ge=1, le=256)]
Length = Annotated[int, Field(ge=2, le=1_000_000)]
"""In tokens: the end token and one before it at least."""
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Cooldown = Annotated[str, Field(pattern=r"^(until_free|[0-9]{1,5}s|[0-9]{1,3}C)$")]
Share = Annotated[float, Field(ge=0, lt=1)]
Score = Annotated[float, Field(ge=0, le=100)]
Architecture = Literal["mt5", "t5", "bart", "gpt2", "kogpt2", "llama", "qwen", "gemma"]
DECODER_ONLY: tuple[Architecture, ...] = ("gpt2", "kogpt2", "llama", "qwen", "gemma")
"""Those without an encoder: dialogue and summary are one text to them."""
BestMetric = Literal["rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_mean", "rouge_sum", "loss"]
Scale = Literal["mecab", "kiwi", "whitespace", "char", "english"]
Retry = Literal["lr_half", "batch_half", "rank_half"]
Letters = Literal["hangul", "latin", "han", "kana", "vietnamese", "cyrillic", "thai", "other"]
Script = Letters | Literal["digits", "punctuation", "symbols"]
KeptPart = Literal["both_ends", "start", "end"]
Executor = Literal["local", "ray"]


UNFIT = "unfit"
"""Type of our own validators' errors; their context holds what was found and what is meant."""


def unfit(found: str, meant: str) -> PydanticCustomError:
    """Return the error of a value that no run can have, for a validator to raise."""
    return PydanticCustomError(UNFIT, "{found} → {meant}", {"found": found, "meant": meant})


class Section(BaseModel):
    """What all sections share: unknown keys are refused, no value is silently converted."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class General(Section):
    """Who this experiment is, and where it runs."""

    label: str | None = None
    """Name on screen and in log file names; the file's stem when absent. No slash or space."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where it trains; auto takes CUDA, then Apple MPS, then CPU."""
    expected_minutes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Estimated duration on one RTX 3090 with the real checkpoint and 12,457 rows, minutes."""
    next: str | None = None
    """Stem of the experiment to run after this one, named in the closing lines."""

    @field_validator("label")
    @classmethod
    def _can_name_a_file(cls, label: str | None) -> str | None:
        """Log files are named by it."""
        if label is None:
            return None
        fault = find_name_fault(label) or ("a space in it" if re.search(r"\s", label) else None)
        if fault:
            better = re.sub(r"\W+", "_", label).strip("_")[: NAME_BYTES // 4] or "a_name"
            better = "a_name" if find_name_fault(better) else better
            found = f"{describe_found(label)} ({fault}); log files are named by it"
            raise unfit(found, f"no space or slash: {better}")
        return label


class Model(Section):
    """Which network, from where, in which precision."""

    architecture: Architecture
    """Family: mt5, t5 (v1 and v1.1), bart; or a decoder alone: gpt2, kogpt2 (GPT-2 with Korean
    pieces), llama, qwen (2, 2.5, 3), gemma (3, text). Checked against the checkpoint's config."""
    checkpoint: str
    """Name on the model hub, or a local folder with config.json, weights and tokenizer."""
    revision: str | None = None
    """Branch, tag or commit of a hub checkpoint."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the base's weights in memory; auto: bfloat16 under LoRA with bf16, else float32."""
    trust_remote_code: bool = False
    """Run Python code that a checkpoint brings along. Off: such a checkpoint is refused."""
    dropout: Share | None = None
    """Dropout probability of the network; the checkpoint's own when absent."""

    @field_validator("checkpoint")
    @classmethod
    def _is_named(cls, checkpoint: str) -> str:
        """An empty name would be the working folder."""
        if not checkpoint.strip():
            meant = "a name on the hub such as digit82/kobart-summarization, or a folder"
            raise unfit("an empty text", meant)
        return checkpoint


class Tokenizer(Section):
    """How text becomes tokens."""

    encoder_max_len: Length
    """Longest input in tokens, all of it: prefix and end token, or the whole prompt; of longer ones
    the dialogue is cut, and they are counted."""
    decoder_max_len: Length
    """Longest target in tokens, end token included; longer ones lose their end and are counted."""
    long_dialogues_keep: KeptPart = "both_ends"
    """What stays of a too long dialogue, by whole turns; both_ends leaves its middle out."""
    input_prefix: str = ""
    """Text put before every dialogue; it is never cut. A decoder alone has a prompt instead."""
    dialogue_tokens: Literal["standard", "data", "none"] = "standard"
    """Ordinary tokens to add: speaker tags and masks; data: also every #Word# of the train rows."""

    @field_validator("input_prefix")
    @classmethod
    def _has_real_line_breaks(cls, prefix: str) -> str:
        r"""Outside double quotes, YAML leaves \n as two characters."""
        if "\\n" in prefix:
            meant = "double quotes around the text, or no \\n"
            raise unfit(r"a literal \n (backslash and n)", meant)
        return prefix


DIALOGUE, SUBJECT = "{dialogue}", "{subject}"
"""What stands in prompt.user for each row's own."""
FILLED = ("prompt.user", "prompt.chat_template")
"""Keys whose text is filled in, row by row."""


class Prompt(Section):
    """What a decoder-only model is asked; the dialogue alone is ever cut."""

    system: str | None = None
    """Text of the system turn; absent: none is given (some templates put in their own)."""
    user: str = DIALOGUE
    """Text of the user's turn, {dialogue} where the turns stand, a line each; {subject}: what it is
    about, where every split says so (subject_keyword, topic), else prompt.subject."""
    subject: Name = "대화"
    """What stands for {subject} where not every split says what its dialogues are about."""
    chat_template: Name | None = None
    """Jinja template of a conversation, or the path of a file with one; the checkpoint's own when
    absent, and GPT-2's families, which know none: the text of each turn."""

    @field_validator("user")
    @classmethod
    def _asks_for_a_dialogue(cls, user: str) -> str:
        """Without its dialogue a row asks nothing, and other braces would be learnt as text."""
        if "\\n" in user:
            meant = "double quotes around the text, a block (|-), or no \\n"
            raise unfit(r"a literal \n (backslash and n)", meant)
        if user.count(DIALOGUE) != 1:
            found = f"{describe_found(user)}, with {DIALOGUE} {user.count(DIALOGUE)} times"
            raise unfit(found, f"{DIALOGUE} once, where the dialogue is to stand")
        known = (DIALOGUE, SUBJECT)
        if other := [one for one in re.findall(r"\{\w*\}", user) if one not in known]:
            raise unfit(f"{other[0]}, which stands for nothing", f"{DIALOGUE} or {SUBJECT}")
        return user


class Columns(Section):
    """What the columns of the data files are called, where not as here."""

    fname: Name = "fname"
    """The row's name."""
    dialogue: Name = "dialogue"
    """What was said, a turn a line."""
    summary: Name = "summary"
    """Of train and dev."""
    topic: Name = "topic"
    """Of train and dev; under this name it may be absent."""
    subject_keyword: Name = "subject_keyword"
    """What a dialogue is about, the first of several split by commas; it may be absent."""


class Data(Section):
    """Which rows."""

    data_dir: str = "data"
    """Folder of the three files, relative to the project's root or absolute."""
    train_file: str = "train.csv"
    """Training rows: fname, dialogue, summary, topic where there is one."""
    dev_file: str | None = "dev.csv"
    """Rows that choose the best checkpoint and give the reported score. null: data.dev_share."""
    dev_share: Annotated[float, Field(ge=1e-4, le=0.9)] | None = None
    """Without a dev file: this share of the train file's rows, drawn by dialogue with
    training.seed."""
    columns: Columns = Columns()
    """The files' own names of their columns."""
    test_file: str | None = "test.csv"
    """Rows to predict for the submission: fname, dialogue. null: no submission is written."""
    cache_dir: Name | None = ".cache/encoded"
    """Folder in which `dialsum-rows` keeps encoded rows for later runs (nothing else there is
    touched), relative to the project's root or absolute;
    null: none are kept.
    """
    max_train_rows: RowCount | None = None
    """Use so many rows only; all when absent."""
    max_dev_rows: RowCount | None = None
    """Use so many rows only; all when absent."""
    max_test_rows: RowCount | None = None
    """Use so many rows only; all when absent."""
    max_rows_are: Literal["first", "longest"] = "first"
    """Which rows these are: the file's first, or its longest dialogues, which take most memory."""


class Training(Section):
    """The optimisation; names are those of transformers' TrainingArguments."""

    learning_rate: Annotated[float, Field(ge=1e-12, lt=1)]
    """Peak learning rate of AdamW."""
    num_train_epochs: Annotated[float, Field(ge=1e-4, le=100_000)]
    """Passes over the training rows."""
    max_steps: Steps | None = None
    """Optimizer steps; overrides num_train_epochs when given."""
    per_device_train_batch_size: BatchRows | Auto
    """Rows per forward pass; auto takes the device profile's."""
    per_device_eval_batch_size: BatchRows | Auto = "auto"
    """Rows per generation batch; auto makes beams x rows fit the device."""
    gradient_accumulation_steps: BatchRows | Auto
    """Forward passes per optimizer step; effective batch size = batch x accumulation."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ]
    """Shape of the learning rate over the run."""
    lr_scheduler_kwargs: dict[str, Any] = {}
    """Arguments of that shape, such as num_cycles."""
    warmup_steps: Annotated[float, Field(ge=0, le=10_000_000)] = 0.0
    """Steps of rising learning rate; below 1 it is a share of all steps."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Gradients are scaled down to this global norm; 0 never clips."""
    label_smoothing_factor: Share = 0.0
    """Share of the target's probability spread over all pieces."""
    rdrop_alpha: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """R-Drop: each row goes through twice, under two draws of dropout, and what the two say is
    drawn together with this weight (1 to 5 in the paper); twice the time. 0: off."""
    optim: Literal[
        "adamw_torch", "adamw_torch_fused", "adafactor", "adamw_bnb_8bit", "paged_adamw_8bit"
    ] = "adamw_torch"
    """Optimizer, by the library's name."""
    bf16: bool | Auto = "auto"
    """Mixed precision in bfloat16; auto: where the GPU has it."""
    fp16: bool = False
    """Mixed precision in float16; refused for t5, mt5 and gemma, whose activations overflow it."""
    tf32: bool | Auto = "auto"
    """TensorFloat-32 matrix products; auto: where the GPU has them."""
    gradient_checkpointing: bool | Auto = False
    """Recompute activations instead of keeping them: less memory, about a third slower."""
    eval_steps: Steps
    """Optimizer steps between evaluations on dev; a shorter run is evaluated at its end."""
    save_steps: Steps | None = None
    """Optimizer steps between checkpoints to go on from; eval_steps when absent. Each new best is
    saved besides."""
    save_total_limit: Annotated[int, Field(ge=2, le=100_000)] = 2
    """Checkpoints kept: the last and the best at least."""
    logging_steps: Steps = 50
    """Optimizer steps between lines of loss."""
    early_stopping_patience: Steps | None = None
    """Evaluations without improvement after which training stops; never when absent."""
    early_stopping_threshold: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Smallest gain, in points of the metric, that counts as improvement."""
    metric_for_best_model: BestMetric = "rouge_mean"
    """Dev metric that chooses the best checkpoint; loss: the smallest wins."""
    prompt_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of a decoder-only model: what a token of the prompt counts in the loss, where one of the
    summary counts 1; 0: the summary alone is learned, 1: all of the text."""
    packing: bool = False
    """Of a decoder-only model: put several rows into one sequence, each seeing itself alone, so
    that nearly nothing is padding; rows come at random."""
    train_sampling_strategy: Literal["token_budget", "random"] = "token_budget"
    """How rows come together: token_budget puts rows of like length into a forward pass, within the
    tokens of a full-length batch, and keeps the effective batch size in rows; random draws them."""
    on_nan: Literal["rollback", "skip", "stop"] = "rollback"
    """After a step that is not finite: go back to good weights at half the learning rate; leave
    the step out; or fail. Up to three times, each reported in results/nan_report.json."""
    dataloader_num_workers: Annotated[int, Field(ge=0, le=1024)] | Auto = "auto"
    """Processes that prepare batches; auto goes by cores and memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of initialisation, order, dropout."""

    @field_validator("warmup_steps")
    @classmethod
    def _counts_whole_steps(cls, warmup: float) -> float:
        """From 1 on it counts steps."""
        if warmup >= 1 and warmup != int(warmup):
            raise unfit(f"{warmup}", "whole steps, or a share below 1")
        return warmup

    def count_steps(self, *, train_rows: int | None) -> int | None:
        """Return the optimizer steps of a whole run, as transformers counts them; None where the
        batch is `auto` or the rows are not known."""
        if self.max_steps is not None:
            return self.max_steps
        batch, accumulation = self.per_device_train_batch_size, self.gradient_accumulation_steps
        if train_rows is None or batch == "auto" or accumulation == "auto":
            return None
        per_epoch = math.ceil(math.ceil(train_rows / batch) / accumulation)
        return math.ceil(per_epoch * self.num_train_epochs)


Bits = Literal[4, 8]


class Qlora(Section):
    """Low-rank adapters (LoRA) on a frozen base, which is held in 4 or 8 bits if asked."""

    @property
    def bits(self) -> Bits | None:
        """The bits of a weight of the frozen base; None where it is not quantised."""
        if not self.use_qlora:
            return None
        if self.load_in_4bit:
            return 4
        return 8 if self.load_in_8bit else None

    use_qlora: bool
    """Train adapters; false trains every weight (full fine-tuning)."""
    load_in_4bit: bool = True
    """Hold the frozen base in 4-bit NF4 (bitsandbytes)."""
    load_in_8bit: bool = False
    """Hold it in 8-bit LLM.int8 (bitsandbytes) instead; then load_in_4bit must be false."""
    use_unsloth: bool = False
    """Ask for Unsloth; decoder-only models on NVIDIA GPUs get it, others PEFT, which is said."""
    lora_rank: Size = 16
    """Rank r of the update."""
    lora_alpha: Size = 32
    """Scale: the update counts alpha / r."""
    use_rslora: bool = False
    """Rank-stabilised LoRA: the update counts alpha / sqrt(r), so that a high rank still learns."""
    use_dora: bool = False
    """DoRA: the adapter turns each row of a weight, its length is learned apart; slower."""
    init_lora_weights: Literal["default", "pissa"] = "default"
    """default: the update starts at zero; pissa: at the base's largest singular directions."""
    lora_dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: list[str] | Auto = "auto"
    """Layers that get adapters, by name; auto: every linear layer of the family's blocks."""
    train_embeddings: bool = False
    """Also train embeddings, head and norms in full (a base from random weights needs it)."""

    @field_validator("target_modules")
    @classmethod
    def _name_layers(cls, targets: list[str] | str) -> list[str] | str:
        """An empty list would adapt nothing."""
        if isinstance(targets, str):
            return targets
        if not targets:
            raise unfit("an empty list adapts nothing", "auto, or names")
        if "auto" in targets:
            raise unfit("auto inside a list", "auto alone, or names alone")
        if twice := sorted(
            {name for name in targets if targets.count(name) > 1 or not name.strip()}
        ):
            raise unfit(f"{show_value(twice)} empty or twice", "each name once")
        return targets


class Generation(Section):
    """How summaries are written, for the reported scores and the submission."""

    num_beams: Beams = 4
    """Width of the beam search; 1 is greedy. With mbr_temperature: summaries drawn."""
    mbr_temperature: Annotated[float, Field(ge=0.01, le=10)] | None = None
    """In place of a search, num_beams summaries are drawn at this temperature, and the one is kept
    that is most like all of them in ROUGE (minimum Bayes risk decoding). Off when absent."""
    min_new_tokens: Count = 0
    """Shortest summary in tokens."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Longest summary in tokens; tokenizer.decoder_max_len when absent."""
    no_repeat_ngram_size: Count = 0
    """No n tokens in a row come twice (0: off); speaker tags and masks are exempt."""
    length_penalty: Annotated[float, Field(ge=-100, le=100)] = 1.0
    """Above 1 prefers longer beams, below 1 shorter ones."""
    repetition_penalty: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Above 1 discourages tokens already written."""
    early_stopping: bool = True
    """End the search when num_beams summaries are complete."""
    allowed_scripts: Annotated[list[Script], Field(min_length=1)] | None = None
    """Letters of other scripts are never written: [hangul, latin, digits, punctuation] keeps out
    Chinese, Japanese, Vietnamese, emoji (symbols) and all else. Any script when absent."""


class Target(Section):
    """What the run was expected to reach, on its own scale."""

    tokenizer: Scale = "whitespace"
    """Scale of these figures; never compared with another scale."""
    rouge1: Annotated[list[Score], Field(min_length=2, max_length=2)] | None = None
    """Expected ROUGE-1, from and to."""
    minimum: dict[Literal["rouge1", "rouge2", "rougeL"], Score] = {}
    """Least scores of a run worth keeping."""
    ideal: dict[Literal["rouge1", "rouge2", "rougeL"], Score] = {}
    """Scores hoped for."""

    @field_validator("rouge1")
    @classmethod
    def _goes_upwards(cls, expected: list[float] | None) -> list[float] | None:
        if expected is not None and expected[0] > expected[1]:
            raise unfit("[{:g}, {:g}]".format(*expected), "[from, to], 0 to 100")
        return expected


class Evaluation(Section):
    """How dev predictions become scores."""

    tokenizer: Scale = "mecab"
    """Unit that ROUGE counts; the competition counts mecab-ko morphemes. kiwi has to be installed
    (requirements-kiwi.txt); english is rouge_score's own, which drops Hangul."""
    training_num_beams: Beams = 1
    """Beams of the evaluations during training; the reported score uses generation.num_beams."""
    training_max_rows: RowCount | None = None
    """Dev rows (the first) of the evaluations during training; all when absent."""
    target: Target = Target()
    """What the run was expected to reach."""


class Tracking(Section):
    """Where the curves go, besides the run's own files."""

    wandb: bool | Auto = "auto"
    """Weights & Biases; auto: on when WANDB_API_KEY is set. Never asks, never ends a run."""
    project: str = "nlp-5"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; the key's own when absent."""
    tensorboard: bool = True
    """TensorBoard events in the run's logs/."""


class Batch(Section):
    """What the queue does around the experiments: the same for all of a batch."""

    cooldown: Annotated[str, Field(pattern=r"^(until_free|[0-9]{1,5}s|[0-9]{1,3}C)$")] = (
        "until_free"
    )
    """Pause before the next run: until the driver says the memory is free; `75s` lasts that long at
    least, `65C` until the cards are that cool, half an hour at most."""
    free_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Longest wait for a GPU's memory: after an experiment until its own comes free, before one
    until others leave the card that it takes. Then it is said, and the queue goes on."""
    retry: list[Retry] = []
    """What retries change, one more each time, after training ended in NaN or full memory:
    lr_half halves the learning rate (skipped where memory was full), batch_half the batch while
    accumulation doubles, rank_half lora_rank and lora_alpha. A batch alone starts them; trainer.py
    never tries again by itself."""
    hang_minutes: Annotated[float, Field(gt=0, le=10_000)] | None = 30.0
    """Time that a run may give no sign of life in a step or a batch of an evaluation before it is
    taken for hung, twice that while it loads or saves; ten times what the same took before in any
    case. Its stacks are logged, it is ended, and the queue goes on. null: it is waited for."""
    executor: Executor = "local"
    """Where the experiments run: on this machine; or each as an actor of a Ray cluster, which is
    the one that --ray-address names, else one of this machine alone (requirements-ray.txt)."""
    slots: Annotated[int, Field(ge=1, le=256)] | Auto = 1
    """Experiments that run at the same time: on a CPU they share its cores, of several GPUs each
    has one. auto: one for each GPU, else one for each core, as far as memory goes. Under ray at
    most so many, never more than the cluster's nodes have room for; auto: as many as that."""
    gpus_per_experiment: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs of one machine that an experiment takes, each with a share of every step's passes and of
    the rows to summarise: the same but for rounding and for what dropout leaves out. Without a GPU,
    processes that share the cores."""
    cpus_per_experiment: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPUs that an experiment takes of a Ray cluster, beside its GPU if it needs one; also its
    number of threads."""
    disk_budget_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Most that the batch's folder may take on the disk, GB; absent: all that is free, but for 5 GB
    or a twentieth of the disk, whichever is less. Before a checkpoint goes beyond it, older ones go
    (never the best, never the last); where that is not enough, the run stops, and --resume goes on
    from its last one."""
    memory_limit_gib: Annotated[float, Field(gt=0, le=1_000_000)] = 24.0
    """GPU memory that the closing lines hold the run against, GiB."""


class Config(Section):
    """One experiment."""

    general: General = General()
    model: Model
    tokenizer: Tokenizer
    prompt: Prompt = Prompt()
    data: Data = Data()
    training: Training
    qlora: Qlora
    generation: Generation = Generation()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    batch: Batch = Batch()


@cache
def schema_keys() -> dict[str, FieldInfo]:
    """Return every key that holds a value, `training.learning_rate` -> its field, in the schema's
    order.
    """
    return {key: field for key, field in _walk(Config) if not is_section(field)}


@cache
def schema_sections() -> dict[str, list[str]]:
    """Return all sections by their dotted names, each with the names in it; "" is the top level."""
    sections = {"": list(Config.model_fields)}
    for key, field in _walk(Config):
        if is_section(field):
            sections[key] = list(field.annotation.model_fields)  # type: ignore[union-attr]
    return sections


@cache
def mapping_keys() -> frozenset[str]:
    """Return the keys whose value is itself a mapping, such as `training.lr_scheduler_kwargs`."""
    return frozenset(k for k, one in schema_keys().items() if get_origin(one.annotation) is dict)


@cache
def default_of(key: str) -> Any:
    """Return the schema's default of a key; PydanticUndefined where a value must be given."""
    return schema_keys()[key].get_default(call_default_factory=True)


def keys_under(name: str) -> list[str]:
    """Return every key in a section and its subsections ("": all there are), or the key itself."""
    prefix = f"{name}." if name else ""
    return [key for key in schema_keys() if key == name or key.startswith(prefix)]


def json_schema(key: str) -> dict[str, Any]:
    """Return what JSON Schema says of a key: type, bounds, choices, description."""
    node = whole = _whole_schema()
    for name in key.split("."):
        node = node["properties"][name]
        if section := node.get("$ref"):
            node = whole["$defs"][section.rpartition("/")[2]]
    return node


@cache
def _whole_schema() -> dict[str, Any]:
    # Only messages need it.
    return Config.model_json_schema()


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Give dotted name and field of everything in a section, subsections included."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if is_section(field):
            yield from _walk(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def is_section(field: FieldInfo) -> bool:
    """Say whether a field holds a section, not a value."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
