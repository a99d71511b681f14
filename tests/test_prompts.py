"""Prompts of decoder-only models: what is asked, what is learned, what is cut, what is refused."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.schema import Config, Model, Prompt, Tokenizer
from dialsum.data.encode import EncodedSplit, encode_rows
from dialsum.data.prompts import PLAIN_TEMPLATE, Frame, find_subject, make_frame, use_template
from dialsum.data.rows import Dialogue, load_split
from dialsum.errors import RunError, UnfitError
from dialsum.models.families import FAMILIES
from dialsum.models.tiny import TOKENIZERS
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from small_models import REPOSITORY, SAMPLE, sample_texts, session_folder

ALONE = [name for name, family in FAMILIES.items() if family.decoder_only]
CHAT = [name for name in ALONE if FAMILIES[name].chat]
ASKED = Prompt(system="당신은 요약가입니다.", user="요약하세요:\n---\n{dialogue}\n---")
ENDS = {"llama": "<|eot_id|>", "qwen": "<|im_end|>", "gemma": "<end_of_turn>"}
ENDS |= {"gpt2": "<|endoftext|>", "kogpt2": "</s>"}


@cache
def folder_of(name: str) -> Path:
    folder = session_folder()
    # Each sign of the prompts is a piece: KoGPT2's tokenizer knows no bytes.
    TOKENIZERS[name](folder, [*sample_texts(), f"{ASKED.system} {ASKED.user}" * 3])
    return folder


def load(name: str, asked: Prompt = ASKED) -> Any:
    tokenizer = load_tokenizer(folder_of(name))
    use_template(tokenizer, asked, chat=FAMILIES[name].chat, source=name)
    add_dialogue_tokens(tokenizer, [])
    return tokenizer


def config_of(asked: Prompt) -> Config:
    model = Model(architecture="llama", checkpoint="a/b")
    return Config.model_construct(prompt=asked, model=model)


def frame_of(tokenizer: Any, asked: Prompt = ASKED, **options: Any) -> Frame:
    return make_frame(config_of(asked), tokenizer, **options)


def lengths(most: int, target: int = 600) -> Tokenizer:
    return Tokenizer(encoder_max_len=most, decoder_max_len=target)


def fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def rows_at_hand() -> list[Dialogue]:
    rows = load_split(SAMPLE / "train.csv", kind="train").rows
    real = REPOSITORY.parent / "shared" / "data" / "ko" / "train.csv"
    return rows + (load_split(real, kind="train").rows if real.is_file() else [])


def encode(name: str, rows: list[Dialogue], most: int = 4096) -> tuple[Any, Frame, EncodedSplit]:
    tokenizer = load(name)
    frame = frame_of(tokenizer)
    return tokenizer, frame, encode_rows(rows, tokenizer, lengths(most), frame=frame)


@pytest.mark.parametrize("name", ALONE)
def test_what_is_learned_is_the_summary_with_its_end_and_nothing_else(name: str) -> None:
    rows = rows_at_hand()
    tokenizer, frame, encoded = encode(name, rows)
    assert tokenizer.eos_token == ENDS[name]
    assert encoded.targets is not None
    astray, apart = [], []
    for row, prompt, target in zip(rows, encoded.inputs, encoded.targets, strict=True):
        said = str(tokenizer.decode(target.tolist()))
        if tokenizer.unk_token_id not in target and fold(said) != fold(
            f"{row.summary}{ENDS[name]}"
        ):
            astray.append((row.fname, said))
        # The whole conversation, tokenised at once, comes to the same tokens; where a text by
        # itself begins with a word mark (KoGPT2), with a space before the summary.
        mark = " " if name == "kogpt2" else ""
        text = f"{frame.build(row)[0]}{mark}{row.summary}{ENDS[name]}"
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        if whole != [*prompt.tolist(), *target.tolist()]:
            apart.append(row.fname)
    assert astray == []
    assert apart == []


@pytest.mark.parametrize("name", ALONE)
def test_a_prompt_is_whole_and_the_same_on_any_day(name: str) -> None:
    row = Dialogue("a", "#Person1#: 안녕\n#Person2#: 네", "인사한다.", None, 1)
    tokenizer, frame, encoded = encode(name, [row])
    text = str(tokenizer.decode(encoded.inputs[0].tolist())).strip()
    assert fold(text) == fold(frame.build(row)[0])
    assert text.count("요약하세요:\n---\n#Person1#: 안녕\n#Person2#: 네\n---") == 1
    assert text.count("당신은 요약가입니다.") == 1
    if tokenizer.bos_token and name in CHAT:
        assert text.count(tokenizer.bos_token) == 1
    if name == "llama":
        assert "26 Jul 2024" in text
    if name == "qwen":  # what stands before an answer that was trained stands before one asked for
        assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>")


@pytest.mark.parametrize("template", [None, PLAIN_TEMPLATE])
@pytest.mark.parametrize("name", ALONE)
def test_a_text_begins_as_all_texts_of_the_tokenizer_do(name: str, template: str | None) -> None:
    """Gemma and Llama know no text without their first token, whatever a template writes."""
    asked = Prompt(user="{dialogue}\n\n요약:", chat_template=template)
    tokenizer = load(name, asked)
    row = Dialogue("a", "#Person1#: 안녕", "인사한다.", None, 1)
    encoded = encode_rows([row], tokenizer, lengths(512), frame=frame_of(tokenizer, asked))
    begin = tokenizer("")["input_ids"][:1]
    assert bool(begin) == (name in ("llama", "gemma"))
    ids = encoded.inputs[0].tolist()
    assert ids[: len(begin)] == begin
    assert not begin or ids.count(begin[0]) == 1


@pytest.mark.parametrize("part", ["both_ends", "start", "end"])
@pytest.mark.parametrize("name", ALONE)
def test_of_a_long_row_the_dialogue_alone_is_cut_by_whole_turns(name: str, part: Any) -> None:
    turns = [f"#Person{1 + at % 2}#: {'네 ' * (at + 3)}{at}번." for at in range(20)]
    row = Dialogue("a", "\n".join(turns), "요약이다.", None, 1)
    tokenizer = load(name)
    frame = frame_of(tokenizer)
    whole = encode_rows([row], tokenizer, lengths(4096), frame=frame)
    longest = len(whole.inputs[0])
    around = longest - len(tokenizer(row.dialogue, add_special_tokens=False)["input_ids"])
    asked = Tokenizer(
        encoder_max_len=(longest + around) // 2, decoder_max_len=99, long_dialogues_keep=part
    )
    cut = encode_rows([row], tokenizer, asked, frame=frame)
    assert 0.7 * asked.encoder_max_len < len(cut.inputs[0]) <= asked.encoder_max_len
    assert (cut.counts.truncated_inputs, cut.counts.inputs_cut_inside) == (1, 0)
    text = str(tokenizer.decode(cut.inputs[0].tolist())).strip()
    head, tail = frame.head.strip(), frame.tail.strip()
    assert text.startswith(head)
    assert text.endswith(tail)
    kept = [line for line in text.removeprefix(head).removesuffix(tail).split("\n") if line.strip()]
    assert set(kept) <= set(turns)
    assert 0 < len(kept) < len(turns)
    assert (turns[0] in kept, turns[-1] in kept) == (part != "end", part != "start")


@pytest.mark.parametrize("name", ALONE)
def test_a_prompt_that_leaves_no_room_is_said(name: str) -> None:
    row = Dialogue("a", "#Person1#: 안녕", "인사한다.", None, 1)
    tokenizer = load(name)
    with pytest.raises(RunError, match=r"prompt\.system, prompt\.user .* none is left"):
        encode_rows([row], tokenizer, lengths(8), frame=frame_of(tokenizer))


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
supported') }}{% endif %}{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
LEFT_OUT = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}\n{% endfor %}"
TWICE = "{% for m in messages %}{{ m['content'] + m['content'] }}\n{% endfor %}"
TURNED = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A:\
{% endif %}"
OPEN = "{% for m in messages %}{{ m['content'] }} 끝\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NO_SYSTEM, r"no system turn.*prompt\.user"),
        (LEFT_OUT, r"prompt\.system: this checkpoint's chat template has no system turn"),
        (TWICE, r"writes the dialogue 2 times"),
        (TURNED, r"otherwise than it asks for an answer"),
        (OPEN, r"ends an answer with '끝"),
        ("{% for m in messages %}", r"cannot write this prompt .*mend prompt\.chat_template"),
        ("{{ nothing.there }}", r"cannot write this prompt"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(template: str, said: str) -> None:
    with pytest.raises(UnfitError, match=said):
        load("llama", ASKED.model_copy(update={"chat_template": template}))


def test_without_a_template_one_is_asked_for_by_an_example(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder_of("gpt2"))
    with pytest.raises(
        UnfitError, match=r"brings no chat template[^\n]*\n.*\n.*chat_template: .*role"
    ):
        use_template(tokenizer, ASKED, chat=True, source="a/b")
    file = tmp_path / "plain.jinja"
    file.write_text(PLAIN_TEMPLATE, encoding="utf-8")
    given = ASKED.model_copy(update={"chat_template": str(file)})
    use_template(tokenizer, given, chat=True, source="a/b")
    assert tokenizer.chat_template == PLAIN_TEMPLATE


ABOUT = Prompt(user="{dialogue}\n\n{subject}에 대해 요약해주세요.")


def row_about(topic: str | None, keyword: str | None) -> Dialogue:
    return Dialogue("a", "#Person1#: 안녕", "인사한다.", topic, 1, 1, keyword)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (("여행", "비행기"), ("여행", "비행기"), "subject_keyword"),
        (("여행", "비행기"), ("여행", None), "topic"),
        (("여행", "비행기"), (None, None), None),
        ((None, "비행기"), (None, "비행기"), "subject_keyword"),
    ],
)
def test_a_subject_is_told_only_where_every_split_has_it(
    train: tuple[str | None, str | None], test: tuple[str | None, str | None], expected: Any
) -> None:
    splits = {"train": [row_about(*train)], "test": [row_about(*test)]}
    found = find_subject(splits, ABOUT)
    assert found == expected
    assert find_subject(splits, ASKED) is None
    assert find_subject({"train": splits["train"]}, ABOUT) is None
    tokenizer = load("qwen", ABOUT)
    text = frame_of(tokenizer, ABOUT, subject_of=found).build(splits["train"][0])[0]
    named = {"subject_keyword": "비행기", "topic": "여행", None: "대화"}[expected]
    assert f"{named}에 대해 요약해주세요." in text


def test_the_first_keyword_is_the_subject(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        "fname,dialogue,summary,subject_keyword\n"
        'a,#Person1#: 가,요약,"비행기, 여행"\n'
        "b,#Person1#: 나,요약,\"['식당', '예약']\"\n"
        "c,#Person1#: 다,요약,\n",
        encoding="utf-8",
    )
    rows = load_split(path, kind="train").rows
    assert [row.subject_keyword for row in rows] == ["비행기", "식당", None]
