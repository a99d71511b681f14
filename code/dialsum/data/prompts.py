"""What stands around a dialogue in the text that a model reads: a prefix, or a decoder's prompt.

A template of conversations is rendered once, with a mark where the dialogue is to stand; what is
before and after it is every row's. What would differ from run to run, or between what is trained
and what is asked, is fixed: the day's date, and the empty thoughts of models that may think. The
tokenizer is given; must not know models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from dialsum.config.schema import DECODER_ONLY, DIALOGUE, SUBJECT, Config, Prompt
from dialsum.data.cleaning import fold_spaces
from dialsum.data.rows import Dialogue
from dialsum.errors import UnfitError, first_line
from dialsum.files import read_regular
from dialsum.paths import project_path
from dialsum.text import shorten

SubjectOf = Literal["subject_keyword", "topic"]
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""Of models that were trained on no conversations: the texts, a line each."""
EXAMPLE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DAY = date(2024, 7, 26)
"""The day that templates are told, by which Llama 3.2's goes where it knows none: with the real one
no run would be repeatable."""
DIALOGUE_MARK, SUBJECT_MARK, ANSWER_MARK = "\ue000dialogue\ue000", "\ue000subject\ue000", "\ue000"
LONGEST_SHOWN = 400


@dataclass(frozen=True)
class Frame:
    """What stands around each dialogue.

    Args:
        head, tail: text before and after it, SUBJECT_MARK where the row's subject is to stand.
        special: the tokenizer puts its own start and end into a text; a template has written them.
        subject: what a row is about that does not say so.
        subject_of: the column that says so in every split; None: not every split does.
    """

    head: str = ""
    tail: str = ""
    special: bool = True
    subject: str = ""
    subject_of: SubjectOf | None = None

    @classmethod
    def of_prefix(cls, prefix: str) -> Frame:
        """Return the frame of an encoder's input; the prefix keeps its last space."""
        return cls(head=fold_spaces(f"{prefix}x")[:-1])

    def build(self, row: Dialogue) -> tuple[str, int, int]:
        """Return a row's text, and where its dialogue begins and ends in it."""
        named = getattr(row, self.subject_of) if self.subject_of else None
        head, tail = (
            part.replace(SUBJECT_MARK, named or self.subject) for part in (self.head, self.tail)
        )
        text = head + fold_spaces(row.dialogue)
        return text + tail, len(head), len(text)

    def describe(self) -> str:
        """Say by which keys it is asked for, up to the verb."""
        if self.special:
            return f"tokenizer.input_prefix {self.head!r} and the end token take"
        return "the prompt (prompt.system, prompt.user and the chat template) takes"

    def show(self) -> str:
        """Return it in one line, for the screen."""
        whole = f"{self.head}{DIALOGUE}{self.tail}".replace(SUBJECT_MARK, SUBJECT)
        return shorten(whole.replace("\n", "\\n"), limit=LONGEST_SHOWN)


def make_frame(config: Config, tokenizer: Any, *, subject_of: SubjectOf | None = None) -> Frame:
    """Return the frame of an experiment's texts.

    Args:
        tokenizer: of a decoder alone with the template that it goes by (use_template).
        subject_of: as find_subject returns it.

    Raises:
        UnfitError: the template cannot be used with this prompt.
    """
    if config.model.architecture not in DECODER_ONLY:
        return Frame.of_prefix(config.tokenizer.input_prefix)
    asked = config.prompt
    head, _, tail = _render_prompt(tokenizer, asked).partition(DIALOGUE_MARK)
    begin = tokenizer.bos_token
    if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] and not head.startswith(begin):
        # No text of its training began without: Gemma's first loss is 5.7 then, not 3.0.
        head = f"{begin}{head}"
    return Frame(head, tail, special=False, subject=asked.subject, subject_of=subject_of)


def find_subject(splits: Mapping[str, Iterable[Dialogue]], asked: Prompt) -> SubjectOf | None:
    """Return the column by which every split says what its dialogues are about.

    A column that the test lacks would flatter the dev score, and of a test that is not there nobody
    knows. None where {subject} is not asked for.
    """
    names: tuple[SubjectOf, ...] = ("subject_keyword", "topic")
    if SUBJECT not in asked.user or "test" not in splits:
        return None
    rows = [[*split] for split in splits.values()]
    return next(
        (name for name in names if all(getattr(row, name) for split in rows for row in split)), None
    )


