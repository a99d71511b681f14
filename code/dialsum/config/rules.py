"""What must hold between keys of model, tokenizer, data, adapters and scores, one small rule each.

Must not know files or YAML: a rule sees the values of one experiment and says where each was
written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dialsum.config.messages import describe_found, show_value
from dialsum.config.view import Rule, View
from dialsum.config.yaml import Problem
from dialsum.paths import NAME_BYTES, find_name_fault

T5_FAMILY = ("mt5", "t5")
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
}


PIECE_CHARACTERS = 16
"""Longest pieces that sentencepiece makes; the tokenizer itself is asked when it is loaded."""


def fp16_fits_the_family(view: View) -> Iterator[Problem]:
    """T5's activations pass float16's 65,504: the loss becomes NaN."""
    if view["training.fp16"] is True and view["model.architecture"] in T5_FAMILY:
        found = (
            f"fp16: true on {view['model.architecture']}, whose activations overflow float16 (NaN)"
        )
        yield view.problem("training.fp16", found, meant="bf16: true")


def one_mixed_precision(view: View) -> Iterator[Problem]:
    """Only one of the two can run."""
    if view["training.fp16"] is True and view["training.bf16"] is True:
        yield view.problem(
            "training.fp16", "fp16: true beside bf16: true", meant="keep bf16: true alone"
        )


def checkpoint_is_of_the_family(view: View) -> Iterator[Problem]:
    """The seven's checkpoints are known without a download."""
    family = KNOWN_CHECKPOINTS.get(view["model.checkpoint"])
    asked = view["model.architecture"]
    if family and family != asked:
        found = f"{asked} for {view['model.checkpoint']}"
        yield view.problem("model.architecture", found, meant=f"architecture: {family}")


def checkpoint_is_named(view: View) -> Iterator[Problem]:
    """An empty name would be the working folder."""
    if not view["model.checkpoint"].strip():
        meant = "a name on the hub such as digit82/kobart-summarization, or a folder"
        yield view.problem("model.checkpoint", "an empty text", meant=meant)


def shortest_is_below_longest(view: View) -> Iterator[Problem]:
    """A summary cannot be longer than the longest."""
    longest = view["generation.max_new_tokens"] or view["tokenizer.decoder_max_len"]
    if view["generation.min_new_tokens"] > longest:
        found = f"{view['generation.min_new_tokens']}, above the longest, {longest}"
        yield view.problem("generation.min_new_tokens", found, meant=f"at most {longest}")


