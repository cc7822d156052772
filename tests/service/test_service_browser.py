"""The page in a real browser: what a person does, and what the service says of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from browsing import Looker, chromium, person
from made_keys import make_keys
from running import Running, until

pytestmark = pytest.mark.browser

HOSTILE = '<img src="x" onerror="document.title=\'taken\'"><script>document.title="taken"</script>'
WORDS = ["billing", "delivery", "<b>other</b>", "refund"]

_NAMES = iter(f"pool-{number}" for number in range(10_000))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def service(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # Asks for the browser first: without one nothing is started.
    with Running(tmp_path_factory.mktemp("browsed"), "--encoders", "hash") as running:
        yield running


@pytest.fixture
def name() -> str:
    return next(_NAMES)


@pytest.fixture
def ann(browser: Any, service: Running) -> Iterator[Looker]:
    """Somebody who has told the page that she is Ann."""
    with person(browser, service.url, "Ann") as looker:
        yield looker


def texts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"item/{number}?", "text": f"text {number} of {HOSTILE}"} for number in range(count)]


def selected(service: Running, name: str, count: int = 8, **config: Any) -> str:
    """A pool with a selection of all of its items; returns the id of the selection."""
    service.pool(name, texts(count), label_words=WORDS, **config)
    made = service.call("POST", f"/v1/pools/{name}/selections", {"method": "random", "budget": count})
    assert service.wait(made["job"])["state"] == "done"
    found: str = made["id"]
    return found


def said(service: Running, pool: str, item: str) -> list[tuple[str, str, str | None]]:
    """Who said what of an item, in order."""
    events = service.call("GET", f"/v1/pools/{pool}/history/{item.replace('/', '%2F').replace('?', '%3F')}")
    return [(event["annotator"], event["status"], event["label"]) for event in events]


def heard(service: Running, pool: str, item: str, *words: tuple[str, str, str | None]) -> None:
    """Wait until the service has exactly these words of an item."""
    until(lambda: said(service, pool, item) == list(words), f"{words} of {item}, not {said(service, pool, item)}")


def demo(path: Path) -> dict[str, str]:
    """The shipped pool without its labels as a file; returns the labels."""
    content = files("icl_select.data").joinpath("demo_pool.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in content.splitlines()][:200]
    labels = {row["id"]: row.pop("label") for row in rows}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return labels


class TestFromPoolToPrompt:
    def test_all_of_it(self, browser: Any, service: Running, tmp_path: Path) -> None:
        """A person who knows nothing of the service makes a pool, labels three items by keyboard, and gets a prompt."""
        labels = demo(tmp_path / "tickets.jsonl")
        words = sorted(set(labels.values()))
        with person(browser, service.url) as looker:
            page = looker.page
            page.goto(service.url)  # the root leads to the list of pools
            looker.heading("Pools")
            page.get_by_role("link", name="Make").or_(page.get_by_role("link", name="New pool")).first.click()
            looker.heading("New pool")
            page.get_by_label("Name", exact=True).fill("demo")
            page.get_by_label("Text", exact=True).fill("{subject}: {body}")
            page.get_by_label("Label words").fill("\n".join(words))
            page.get_by_role("button", name="Make the pool").click()

            looker.heading("demo")
            page.get_by_text("Next: add your texts").wait_for()
            page.get_by_label("File", exact=True).set_input_files(tmp_path / "tickets.jsonl")
            page.get_by_role("button", name="Upload").click()
            page.locator(".notice.good", has_text="200 items added").wait_for()

            page.get_by_label("How many labels can you pay for?").fill("12")
            page.get_by_role("button", name="Choose items").click()
            page.get_by_text("Next: label 12 items").wait_for()
            page.get_by_role("link", name="Label", exact=True).first.click()
            page.get_by_label("Your name").fill("Ann")
            page.get_by_role("button", name="Begin").click()

            picks = self.picks(service)
            for place in range(3):
                key = str(words.index(labels[picks[place]]) + 1)
                assert looker.answer(key) == picks[place]
            page.get_by_text("3 of 12 done, 9 left for you").wait_for()
            page.get_by_text("saved").nth(2).wait_for()

            page.get_by_role("link", name="Prompt", exact=True).click()
            page.get_by_label("Text of the query").fill("where is my parcel")
            page.get_by_label("Examples, at most").fill("2")
            page.get_by_role("button", name="Make the prompt").click()
            shown = page.get_by_label("Text of the prompt").text_content()
            address = page.locator("a[href^='#/prompts/']").get_attribute("href")
            page.goto(f"{service.url}/{address}")
            looker.heading("Prompt, rebuilt")
            assert page.get_by_label("Text of the prompt").text_content() == shown

        # What the service knows afterwards.
        pool = service.call("GET", "/v1/pools/demo")
        assert (pool["n_items"], pool["n_labelled"], pool["text"]) == (200, 3, "{subject}: {body}")
        for item in picks[:3]:
            heard(service, "demo", item, ("Ann", "label", labels[item]))
        prompt = service.call("GET", f"/v1/prompts/{address.rpartition('/')[2]}")
        assert prompt["prompt"] == shown
        assert {example["id"] for example in prompt["examples"]} <= set(picks[:3])
        assert len(prompt["examples"]) == 2

    @staticmethod
    def picks(service: Running) -> list[str]:
        (made,) = service.call("GET", "/v1/pools/demo/selections")["selections"]
        found = service.call("GET", f"/v1/pools/demo/selections/{made['id']}")
        return [pick["id"] for pick in found["picks"]]

    def test_a_file_that_is_not_taken_says_why(self, ann: Looker, service: Running, name: str, tmp_path: Path) -> None:
        service.call("POST", "/v1/pools", {"name": name})
        (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"words": "two"}\n', encoding="utf-8")
        (tmp_path / "rows.xlsx").write_text("no rows", encoding="utf-8")
        ann.open(f"#/pools/{name}")
        for file, sentence in (("rows.jsonl", "line 2: no field 'text'"), ("rows.xlsx", "is not read here")):
            ann.page.get_by_label("File", exact=True).set_input_files(tmp_path / file)
            ann.page.get_by_role("button", name="Upload").click()
            ann.page.locator(".outcome", has_text=sentence).wait_for()
            if file == "rows.jsonl":
                shown = ann.page.get_by_role("alert").text_content()
                assert "Request" in shown  # the id that the log has too
        assert service.call("GET", f"/v1/pools/{name}")["n_items"] == 0

    def test_a_name_that_is_taken_is_told_beside_the_form(self, ann: Looker, service: Running, name: str) -> None:
        service.call("POST", "/v1/pools", {"name": name})
        ann.open("#/new")
        ann.page.get_by_label("Name", exact=True).fill(name)
        ann.page.get_by_role("button", name="Make the pool").click()
        ann.page.get_by_role("alert").filter(has_text=name).wait_for()
        ann.heading("New pool")


class TestTextsOfAnybody:
    def test_markup_in_texts_labels_and_ids_is_text(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name)
        page = ann.page
        ann.open(f"#/pools/{name}/label/{selection}")
        assert HOSTILE in page.locator("[data-item]").text_content()
        assert page.get_by_role("button", name="<b>other</b>").count() == 1
        item = ann.answer("3")
        heard(service, name, item, ("Ann", "label", "<b>other</b>"))
        for route in (
            f"selections/{selection}",
            f"items/{item.replace('/', '%2F').replace('?', '%3F')}",
            "agreement",
            "prompt",
        ):
            ann.open(f"#/pools/{name}/{route}")
        page.get_by_label("Text of the query").fill(HOSTILE)
        page.get_by_role("button", name="Make the prompt").click()
        assert HOSTILE in page.get_by_label("Text of the prompt").text_content()
        assert page.locator("main img, main script, main b").count() == 0
        assert page.title() != "taken"

    def test_an_error_that_quotes_markup_is_text(self, ann: Looker) -> None:
        ann.open("#/prompts/%3Cimg%20src%3Dx%3E")
        ann.page.get_by_role("alert").filter(has_text="<img src=x>").wait_for()
        assert ann.page.locator("main img").count() == 0

    def test_an_address_that_means_nothing_is_told(self, ann: Looker) -> None:
        for route in ("#/nothing", "#/pools/a/b/c/d", "#/pools/%E0%A4%A"):
            ann.open(route)
            ann.heading("No such page")


class TestLabelling:
    def test_every_answer_has_a_key(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        answers = [("1", "label", "billing"), ("s", "skip", None), ("u", "unsure", None), ("4", "label", "refund")]
        for key, status, label in answers:
            heard(service, name, ann.answer(key), ("Ann", status, label))
        ann.page.get_by_text("4 of 8 done, 4 left for you").wait_for()

    def test_a_key_that_stands_for_no_word_says_nothing(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        item = ann.item()
        for key in ("5", "9", "0", "x", "Alt+1", "Control+s"):
            ann.page.keyboard.press(key)
        assert ann.item() == item
        assert said(service, name, item) == []

    def test_keys_can_be_switched_off(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        item = ann.item()
        ann.page.get_by_label("Keys:").uncheck()
        ann.page.keyboard.press("1")
        assert ann.item() == item
        ann.page.get_by_role("button", name="billing").click()
        ann.gone(item)

    def test_a_double_click_answers_one_item(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        first = ann.item()
        ann.page.get_by_role("button", name="delivery").dblclick()
        ann.gone(first)
        second = ann.item()
        heard(service, name, first, ("Ann", "label", "delivery"))
        assert said(service, name, second) == []
        ann.page.get_by_text("1 of 8 done, 7 left for you").wait_for()

    def test_a_key_that_is_pressed_twice_by_mistake_answers_one_item(
        self, ann: Looker, service: Running, name: str
    ) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        first = ann.item()
        press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true}))"
        ann.page.evaluate(f"{press}; {press}")
        ann.gone(first)
        ann.page.get_by_text("1 of 8 done, 7 left for you").wait_for()
        heard(service, name, first, ("Ann", "label", "billing"))

    def test_a_key_that_is_held_down_answers_one_item(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        first = ann.item()
        for _ in range(3):
            ann.page.keyboard.down("1")  # without an up between them: what a held key sends
            ann.page.wait_for_timeout(400)
        ann.page.keyboard.up("1")
        ann.gone(first)
        ann.page.get_by_text("1 of 8 done, 7 left for you").wait_for()
        heard(service, name, first, ("Ann", "label", "billing"))

    def test_the_last_answer_is_taken_back_and_given_again(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        first = ann.answer("1")
        second = ann.answer("2")
        ann.page.keyboard.press("z")
        ann.page.get_by_text("You said “delivery” before").wait_for()
        assert ann.item() == second
        assert ann.answer("4") == second
        heard(service, name, second, ("Ann", "label", "delivery"), ("Ann", "retract", None), ("Ann", "label", "refund"))
        heard(service, name, first, ("Ann", "label", "billing"))
        ann.page.get_by_text("2 of 8 done, 6 left for you").wait_for()

    def test_an_earlier_answer_is_changed_from_the_list(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        first, second = ann.answer("1"), ann.answer("2")
        shown = ann.item()
        ann.page.get_by_role("button", name=f"Change the answer for {first}").click()
        ann.page.get_by_text("You said “billing” before").wait_for()
        assert ann.answer("3") == first
        assert ann.item() == shown  # and on with what was there
        heard(
            service,
            name,
            first,
            ("Ann", "label", "billing"),
            ("Ann", "retract", None),
            ("Ann", "label", "<b>other</b>"),
        )
        heard(service, name, second, ("Ann", "label", "delivery"))

    def test_to_the_end(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name, count=6)
        ann.open(f"#/pools/{name}/label/{selection}")
        seen = [ann.answer("1") for _ in range(6)]
        ann.page.get_by_text("All done").wait_for()
        assert sorted(seen) == sorted(item["id"] for item in texts(6))
        until(lambda: service.call("GET", f"/v1/pools/{name}")["n_labelled"] == 6, "six labels")
        ann.page.keyboard.press("z")
        assert ann.item() == seen[-1]
        ann.answer("2")
        ann.page.get_by_text("All done").wait_for()

    def test_free_text_where_the_pool_has_no_words(self, ann: Looker, service: Running, name: str) -> None:
        service.pool(name, texts(4))
        made = service.call("POST", f"/v1/pools/{name}/selections", {"method": "random", "budget": 4})
        service.wait(made["job"])
        ann.open(f"#/pools/{name}/label/{made['id']}")
        item = ann.item()
        # The field has the focus: what is typed is text and no shortcut.
        ann.page.keyboard.type("su1 z")
        ann.page.keyboard.press("Shift+Enter")
        ann.page.keyboard.type("<i>two</i>")
        ann.page.keyboard.press("Enter")
        ann.gone(item)
        heard(service, name, item, ("Ann", "label", "su1 z\n<i>two</i>"))
        assert ann.page.get_by_label("Label", exact=True).input_value() == ""
        ann.page.get_by_role("button", name="Skip").click()

    def test_two_people_never_have_the_same_item(self, browser: Any, ann: Looker, service: Running, name: str) -> None:
        address = f"#/pools/{name}/label/{selected(service, name)}"
        ann.open(address)
        with person(browser, service.url, "Ben") as ben:
            ben.open(address)
            for _ in range(3):
                assert ann.answer("1") != ben.answer("2")
            ben.open("#/pools")  # leaving gives back what he holds
        for _ in range(2):
            ann.answer("1")
        ann.page.get_by_text("All done").wait_for()
        events = [said(service, name, item["id"]) for item in texts(8)]
        assert all(len(found) == 1 for found in events)
        assert sorted(found[0][0] for found in events) == ["Ann"] * 5 + ["Ben"] * 3


class TestNothingIsLost:
    def test_what_is_said_without_a_connection_comes_later(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        ann.item()
        ann.context.set_offline(True)
        first, second = ann.answer("1"), ann.answer("2")
        ann.page.get_by_text("2 labels not sent yet: kept in this browser").wait_for()
        assert said(service, name, first) == []
        ann.context.set_offline(False)
        heard(service, name, first, ("Ann", "label", "billing"))
        heard(service, name, second, ("Ann", "label", "delivery"))
        ann.page.get_by_text("not sent yet").wait_for(state="detached")
        ann.page.locator(".recent .tag.good").nth(1).wait_for()

    def test_it_outlives_the_tab(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        ann.item()
        ann.context.set_offline(True)
        item = ann.answer("4")
        ann.page.get_by_text("1 label not sent yet").wait_for()
        ann.page.close()
        ann.context.set_offline(False)
        assert said(service, name, item) == []
        ann.page = ann.tab()
        ann.open("#/pools")  # any view of the page sends what is left
        heard(service, name, item, ("Ann", "label", "refund"))

    def test_it_outlives_the_service(self, browser: Any, tmp_path: Path) -> None:
        with Running(tmp_path, "--encoders", "hash") as service, person(browser, service.url, "Ann") as ann:
            selection = selected(service, "p")
            ann.open(f"#/pools/p/label/{selection}")
            ann.item()
            service.kill()
            item = ann.answer("1")
            ann.page.get_by_text("1 label not sent yet").wait_for()
            service.start()
            heard(service, "p", item, ("Ann", "label", "billing"))

    def test_a_label_whose_answer_was_lost_is_said_once(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        ann.item()
        lost = []

        def lose(route: Any) -> None:
            if lost:
                route.continue_()
            else:
                lost.append(route.fetch().status)
                route.abort("connectionreset")

        ann.page.route("**/labels", lose)
        item = ann.answer("2")
        ann.page.get_by_text("1 label not sent yet").wait_for()
        ann.page.get_by_text("not sent yet").wait_for(state="detached")
        assert lost == [200]
        assert said(service, name, item) == [("Ann", "label", "delivery")]

    def test_a_busy_service_is_asked_again_when_it_says(self, ann: Looker, service: Running, name: str) -> None:
        ann.open(f"#/pools/{name}/label/{selected(service, name)}")
        ann.item()
        answers = iter([503, 429])

        def refuse(route: Any) -> None:
            status = next(answers, None)
            if status is None:
                route.continue_()
            else:
                problem = {"title": "Too much", "status": status, "detail": "come again"}
                route.fulfill(status=status, headers={"Retry-After": "1"}, json=problem)

        ann.page.route("**/labels", refuse)
        item = ann.answer("1")
        ann.page.get_by_text("come again").wait_for()
        ann.page.get_by_text("not sent yet").wait_for(state="detached")
        heard(service, name, item, ("Ann", "label", "billing"))

    def test_a_label_that_is_refused_is_kept_with_the_reason(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name)
        ann.open(f"#/pools/{name}/label/{selection}")
        ann.item()
        service.call("PATCH", f"/v1/pools/{name}", {"label_words": ["delivery", "refund"]})
        item = ann.answer("1")
        ann.page.get_by_role("link", name="1 label refused").click()
        ann.heading("Labels not sent yet")
        row = ann.page.locator(".card", has_text=item)
        row.get_by_text("is not one of the 2 label words").wait_for()
        assert "Request" in row.text_content()
        service.call("PATCH", f"/v1/pools/{name}", {"label_words": WORDS})
        row.get_by_role("button", name="Send it again").click()
        ann.page.get_by_text("Nothing waits").wait_for()
        heard(service, name, item, ("Ann", "label", "billing"))

    def test_a_refused_label_can_be_thrown_away(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name)
        ann.open(f"#/pools/{name}/label/{selection}")
        ann.item()
        service.call("PATCH", f"/v1/pools/{name}", {"label_words": ["delivery", "refund"]})
        item = ann.answer("1")
        ann.page.get_by_role("link", name="1 label refused").click()
        ann.page.get_by_role("button", name="Throw it away").click()
        ann.page.get_by_text("Nothing waits").wait_for()
        assert said(service, name, item) == []
        ann.open(f"#/pools/{name}/label/{selection}")
        assert ann.item() == item  # it is asked again

    def test_an_item_that_went_to_somebody_else_is_told(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name, count=12)
        ann.open(f"#/pools/{name}/label/{selection}")
        item = ann.item()
        # What happens when a lease ends: others get the items.
        service.send("DELETE", f"/v1/pools/{name}/leases?annotator=Ann")
        service.call("POST", f"/v1/pools/{name}/selections/{selection}/next", {"annotator": "Ben", "count": 2})
        ann.page.evaluate("dispatchEvent(new Event('online'))")  # as when a computer wakes up
        ann.page.get_by_text("it went to somebody else").wait_for()
        assert ann.item() == item  # nothing is taken out of somebody's hands
        ann.page.get_by_role("button", name="Leave it to them").click()
        ann.gone(item)
        assert ann.answer("1") != item
        assert said(service, name, item) == []

    def test_items_that_others_give_back_are_no_reason_to_worry(self, ann: Looker, service: Running, name: str) -> None:
        selection = selected(service, name, count=20)
        service.call("POST", f"/v1/pools/{name}/selections/{selection}/next", {"annotator": "Ben", "count": 10})
        ann.open(f"#/pools/{name}/label/{selection}")
        item = ann.item()
        service.send("DELETE", f"/v1/pools/{name}/leases?annotator=Ben")
        with ann.page.expect_response("**/next"):
            ann.page.evaluate("dispatchEvent(new Event('online'))")
        assert ann.item() == item
        assert ann.page.get_by_text("it went to somebody else").count() == 0
        assert ann.answer("1") == item

    def test_a_clock_that_is_wrong_loses_no_label(self, browser: Any, service: Running, name: str) -> None:
        selection = selected(service, name)
        with person(browser, service.url, "Ann") as ann:
            ann.page.add_init_script("{ const now = Date.now; Date.now = () => now() + 3 * 3600 * 1000; }")
            ann.open(f"#/pools/{name}/label/{selection}")
            item = ann.answer("1")
            heard(service, name, item, ("Ann", "label", "billing"))
            ann.page.keyboard.press("z")
            heard(service, name, item, ("Ann", "label", "billing"), ("Ann", "retract", None))


class TestReports:
    def test_density_and_evaluation_are_made_and_shown(self, ann: Looker, service: Running, name: str) -> None:
        rows = [{"id": f"r{n}", "text": f"{'parcel late' if n % 2 else 'card charged'} {n}"} for n in range(30)]
        service.pool(name, rows)
        labels = [{"id": row["id"], "label": "late" if "late" in row["text"] else "card"} for row in rows]
        labels[4]["label"] = "late"  # wrong, as its neighbours know
        page = ann.page
        ann.open(f"#/pools/{name}/evaluation")
        page.get_by_text("Too few labels").wait_for()
        service.call("PUT", f"/v1/pools/{name}/labels", {"labels": labels})
        ann.open(f"#/pools/{name}/density")
        page.get_by_role("button", name="Measure", exact=True).click()
        figure = page.get_by_role("img", name="Distribution of the similarity")
        figure.wait_for()
        assert figure.evaluate("image => image.complete && image.naturalWidth > 100")
        ann.open(f"#/pools/{name}/evaluation")
        page.get_by_role("button", name="Evaluate the labels").click()
        page.get_by_role("heading", name="Labels worth a second look").wait_for()
        page.get_by_role("link", name="r4", exact=True).first.click()
        ann.heading("Item r4")
        page.get_by_label("Label", exact=True).fill("card")
        page.get_by_label("Final").check()
        page.get_by_role("button", name="Save").click()
        until(lambda: service.call("GET", f"/v1/pools/{name}/items/r4")["label"] == "card", "the second look")
        ann.open(f"#/pools/{name}/evaluation")
        page.get_by_text("have changed since").wait_for()

    def test_disagreement_is_shown_and_decided(self, ann: Looker, service: Running, name: str) -> None:
        service.pool(name, texts(6), label_words=WORDS, annotators=2)
        ann.open(f"#/pools/{name}/agreement")
        ann.page.get_by_text("No labels yet").wait_for()
        words = [
            {"id": item["id"], "annotator": who, "label": WORDS[1 if who == "Ben" and place == 2 else 0]}
            for place, item in enumerate(texts(6))
            for who in ("Cem", "Ben")
        ]
        service.call("PUT", f"/v1/pools/{name}/labels", {"labels": words})
        ann.open(f"#/pools/{name}/agreement")
        ann.page.get_by_text("1 item without a label").wait_for()
        ann.page.get_by_role("link", name="item/2?").click()
        ann.heading("Item item/2?")
        ann.page.get_by_label("Label", exact=True).select_option("refund")
        ann.page.get_by_role("button", name="Save").click()
        until(lambda: ("Ann", "label", "refund") in said(service, name, "item/2?"), "a decision")
        ann.open(f"#/pools/{name}/agreement")
        ann.page.get_by_text("None: where people disagree").wait_for()


class TestForEverybody:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_every_view_fits_a_phone_and_names_its_controls(
        self, browser: Any, service: Running, name: str, scheme: str
    ) -> None:
        selection = selected(service, name)
        service.call("PUT", f"/v1/pools/{name}/labels", {"labels": [{"id": "item/1?", "label": "refund"}]})
        views = ["#/pools", "#/new", "#/kept", f"#/pools/{name}"]
        views += [f"#/pools/{name}/{view}" for view in ("label", f"label/{selection}", f"selections/{selection}")]
        views += [f"#/pools/{name}/{view}" for view in ("prompt", "density", "agreement", "evaluation")]
        views += [f"#/pools/{name}/items/item%2F1%3F"]
        with person(browser, service.url, "Ann", viewport={"width": 360, "height": 740}, color_scheme=scheme) as looker:
            for view in views:
                looker.open(view)
                page = looker.page
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} is too wide"
                assert page.locator("h1").count() == 1, view
                assert page.title().endswith("icl-select")
                unnamed = page.evaluate(UNNAMED)
                assert unnamed == [], view
                pale = page.evaluate(CONTRAST)
                assert pale == [], f"{view}: too little contrast"

    def test_the_keyboard_gets_everywhere(self, ann: Looker, service: Running, name: str) -> None:
        selected(service, name)
        ann.open(f"#/pools/{name}")
        page = ann.page
        # The heading has the focus, so that what is new is read first; from there Tab goes on to the tabs.
        assert page.evaluate("document.activeElement.tagName") == "H1"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Label"
        page.keyboard.press("Enter")
        ann.heading("Label")
        page.get_by_label("Your name").wait_for()

    def test_who_may_only_read_is_offered_nothing_else(self, browser: Any, tmp_path: Path) -> None:
        keys = make_keys(tmp_path, "admin", "read")
        with Running(tmp_path, "--encoders", "hash") as service:
            service.headers = {"Authorization": f"Bearer {keys['admin']}"}
            selection = selected(service, "p")
            login = {"username": "anybody", "password": keys["read"]}
            with person(browser, service.url, http_credentials=login) as looker:
                looker.open("#/pools/p")  # the browser's own log-in opens the page, and all it asks for
                looker.page.get_by_text("read-key · scope read").wait_for()
                assert looker.page.get_by_role("button", name="Upload").count() == 0
                looker.page.get_by_text("use one with the scope admin").first.wait_for()
                looker.open(f"#/pools/p/label/{selection}")
                looker.page.get_by_text("use one with the scope label").wait_for()
            with person(browser, service.url) as stranger, pytest.raises(Exception, match="INVALID_AUTH_CREDENTIALS"):
                stranger.page.goto(service.url)  # without anybody to ask, the browser gives up

    def test_a_view_looks_again_by_itself_and_stops_when_it_is_left(
        self, ann: Looker, service: Running, name: str
    ) -> None:
        selected(service, name)
        ann.page.clock.install()
        ann.open(f"#/pools/{name}")
        with ann.page.expect_request("**/v1/jobs?*"):
            ann.page.clock.fast_forward(60_000)
        ann.open("#/new")
        asked: list[str] = []
        ann.page.on("request", lambda request: asked.append(request.url))
        ann.page.clock.fast_forward(60_000)
        ann.page.wait_for_timeout(500)
        assert asked == []


UNNAMED = """() => [...document.querySelectorAll("main :is(input, select, textarea, button, progress, meter)")]
  .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
  .map((one) => one.outerHTML)"""

# Every text that stands on a plain background, against the background it stands on (WCAG 2: 4.5 to 1, large text 3).
CONTRAST = """() => {
  const rgb = (css) => css.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (!own || element.disabled || !box.width || style.visibility === "hidden") continue;
    const [a, b] = [light(rgb(style.color)), light(behind(element))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) pale.push(`${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
  }
  return pale;
}"""
