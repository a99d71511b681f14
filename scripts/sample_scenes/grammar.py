"""The small language in which the sample scenes are written: choices, slots, particles, optional turns.

A scene is plain text in YAML (see README.md in this folder); this file turns one into a dialogue and its summary.
Must not know which scenes there are, how many rows are wanted, or where they are written.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Form after a final consonant -> form after a vowel. Scenes always write the first one.
PARTICLES = {
    "은": "는", "이": "가", "을": "를", "과": "와", "으로": "로", "이나": "나", "이랑": "랑", "아": "야", "이야": "야",
    "이에요": "예요", "이었": "였", "이라": "라", "이라도": "라도", "이요": "요", "이면": "면", "이고": "고", "이지": "지",
    "이네": "네", "이랬": "랬", "이든": "든", "이래": "래", "이죠": "죠", "이거든": "거든", "이니": "니", "이며": "며",
}
UNCHANGING = ("에게", "에서", "에", "의", "도", "만", "께", "까지", "부터", "보다", "처럼", "한테", "하고", "인데", "이다")
# Whether the Korean reading of a character ends in a consonant; ㄹ counts apart, since 으로 drops its 으 after it.
DIGIT_FINALS = dict(zip("0123456789", ("ㅇ", "ㄹ", "", "ㅁ", "", "", "ㄱ", "ㄹ", "ㄹ", ""), strict=True))
LETTER_FINALS = {"l": "ㄹ", "r": "ㄹ", "m": "ㅁ", "n": "ㄴ"}
# What stands behind a mask is read by the thing that it hides (전화번호, 주소, 이메일, 이름 ...).
MASK_FINALS = {"PhoneNumber": "", "Address": "", "Email": "ㄹ", "CardNumber": "", "PassportNumber": "",
               "PersonName": "ㅁ", "DateOfBirth": "ㄹ", "CarNumber": ""}
FIRST_HANGUL, LAST_HANGUL, FINALS = 0xAC00, 0xD7A3, 28
RIEUL, NIEUN, PIEUP = 8, 4, 17
ASIDES = (0, 0, 1, 1, 2)  # how many of a scene's asides (small talk that the summary leaves out) a dialogue has

_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
_TURN = re.compile(r"^([a-z])(\?)?: +(.+)$")
_PLAIN_ENDING = re.compile(r"([가-힣])다(?=\.)")


class SceneError(ValueError):
    """A scene file says something that cannot be made into text; the message names scene and text."""


@dataclass(frozen=True)
class Sample:
    """One made row, and the facts (scene, outcome, slot values) that no other row may share."""

    scene: str
    dialogue: str
    summary: str
    topic: str
    facts: tuple[str, ...] = field(repr=False)


def final_of(word: str) -> str:
    """Return how the word's reading ends: "" for a vowel, "ㄹ", or another consonant (any name)."""
    mask = re.search(r"#([A-Za-z]+)#$", word)
    if mask:
        if mask[1] not in MASK_FINALS:
            raise SceneError(f"unknown mask in {word!r}; known: {', '.join(MASK_FINALS)}")
        return MASK_FINALS[mask[1]]
    last = word.rstrip("#")[-1:].lower()
    if last in DIGIT_FINALS:
        return DIGIT_FINALS[last]
    if last and FIRST_HANGUL <= ord(last) <= LAST_HANGUL:
        final = (ord(last) - FIRST_HANGUL) % FINALS
        return "ㄹ" if final == RIEUL else "ㄱ" if final else ""
    if last.isascii() and last.isalpha():
        return LETTER_FINALS.get(last, "")
    raise SceneError(f"cannot tell how {word!r} is read, so no particle can follow it")


def attach_particle(word: str, particle: str) -> str:
    """Return word with the form of particle that its reading asks for; particle is named by its consonant form.

    Raises:
        SceneError: the particle is unknown, or the word's last character has no known reading.
    """
    if particle.startswith(UNCHANGING):
        return word + particle
    for key in sorted(PARTICLES, key=len, reverse=True):
        if particle.startswith(key):
            final = final_of(word)
            vowel_form = final == "" or (key == "으로" and final == "ㄹ")
            return word + (PARTICLES[key] if vowel_form else key) + particle[len(key):]
    raise SceneError(f"unknown particle {particle!r} after {word!r}; write one of {' '.join((*PARTICLES, *UNCHANGING))}")


def make_polite(text: str) -> str:
    """Turn each sentence's plain ending into the formal one: 한다 -> 합니다, 않는다 -> 않습니다, 했다 -> 했습니다."""
    return _PLAIN_ENDING.sub(lambda match: _formal_ending(match[1]), text).replace("는습니다", "습니다")