def prefix_leaves_room(view: View) -> Iterator[Problem]:
    """Each word of the prefix takes a token at least, and the end token one."""
    prefix, longest = view["tokenizer.input_prefix"], view["tokenizer.encoder_max_len"]
    least = max(len(prefix.split()), len("".join(prefix.split())) // PIECE_CHARACTERS)
    if longest <= least + 1:
        found = f"{longest} tokens, of which the prefix and the end take all"
        yield view.problem("tokenizer.encoder_max_len", found, meant="512, or more")


def prefix_has_real_line_breaks(view: View) -> Iterator[Problem]:
    r"""Outside double quotes, YAML leaves \n as two characters."""
    if "\\n" in view["tokenizer.input_prefix"]:
        found = r"a literal \n (backslash and n)"
        yield view.problem(
            "tokenizer.input_prefix", found, meant="double quotes around the text, or no \\n"
        )


def lengths_fit_kobart(view: View) -> Iterator[Problem]:
    """A known KoBART's learned positions end; any other checkpoint says its limit when it is
    loaded.
    """
    is_kobart = (
        "kobart" in view["model.checkpoint"].lower() and view["model.architecture"] == "bart"
    )
    if not is_kobart:
        return
    keys = ("tokenizer.encoder_max_len", "tokenizer.decoder_max_len", "generation.max_new_tokens")
    for key in keys:
        if view.knows(key) and (view[key] or 0) > KOBART_POSITIONS:
            found = f"{view[key]:,} tokens, but KoBART has positions for {KOBART_POSITIONS:,}"
            yield view.problem(key, found, meant=f"at most {KOBART_POSITIONS}")


def label_can_be_a_file_name(view: View) -> Iterator[Problem]:
    """Log files are named by it."""
    label = view["general.label"]
    if label is None:
        return
    fault = find_name_fault(label)
    if fault or re.search(r"\s", label):
        better = re.sub(r"\W+", "_", label).strip("_")[: NAME_BYTES // 4] or "a_name"
        better = "a_name" if find_name_fault(better) else better
        found = f"{describe_found(label)} ({fault or 'a space in it'}); log files are named by it"
        yield view.problem("general.label", found, meant=f"no space or slash: {better}")


def targets_name_layers(view: View) -> Iterator[Problem]:
    """An empty list would adapt nothing."""
    targets = view["qlora.target_modules"]
    if isinstance(targets, str):
        return
    if not targets:
        yield view.problem(
            "qlora.target_modules", "an empty list adapts nothing", meant="auto, or names"
        )
    twice = sorted({name for name in targets if targets.count(name) > 1 or not name.strip()})
    if twice:
        yield view.problem(
            "qlora.target_modules", f"{show_value(twice)} empty or twice", meant="each name once"
        )
    if "auto" in targets:
        yield view.problem(
            "qlora.target_modules", "auto inside a list", meant="auto alone, or names alone"
        )


def training_rows_are_not_dev_rows(view: View) -> Iterator[Problem]:
    """A score on rows that were trained on says nothing."""
    if view["data.train_file"] == view["data.dev_file"]:
        yield view.problem(
            "data.dev_file", f"{view['data.dev_file']} also trains", meant="another file"
        )


def dev_rows_come_from_one_place(view: View) -> Iterator[Problem]:
    """A file, or a share of the train file's rows."""
    share, file = view["data.dev_share"], view["data.dev_file"]
    if share is not None and file is not None:
        found = f"{share:g} beside data.dev_file {file}"
        yield view.problem("data.dev_share", found, meant="one of the two: set the other to null")
    if share is None and file is None:
        meant = "a file, or a share of the train rows as data.dev_share, such as 0.05"
        yield view.problem("data.dev_file", "null, and no data.dev_share", meant=meant)


def columns_differ(view: View) -> Iterator[Problem]:
    """A column is one thing."""
    first: dict[str, str] = {}
    for ours in ("fname", "dialogue", "summary", "topic"):
        own = view[f"data.columns.{ours}"]
        if first.setdefault(own, ours) != ours:
            found = f"{own!r}, which is data.columns.{first[own]} too"
            yield view.problem(f"data.columns.{ours}", found, meant="another column")


def targets_are_scores(view: View) -> Iterator[Problem]:
    """Scores are 0-100, ranges go upwards."""
    key = "evaluation.target.rouge1"
    expected = view[key] if view.knows(key) else None
    if expected is not None and not 0 <= expected[0] <= expected[1] <= 100:
        yield view.problem(key, show_value(expected), meant="[from, to], 0 to 100")
    for name in ("minimum", "ideal"):
        key = f"evaluation.target.{name}"
        for metric, score in view[key].items() if view.knows(key) else ():
            if not 0 <= score <= 100:
                yield view.problem(key, f"{metric}: {score}", meant="a score, 0 to 100")


def claims_agree_with_the_metric(view: View) -> Iterator[Problem]:
    """A claim such as greater_is_better must agree with the metric."""
    for claim in view.resolved.claims:
        metric = view["training.metric_for_best_model"]
        if claim.value == (metric == "loss"):
            found = f"{show_value(claim.value)}, but metric_for_best_model is {metric}"
            yield Problem(
                claim.origin, claim.written, found, "remove it: it follows from the metric"
            )


MODEL_RULES: tuple[Rule, ...] = (
    fp16_fits_the_family,
    one_mixed_precision,
    checkpoint_is_of_the_family,
    checkpoint_is_named,
    shortest_is_below_longest,
    prefix_leaves_room,
    prefix_has_real_line_breaks,
    lengths_fit_kobart,
    label_can_be_a_file_name,
    targets_name_layers,
    training_rows_are_not_dev_rows,
    dev_rows_come_from_one_place,
    columns_differ,
    targets_are_scores,
    claims_agree_with_the_metric,
)
