"""The small language of the sample scenes: choices, slots, particles, optional turns.

A scene is plain text in YAML (README.md beside this file describes it); this file turns one into a
dialogue and its summary. Must not know which scenes there are, how many rows are wanted, or where
they are written.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dialsum.errors import UnfitError

PARTICLES = {
    "은": "는",
    "이": "가",
    "을": "를",
    "과": "와",
    "으로": "로",
    "아": "야",
    "이에요": "예요",
    "이어": "여",
    "이었": "였",
    **{f"이{one}": one for one in (*"나야라란래랑요면며고네니지죠든던군", "거든", "잖아")},
}
"""Form after a final consonant -> form after a vowel. Scenes always write the first one."""
UNCHANGING = ("에게", "에서", "에", "의", "도", "만", "께", "까지", "부터", "인데", "이다")
ALONE = ("이", "아")
"""Particles that nothing follows: 이가 is no particle, and 이야 another one."""
DIGIT_FINALS = dict(zip("0123456789", "ㅇㄹ-ㅁ--ㄱㄹㄹ-", strict=True))
"""How the Korean reading of a digit ends (영 일 이 삼 …); "-" is a vowel."""
LETTER_FINALS = {"l": "ㄹ", "r": "ㄹ", "m": "ㅁ", "n": "ㄴ"}
MASK_FINALS = {
    "PhoneNumber": "-",
    "Address": "-",
    "Email": "ㄹ",
    "CardNumber": "-",
    "PassportNumber": "-",
    "PersonName": "ㅁ",
    "DateOfBirth": "ㄹ",
    "CarNumber": "-",
}
"""A mask is read as the thing that it hides: 전화번호, 주소, 이메일, 이름, 생년월일 …"""
ASIDES = (0, 0, 1, 1, 2)
"""How many asides a dialogue has, each as likely: small talk that the summary leaves out."""

_FIRST_SYLLABLE, _LAST_SYLLABLE, _FINALS = 0xAC00, 0xD7A3, 28
_NIEUN, _RIEUL, _PIEUP = 4, 8, 17  # places of ㄴ, ㄹ, ㅂ among the 28 finals of a syllable
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
_TURN = re.compile(r"([a-z])(\?)?: +(.+)")
_PLAIN_ENDING = re.compile(r"([가-힣])다(?=\.)")


class SceneError(UnfitError):
    """A scene says something that cannot be made into text; the message names scene and text."""


@dataclass(frozen=True)
class Sample:
    """One made row, and the facts (scene, outcome, slot values) that no other row may share."""

    scene: str
    dialogue: str
    summary: str
    topic: str
    facts: tuple[str, ...] = field(repr=False)


def final_of(word: str) -> str:
    """Return how a word's reading ends: "-" for a vowel, "ㄹ", or another consonant.

    Raises:
        SceneError: the last character has no known reading.
    """
    mask = re.search(r"#([A-Za-z]+)#$", word)
    if mask:
        if mask[1] not in MASK_FINALS:
            raise SceneError(f"unknown mask in {word!r}; known: {', '.join(MASK_FINALS)}")
        return MASK_FINALS[mask[1]]
    last = word.rstrip("#")[-1:].lower()
    if last in DIGIT_FINALS:
        return DIGIT_FINALS[last]
    if last and _FIRST_SYLLABLE <= ord(last) <= _LAST_SYLLABLE:
        final = (ord(last) - _FIRST_SYLLABLE) % _FINALS
        return "ㄹ" if final == _RIEUL else "ㄱ" if final else "-"
    if last.isascii() and last.isalpha():
        return LETTER_FINALS.get(last, "-")
    raise SceneError(f"cannot tell how {word!r} is read, so no particle can follow it")


def attach_particle(word: str, particle: str) -> str:
    """Return word with the form of particle that its reading asks for.

    Args:
        word: ends in Hangul, a digit, a letter, a speaker tag or a mask.
        particle: named by its form after a consonant; may be longer (이라고, 이었어요).

    Raises:
        SceneError: the particle is unknown, or the word has no known reading.
    """
    if particle.startswith(UNCHANGING):
        return word + particle
    for key in sorted(PARTICLES, key=len, reverse=True):
        if particle.startswith(key) and (key not in ALONE or particle == key):
            final = final_of(word)
            after_vowel = final == "-" or (key == "으로" and final == "ㄹ")
            return word + (PARTICLES[key] if after_vowel else key) + particle.removeprefix(key)
    known = " ".join((*PARTICLES, *UNCHANGING))
    raise SceneError(f"unknown particle {particle!r} after {word!r}; write one of {known}")


def make_polite(text: str) -> str:
    """Turn each sentence's plain ending into the formal one: 한다 -> 합니다, 했다 -> 했습니다."""
    return _PLAIN_ENDING.sub(lambda match: _formal_ending(match[1]), text)