def _formal_ending(syllable: str) -> str:
    final = (ord(syllable) - FIRST_HANGUL) % FINALS
    if syllable == "는":  # 먹는다: the stem stands before it
        return "는습니다"
    if final in (0, NIEUN):  # 이다, 한다
        return chr(ord(syllable) - final + PIEUP) + "니다"
    return syllable + "습니다"


def choose(text: str, rng: random.Random) -> str:
    """Replace every (a|b|c), innermost first, by one of its parts; an empty part makes the rest optional."""
    while match := _CHOICE.search(text):
        parts = match[1].split("|")
        text = text[: match.start()] + rng.choice(parts) + text[match.end():]
    return text


def fill(text: str, values: Mapping[str, Any], *, where: str) -> str:
    """Replace every {slot}, {slot.field} and {slot:particle}; {slot+:particle} puts 이 behind a name in a consonant."""

    def replace(match: re.Match[str]) -> str:
        name, particle = match[1], match[2]
        call_name, name = name.endswith("+"), name.removesuffix("+")
        slot, _, part = name.partition(".")
        if name.startswith("#"):
            value = name
        elif slot not in values or (part and (not isinstance(values[slot], Mapping) or part not in values[slot])):
            raise SceneError(f"{where}: no value for {{{name}}}; known: {', '.join(sorted(values))}")
        else:
            value = values[slot][part] if part else values[slot]
        if not isinstance(value, str):
            raise SceneError(f"{where}: {{{name}}} has several fields; name one, such as {{{name}.{next(iter(value))}}}")
        if call_name and final_of(value):
            value += "이"
        return attach_particle(value, particle) if particle else value

    return _SLOT.sub(replace, text)


def draw_slots(
    slots: Mapping[str, str | Sequence[Any]], vocabulary: Mapping[str, Sequence[Any]], rng: random.Random
) -> dict[str, Any]:
    """Draw one value a slot; two slots of one vocabulary never get the same value."""
    drawn: dict[str, Any] = {}
    used: dict[str, list[Any]] = {}
    for slot, source in slots.items():
        if isinstance(source, str) and source not in vocabulary:
            raise SceneError(f"slot {slot}: no vocabulary {source!r}; known: {', '.join(sorted(vocabulary))}")
        values = vocabulary[source] if isinstance(source, str) else source
        taken = used.setdefault(str(source), [])
        drawn[slot] = rng.choice([value for value in values if value not in taken])
        taken.append(drawn[slot])
    return drawn


def read_turns(block: str, rng: random.Random, *, where: str) -> list[tuple[str, str]]:
    """Read lines `x: text` and `x?: text` (left out half of the time) into (role, text) pairs, choices made."""
    turns: list[tuple[str, str]] = []
    for line in block.splitlines():
        if not line.strip():
            continue
        match = _TURN.match(line.strip())
        if not match:
            raise SceneError(f"{where}: not a turn (`x: text` or `x?: text`): {line!r}")
        if match[2] and rng.random() < 0.5:
            continue
        text = choose(match[3], rng).strip()
        if turns and turns[-1][0] == match[1]:
            turns[-1] = (match[1], f"{turns[-1][1]} {text}")
        else:
            turns.append((match[1], text))
    return turns


def make_sample(
    name: str, scene: Mapping[str, Any], vocabulary: Mapping[str, Sequence[Any]], rng: random.Random
) -> Sample:
    """Make one row of a scene: draw slots and outcome, write the turns, then the summary that follows from them.

    Speakers are numbered in the order in which they first speak, so the same role may be #Person1# or #Person2#.

    Raises:
        SceneError: the scene's text names a slot, particle or role that does not exist.
    """
    values = draw_slots(scene.get("slots", {}), vocabulary, rng)
    outcome_name = rng.choice(sorted(scene["outcomes"]))
    outcome = scene["outcomes"][outcome_name]
    middle = scene.get("middle", [])
    asides = rng.sample(middle, k=min(len(middle), rng.choice(ASIDES)))
    turns = read_turns("\n".join([rng.choice(scene["opening"]), *asides, outcome["then"]]), rng, where=name)
    values |= number_speakers(turns)
    dialogue = "\n".join(f"{values[role]}: {fill(text, values, where=name)}" for role, text in turns)
    summary = fill(choose(outcome["summary"], rng), values, where=name)
    summary = make_polite(summary) if scene.get("style", "polite") == "polite" else summary
    facts = (name, outcome_name, *(str(values[slot]) for slot in scene.get("slots", {})))
    return Sample(name, dialogue, summary.strip(), rng.choice(scene["topics"]), facts)


def number_speakers(turns: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return each role's tag, numbered by first turn."""
    roles = list(dict.fromkeys(role for role, _ in turns))
    return {role: f"#Person{number}#" for number, role in enumerate(roles, start=1)}
