"""The selector where LangChain uses selectors: few-shot templates of text and chat, awaited or not."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from adapter_helpers import NEW, make_source
from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    PromptTemplate,
)

from icl_select.adapters import ExampleSource
from icl_select.adapters.langchain import IclExampleSelector
from icl_select.errors import LabelError, ParameterError

QUERY = "Is my invoice wrong?"


@pytest.fixture
def selector(source: ExampleSource) -> IclExampleSelector:
    return IclExampleSelector(source, label_key="output")


def test_selector_is_one_and_awaits_by_itself(selector: IclExampleSelector) -> None:
    assert isinstance(selector, BaseExampleSelector)
    for name in ("aselect_examples", "aadd_example"):
        assert getattr(type(selector), name) is not getattr(BaseExampleSelector, name)
        assert inspect.iscoroutinefunction(getattr(selector, name))
    for name in ("add_example", "select_examples"):
        mine = inspect.signature(getattr(IclExampleSelector, name)).parameters
        assert list(mine) == list(inspect.signature(getattr(BaseExampleSelector, name)).parameters)


def test_examples_are_fields_with_the_label(selector: IclExampleSelector) -> None:
    found = selector.select_examples({"input": QUERY})
    assert found == [
        {"input": "The invoice shows the wrong sum", "topic": "money", "output": "billing"},
        {"input": "My invoice is wrong", "topic": "money", "output": "billing"},
    ]
    assert asyncio.run(selector.aselect_examples({"input": QUERY})) == found
    # What the caller does with them is the caller's: the next query is not touched by it.
    found[0]["input"] = "changed"
    assert selector.select_examples({"input": QUERY})[0]["input"] == "The invoice shows the wrong sum"


def test_order_and_keys_can_be_chosen(source: ExampleSource) -> None:
    selector = IclExampleSelector(source, label_key="output", example_keys=["output"], order="nearest_first")
    selector.add_example({**NEW, "output": "shipping"})
    assert selector.select_examples({"input": NEW["input"]})[0] == {"output": "shipping"}
    with pytest.raises(ParameterError, match=r"no key 'outputs', which example_keys names\. Did you mean 'output'"):
        IclExampleSelector(source, label_key="output", example_keys=["outputs"]).select_examples({"input": QUERY})
    with pytest.raises(ParameterError, match=r"unknown order 'nearest_frist'\. Did you mean 'nearest_first'"):
        IclExampleSelector(source, order="nearest_frist")  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_added_examples_are_selected(selector: IclExampleSelector, way: str) -> None:
    name = selector.add_example(NEW) if way == "sync" else asyncio.run(selector.aadd_example(NEW))
    assert isinstance(name, str)
    assert name
    assert selector.select_examples({"input": "Where is the parcel?"})[-1] == NEW


def test_examples_without_a_label_are_refused(selector: IclExampleSelector) -> None:
    for label in ({}, {"output": ""}, {"output": None}, {"label": "shipping"}):
        with pytest.raises(LabelError, match="no label under 'output'"):
            selector.add_example({"input": "x", "topic": "y", **label})
        with pytest.raises(LabelError, match="no label under 'output'"):
            asyncio.run(selector.aadd_example({"input": "x", "topic": "y", **label}))


def text_template(selector: IclExampleSelector) -> FewShotPromptTemplate:
    return FewShotPromptTemplate(
        example_selector=selector,
        example_prompt=PromptTemplate.from_template("{input} -> {output}"),
        prefix="Route for {team}.",
        suffix="{input} ->",
        input_variables=["input", "team"],
    )


def test_few_shot_template(selector: IclExampleSelector) -> None:
    template = text_template(selector)
    expected = (
        f"Route for us.\n\nThe invoice shows the wrong sum -> billing\n\nMy invoice is wrong -> billing\n\n{QUERY} ->"
    )
    assert template.format(input=QUERY, team="us") == expected
    assert template.invoke({"input": QUERY, "team": "us"}).to_string() == expected

    async def both() -> tuple[str, Any]:
        return await template.aformat(input=QUERY, team="us"), await template.ainvoke({"input": QUERY, "team": "us"})

    text, value = asyncio.run(both())
    assert (text, value.to_string()) == (expected, expected)


def test_few_shot_chat_template(selector: IclExampleSelector) -> None:
    shots = FewShotChatMessagePromptTemplate(
        input_variables=["input"],
        example_selector=selector,
        example_prompt=ChatPromptTemplate.from_messages([("human", "{input}"), ("ai", "{output}")]),
    )
    chat = ChatPromptTemplate.from_messages([("system", "Route."), shots, ("human", "{input}")])
    messages = chat.format_messages(input=QUERY)
    assert messages[1:] == [
        HumanMessage("The invoice shows the wrong sum"),
        AIMessage("billing"),
        HumanMessage("My invoice is wrong"),
        AIMessage("billing"),
        HumanMessage(QUERY),
    ]
    assert asyncio.run(chat.aformat_messages(input=QUERY)) == messages
    assert asyncio.run(chat.ainvoke({"input": QUERY})).to_messages() == messages


def test_template_follows_the_query() -> None:
    template = text_template(IclExampleSelector(make_source(k=1), label_key="output"))
    assert "I cannot log in -> account" in template.format(input="Why can I not log in?", team="us")
    assert "The app crashes on start -> bug" in template.format(input="The app crashes", team="us")