def _formal_ending(syllable: str) -> str:
    final = (ord(syllable) - _FIRST_SYLLABLE) % _FINALS
    if syllable == "는":  # 먹는다: the stem is what stands before it
        return "습니다"
    if final in (0, _NIEUN):  # 이다, 한다
        return chr(ord(syllable) - final + _PIEUP) + "니다"
    return syllable + "습니다"


def choose(text: str, rng: random.Random) -> str:
    """Replace every (a|b|c), innermost first, by one of its parts."""
    while match := _CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]
    return text


def fill(text: str, values: Mapping[str, Any], *, where: str) -> str:
    """Replace every {slot}, {slot.field}, {slot:particle} and {name+:particle}.

    The + puts 이 behind a given name that ends in a consonant, as friends say it (지훈이는).

    Raises:
        SceneError: a slot or field does not exist; where names the scene.
    """

    def replace(match: re.Match[str]) -> str:
        name, particle = match[1].removesuffix("+"), match[2]
        slot, _, part = name.partition(".")
        value = values.get(slot)
        if part and isinstance(value, Mapping):
            value = value.get(part)
        if not isinstance(value, str):
            known = ", ".join(sorted(values))
            raise SceneError(f"{where}: no text for {{{match[1]}}}; slots: {known}")
        if match[1].endswith("+") and final_of(value) != "-":
            value += "이"
        return attach_particle(value, particle) if particle else value

    return _SLOT.sub(replace, text)


def draw_slots(
    slots: Mapping[str, str | Sequence[Any]],
    vocabulary: Mapping[str, Sequence[Any]],
    rng: random.Random,
) -> dict[str, Any]:
    """Draw one value a slot; two slots of one vocabulary never get the same value.

    Raises:
        SceneError: a slot names a vocabulary that does not exist.
    """
    drawn: dict[str, Any] = {}
    used: dict[str, list[Any]] = {}
    for slot, source in slots.items():
        if isinstance(source, str) and source not in vocabulary:
            known = ", ".join(sorted(vocabulary))
            raise SceneError(f"slot {slot}: no vocabulary {source!r}; known: {known}")
        values = vocabulary[source] if isinstance(source, str) else source
        taken = used.setdefault(str(source), [])
        drawn[slot] = rng.choice([value for value in values if value not in taken])
        taken.append(drawn[slot])
    return drawn


def read_turns(block: str, rng: random.Random, *, where: str) -> list[tuple[str, str]]:
    """Read lines `x: text` and `x?: text` (left out half of the time) into (role, text) pairs.

    Choices are made; neighbouring lines of one role become one turn.

    Raises:
        SceneError: a line is no turn; where names the scene.
    """
    turns: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, block.splitlines())):
        match = _TURN.fullmatch(line)
        if not match:
            raise SceneError(f"{where}: not a turn (`x: text` or `x?: text`): {line!r}")
        if match[2] and rng.random() < 0.5:
            continue
        role, text = match[1], choose(match[3], rng).strip()
        if turns and turns[-1][0] == role:
            text = f"{turns.pop()[1]} {text}"
        turns.append((role, text))
    return turns


def number_speakers(turns: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return each role's tag, numbered by first turn, so that who opens is #Person1#."""
    roles = dict.fromkeys(role for role, _ in turns)
    return {role: f"#Person{number}#" for number, role in enumerate(roles, start=1)}


def make_sample(
    name: str, scene: Mapping[str, Any], vocabulary: Mapping[str, Sequence[Any]], rng: random.Random
) -> Sample:
    """Make one row of a scene: draw slots and outcome, write the turns, then the summary.

    Raises:
        SceneError: the scene's text names a slot, particle or role that does not exist.
    """
    values = draw_slots(scene["slots"], vocabulary, rng)
    outcome_name = rng.choice(sorted(scene["outcomes"]))
    outcome = scene["outcomes"][outcome_name]
    middle = scene.get("middle", [])
    asides = rng.sample(middle, k=min(len(middle), rng.choice(ASIDES)))
    blocks = [rng.choice(scene["opening"]), *asides, outcome["then"]]
    turns = read_turns("\n".join(blocks), rng, where=name)
    values |= number_speakers(turns)
    dialogue = "\n".join(
        f"{values[role]}: {fill(text, values, where=name)}" for role, text in turns
    )
    summary = fill(choose(outcome["summary"].strip(), rng), values, where=name)
    if scene.get("style", "polite") == "polite":
        summary = make_polite(summary)
    facts = (name, outcome_name, *(str(values[slot]) for slot in scene["slots"]))
    return Sample(name, dialogue, summary, rng.choice(scene["topics"]), facts)
