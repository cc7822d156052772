"""Write the pool that the project ships: support-desk messages of the invented web shop Fennwick.

Every sentence stands in ``scripts/demo_parts`` and was written by hand for this project; this script only
puts them together. The same seed gives the same bytes on every machine: the one source of chance is
``random.Random(<text>).random()``, whose sequence Python guarantees.

Run ``python scripts/make_demo_pool.py`` to write the files again, ``--check`` to compare them with what is
committed (exit status 1 if they differ). ``docs/demo_pool.md`` describes the data.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

PARTS = Path(__file__).parent / "demo_parts"
TARGET = Path(__file__).resolve().parents[1] / "icl_select" / "data"
SEED = 2027
POOL_SIZE = 1500
TEST_SIZE = 400
NEAR_DUPLICATES = 75
EXACT_DUPLICATES = 12

T = TypeVar("T")
Record = dict[str, str]
Parts = dict[str, Any]

CONTRACTIONS = {
    "I am ": "I'm ",
    "do not ": "don't ",
    "does not ": "doesn't ",
    "did not ": "didn't ",
    "cannot ": "can't ",
    "will not ": "won't ",
    "is not ": "isn't ",
    "It is ": "It's ",
    "it is ": "it's ",
    "I would ": "I'd ",
    "that is ": "that's ",
    "We are ": "We're ",
    "What is ": "What's ",
}
SHORTHAND = {"please": "pls", "Please": "pls", "your": "ur", " and ": " & ", "you": "u", "message": "msg"}
TYPO_NEIGHBOURS = {"a": "s", "e": "r", "i": "o", "o": "p", "n": "m", "t": "y", "r": "e", "s": "a", "l": "k", "c": "v"}


class Chance:
    """Draws from one named stream, made of ``random.random`` only."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(name)

    def under(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._random.random() * n)

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One item, likely in proportion to its weight."""
        left = self._random.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


def load_parts() -> tuple[Parts, list[Parts]]:
    """The shared parts and the intents, largest share first."""
    common = yaml.safe_load((PARTS / "common.yaml").read_text(encoding="utf-8"))
    files = sorted(path for path in PARTS.glob("*.yaml") if path.name != "common.yaml")
    intents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    return common, sorted(intents, key=lambda intent: (-intent["share"], intent["intent"]))


def draw_slots(chance: Chance, lists: dict[str, list[Any]]) -> dict[str, str]:
    """One value for every slot; a message uses the same value wherever the slot occurs."""
    slots = {name: str(chance.pick(values)) for name, values in lists.items()}
    if slots["product"] in lists["device"]:
        slots["device"] = slots["product"]
    for name, source in {"other_product": "product", "other_plan": "plan", "weekday2": "weekday"}.items():
        slots[name] = str(chance.pick([value for value in lists[source] if value != slots[source]]))
    ending = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}
    euros = chance.pick([9, 12, 14, 19, 24, 29, 35, 39, 49, 59, 69, 79, 89, 99, 119, 149, 199, 249, 329])
    amount = f"{euros}.{chance.pick(['00', '90', '95', '50', '99'])}"
    slots["amount"] = chance.pick([f"{amount} euros", f"€{amount}", f"{amount} EUR", f"{euros} euros", f"£{amount}"])
    day, month = chance.between(1, 28), slots["month"]
    slots["date"] = chance.pick(
        [f"{month} {day}", f"{day} {month}", f"the {day}{ending.get(day, 'th')}", f"{month[:3]} {day}"]
    )
    slots["order"] = chance.pick([f"F-{chance.between(10000, 99999)}", f"#{chance.between(200000, 899999)}"])
    slots["invoice"] = chance.pick([f"{chance.between(1000, 9999)}", f"R-{chance.between(20000, 99999)}"])
    slots["error"] = chance.pick([f"E{chance.between(10, 99)}", f"{chance.between(400, 504)}", "0x80070057", "-1"])
    slots["customer"] = f"{chance.between(100000, 999999)}"
    for name in ("person", "carrier", "app"):
        slots[f"{name}_cap"] = slots[name][0].upper() + slots[name][1:]
    return slots


def allowed(lines: Sequence[str], split: str) -> list[str]:
    """The lines a split may use: every fifth, from the fourth on, is kept for the test messages."""
    return [line for i, line in enumerate(lines) if split == "test" or i % 5 != 3]


class Writer:
    """Puts one message together, from its own stream of chance."""

    def __init__(self, common: Parts, intents: list[Parts], split: str) -> None:
        self.common, self.intents, self.split = common, intents, split

    def message(self, intent: Parts, name: str) -> Record:
        """Subject and body of one message of the intent."""
        chance = Chance(name)
        topics = intent["topics"]
        topic = chance.weighted(topics, [topic["weight"] for topic in topics])
        slots = draw_slots(chance, self.common["slots"])
        kind = chance.weighted(["line", "medium", "long"], [28, 46, 26])
        body = {"line": self._line, "medium": self._medium, "long": self._long}[kind](chance, intent, topic)
        subject = self._subject(chance, intent, topic, kind)
        subject, body = subject.format(**slots), body.format(**slots)
        return restyle(chance, {"subject": subject, "body": body})

    def _core(self, chance: Chance, topic: Parts) -> str:
        return chance.pick(allowed(topic["core"], self.split))

    def _line(self, chance: Chance, intent: Parts, topic: Parts) -> str:
        if chance.under(0.5):
            return chance.pick(allowed(topic["short"], self.split))
        return self._core(chance, topic)

    def _medium(self, chance: Chance, intent: Parts, topic: Parts) -> str:
        sentences = [self._core(chance, topic)]
        if chance.under(0.35):
            sentences.insert(0, self._context(chance, intent))
        if chance.under(0.3):
            sentences.append(self._aside(chance, intent, misleading=0.25))
        if chance.under(0.5):
            sentences.append(chance.pick(intent["asks"]))
        return self._frame(chance, sentences, 0.6)

    def _long(self, chance: Chance, intent: Parts, topic: Parts) -> str:
        core = self._core(chance, topic)
        others = [self._aside(chance, intent, misleading=0.3) for _ in range(chance.between(1, 2))]
        if chance.under(0.6):
            others.append(self._context(chance, intent))
        if chance.under(0.45):
            others.append(self._core(chance, topic))
        sentences = chance.shuffled([core, *dict.fromkeys(text for text in others if text != core)])
        if chance.under(0.55):
            sentences.append(chance.pick(intent["asks"]))
        return self._frame(chance, sentences, 0.8)

    def _context(self, chance: Chance, intent: Parts) -> str:
        fitting = [line["text"] for line in self.common["contexts"] if intent["intent"] in line["intents"]]
        return chance.pick(fitting)

    def _aside(self, chance: Chance, intent: Parts, misleading: float) -> str:
        if not chance.under(misleading):
            return chance.pick(self.common["distractors_neutral"])
        lines = self.common["distractors_misleading"]
        return chance.pick([line["text"] for line in lines if line["intent"] != intent["intent"]])

    def _frame(self, chance: Chance, sentences: list[str], probability: float) -> str:
        wide = chance.under(0.4)
        parts = [" ".join(sentences)]
        if chance.under(probability):
            parts.insert(0, chance.pick(self.common["openings"]))
        if chance.under(probability):
            parts.append(chance.pick(self.common["closings"]))
        return ("\n" if wide else " ").join(parts)

    def _subject(self, chance: Chance, intent: Parts, topic: Parts, kind: str) -> str:
        weights = {"line": [45, 30, 23, 2], "medium": [15, 40, 41, 4], "long": [10, 42, 43, 5]}[kind]
        source = chance.weighted(["none", "generic", "topic", "foreign"], weights)
        if source == "none":
            return ""
        if source == "generic":
            return str(chance.pick(self.common["subjects_generic"]))
        if source == "topic":
            return str(chance.pick(topic["subjects"]))
        other = chance.pick([other for other in self.intents if other is not intent])
        return "Re: " + str(chance.pick(chance.pick(other["topics"])["subjects"]))


def restyle(chance: Chance, record: Record) -> Record:
    """Write the message as people do: contractions, small letters, shorthand, typos."""
    subject, body = record["subject"], record["body"]
    if chance.under(0.55):
        body = replace_all(body, CONTRACTIONS)
    if chance.under(0.12):
        subject, body = subject.lower(), body.lower()
        if chance.under(0.5):
            body = replace_all(body, SHORTHAND)
    if chance.under(0.12):
        body = re.sub(r"[.,](?=\s|$)", "", body)
    if chance.under(0.06):
        body = re.sub(r"([.?])(?=\s|$)", lambda match: chance.pick(["!", "!!", match[0] * 2]), body)
    if chance.under(0.28):
        for _ in range(chance.between(1, 1 + len(body) // 60)):
            body = typo(chance, body)
    return {"subject": subject, "body": body.strip()}


def replace_all(text: str, table: dict[str, str]) -> str:
    """Replace each key that stands as a word of its own."""
    for old, new in table.items():
        pattern = re.escape(old) if old[0] == " " else rf"(?<!\w){re.escape(old)}"
        text = re.sub(pattern if old[-1] == " " else rf"{pattern}(?!\w)", new.replace("\\", r"\\"), text)
    return text


def typo(chance: Chance, text: str) -> str:
    """Swap, drop, double or mistype one letter inside a word of four or more letters."""
    places = [match.start() + 1 for match in re.finditer(r"[a-z]{4,}", text)]
    if not places:
        return text
    start = chance.pick(places)
    length = len(re.match(r"[a-z]+", text[start:])[0])  # type: ignore[index]
    at = start + chance.below(length - 1)
    kind = chance.pick(["swap", "drop", "double", "neighbour"])
    if kind == "swap":
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == "drop":
        return text[:at] + text[at + 1 :]
    letter = text[at] if kind == "double" else TYPO_NEIGHBOURS.get(text[at], "")
    return text[:at] + letter + text[at + (kind == "neighbour") :]


def near_duplicate(chance: Chance, record: Record, common: Parts) -> Record:
    """The same message once more, as a sender repeats it: other numbers, a typo, another last line."""
    body = re.sub(r"(?<=\d)\d(?=\d)", lambda match: str((int(match[0]) + chance.between(1, 8)) % 10), record["body"])
    if chance.under(0.5):
        closing = chance.pick(common["closings"])
        body = f"{body} {closing.format(**draw_slots(chance, common['slots']))}"
    if chance.under(0.3):
        body = chance.pick(["Second mail: ", "Reminder. ", "As I wrote: ", "Again: "]) + body
    body = typo(chance, body)
    subject = record["subject"]
    if subject and chance.under(0.4):
        subject = f"Re: {subject}"
    return {"subject": subject, "body": body}


def labels_for(intents: list[Parts], size: int, name: str) -> list[Parts]:
    """The intent of each message: every share to the nearest message, in random order."""
    counts = [int(intent["share"] * size) for intent in intents]
    rests = sorted(range(len(intents)), key=lambda i: (counts[i] - intents[i]["share"] * size, i))
    for i in rests[: size - sum(counts)]:
        counts[i] += 1
    return Chance(name).shuffled([intent for intent, n in zip(intents, counts, strict=True) for _ in range(n)])


def normalised(record: Record) -> str:
    """Letters and digits only, so that no message is told from another by case or punctuation."""
    return re.sub(r"[\W_]+", " ", f"{record['subject']} {record['body']}".casefold()).strip()


def write_split(common: Parts, intents: list[Parts], split: str, size: int, taken: set[str]) -> list[Record]:
    """`size` messages whose text is not in `taken`; their texts are added to it."""
    writer = Writer(common, intents, split)
    copies = {} if split == "test" else plan_copies(size)
    records: list[Record] = []
    for i, intent in enumerate(labels_for(intents, size, f"{SEED}:{split}:labels")):
        if i in copies:
            origin = records[copies[i][1]]
            twin = origin if copies[i][0] == "exact" else near_duplicate(Chance(f"{SEED}:near:{i}"), origin, common)
            record = {"subject": twin["subject"], "body": twin["body"], "label": origin["label"]}
        else:
            attempt = 0
            while True:
                text = writer.message(intent, f"{SEED}:{split}:{i}:{attempt}")
                if normalised(text) not in taken and text["body"]:
                    break
                attempt += 1
            record = {**text, "label": intent["intent"]}
        taken.add(normalised(record))
        records.append({"id": f"{split}-{i + 1:04d}", **record})
    return records


def plan_copies(size: int) -> dict[int, tuple[str, int]]:
    """Which pool positions repeat an earlier message, exactly or nearly."""
    chance = Chance(f"{SEED}:copies")
    positions = chance.shuffled(range(size // 4, size))[: NEAR_DUPLICATES + EXACT_DUPLICATES]
    kinds = ["exact"] * EXACT_DUPLICATES + ["near"] * NEAR_DUPLICATES
    return {at: (kind, chance.below(at)) for at, kind in zip(positions, kinds, strict=True)}


def build() -> dict[str, bytes]:
    """Name and content of every file."""
    common, intents = load_parts()
    taken: set[str] = set()
    pool = write_split(common, intents, "pool", POOL_SIZE, taken)
    test = write_split(common, intents, "test", TEST_SIZE, taken)
    about = {
        "name": "Fennwick support desk",
        "description": "Support-desk messages of an invented web shop, each with the intent of its writer. Written "
        "for icl-select: generated by scripts/make_demo_pool.py from hand-written parts. No message, person, firm "
        "or number is real.",
        "licence": "Apache-2.0",
        "seed": SEED,
        "text": "{subject}\n{body}",
        "labels": {intent["intent"]: intent["about"] for intent in intents},
        "pool": {"file": "demo_pool.jsonl", "messages": len(pool)},
        "test": {"file": "demo_test.jsonl", "messages": len(test)},
        "near_duplicates": NEAR_DUPLICATES,
        "exact_duplicates": EXACT_DUPLICATES,
    }
    lines = {"demo_pool.jsonl": pool, "demo_test.jsonl": test}
    files = {
        name: "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        for name, records in lines.items()
    }
    return {**files, "demo_pool.json": (json.dumps(about, ensure_ascii=False, indent=2) + "\n").encode()}


def main() -> int:
    """Write the files, or compare them with what is there."""
    parser = argparse.ArgumentParser(description="Write the demo pool.")
    parser.add_argument("--check", action="store_true", help="compare with the files that are there, write nothing")
    arguments = parser.parse_args()
    different = []
    for name, content in build().items():
        path = TARGET / name
        if arguments.check:
            if not path.is_file() or path.read_bytes() != content:
                different.append(name)
        else:
            path.write_bytes(content)
            print(f"{name}: {len(content):,} bytes")
    if different:
        print(f"not what the parts give: {', '.join(different)}. Run scripts/make_demo_pool.py.", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
