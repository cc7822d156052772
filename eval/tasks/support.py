"""The shipped example: which of ten intents has a message to an invented support desk?"""

from __future__ import annotations

from ._task import Task, TextLabel

WORDS = (
    "delivery",
    "refund",
    "technical",
    "billing_error",
    "cancel",
    "account_access",
    "change_order",
    "warranty",
    "plan_question",
    "privacy",
)

_INPUT = "{{ subject }}\n{{ body }}\nintent:"

TASK = Task(
    name="support",
    folder="support",
    shipped=("demo_pool.jsonl", "demo_test.jsonl"),
    id="id",
    columns=("subject", "body", "label"),
    embedded="{subject}\n{body}",
    demonstration=_INPUT + " {{ label }}",
    query=_INPUT,
    separator="\n\n",
    metric="acc",
    label=TextLabel("label", WORDS),
    choices=WORDS,
    prefix=" ",
    premise="intent:",
    blank=("subject", "body"),
    shorten="body",
    notes="Written for this project; no message, person, firm or number is real.",
)