def use_template(tokenizer: Any, asked: Prompt, *, chat: bool, source: str) -> None:
    """Give a tokenizer the template that its prompts are made by, and the end of a turn as the end
    of a text.

    Args:
        chat: the model was trained on conversations; else the texts are put after one another.
        source: the checkpoint, for messages.

    Raises:
        UnfitError: there is no template, or it cannot be used.
        OSError: a file of it cannot be read.
    """
    said = asked.chat_template
    if said is not None and "{{" not in said and "{%" not in said:
        said = read_regular(project_path(said)).decode("utf-8")
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several, by their purpose
        own = own.get("default")
    template = said or own or (None if chat else PLAIN_TEMPLATE)
    if template is None:
        raise UnfitError(
            f"model.checkpoint {source}: brings no chat template, so it is not known how a "
            "conversation is written; give the one that it was trained with as "
            "prompt.chat_template, a file or the text itself, such as\n"
            f"  prompt:\n    chat_template: {EXAMPLE!r}\n"
            "or, for a base model that knows no conversations, the texts alone:\n"
            f"  prompt:\n    chat_template: {PLAIN_TEMPLATE!r}"
        )
    tokenizer.chat_template = template
    prompt = _render_prompt(tokenizer, asked)
    whole = _render(tokenizer, [*_turns(asked), {"role": "assistant", "content": ANSWER_MARK}])
    if not whole.startswith(f"{prompt}{ANSWER_MARK}"):
        raise UnfitError(
            f"{source}: its chat template writes a conversation otherwise than it asks for an "
            f"answer ({shorten(prompt, limit=80)!r} against {shorten(whole, limit=80)!r}), so that "
            "something else would be asked than was trained; give another prompt.chat_template"
        )
    after = whole.removeprefix(f"{prompt}{ANSWER_MARK}").lstrip()
    if not after:
        return
    first = tokenizer(after, add_special_tokens=False)["input_ids"][0]
    token = tokenizer.added_tokens_decoder.get(first)
    if token is None or not token.special:
        raise UnfitError(
            f"{source}: its chat template ends an answer with {shorten(after, limit=40)!r}, which "
            "is no token of its own, so that the model could not say when it is done; give a "
            "prompt.chat_template that ends each turn with such a token"
        )
    tokenizer.eos_token = token.content


def _turns(asked: Prompt) -> list[dict[str, str]]:
    user = asked.user.replace(DIALOGUE, DIALOGUE_MARK).replace(SUBJECT, SUBJECT_MARK)
    system = [] if asked.system is None else [{"role": "system", "content": asked.system}]
    return [*system, {"role": "user", "content": user}]


def _render_prompt(tokenizer: Any, asked: Prompt) -> str:
    """Return the prompt, with marks in the place of dialogue and subject.

    Raises:
        UnfitError: something of it is lost, or comes twice.
    """
    prompt = _render(tokenizer, _turns(asked), ask=True)
    if asked.system and asked.system.strip() not in prompt:
        raise UnfitError(
            "prompt.system: this checkpoint's chat template has no system turn and leaves it out; "
            "put the text into prompt.user and set prompt.system: null"
        )
    if prompt.count(DIALOGUE_MARK) != 1:
        raise UnfitError(
            f"prompt.chat_template writes the dialogue {prompt.count(DIALOGUE_MARK)} times, not "
            "once; give the one that the checkpoint was trained with"
        )
    return prompt


def _render(tokenizer: Any, turns: Sequence[Mapping[str, str]], *, ask: bool = False) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            list(turns),
            tokenize=False,
            add_generation_prompt=ask,
            enable_thinking=False,
            date_string=DAY.strftime("%d %b %Y"),
            strftime_now=DAY.strftime,
        )
    except Exception as error:  # a template is a program: it may fail in any way, or say no itself
        about_system = any(one["role"] == "system" for one in turns)
        hint = "mend prompt.chat_template, or leave it out"
        if about_system and "system" in str(error).lower():
            hint = (
                "it has no system turn: put the text into prompt.user and set prompt.system: null"
            )
        raise UnfitError(
            f"the chat template cannot write this prompt ({first_line(error)}); {hint}"
        ) from error
    return text
