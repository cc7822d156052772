"""The campaign file: what it may hold, where a value comes from, and what is said when it is wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from icl_select.errors import ConfigError
from icl_select.eval import config
from icl_select.eval.config import Campaign, json_schema, load_campaign, schema_text, split_list

MINIMAL = "tasks: [mrpc]\nmethods: [random, vote_k]\nbudgets: [18, 5]\n"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load(tmp_path: Path, text: str, **options: object) -> Campaign:
    path = tmp_path / "camp.yaml"
    path.write_text(text, encoding="utf-8")
    return load_campaign(path, **options)  # type: ignore[arg-type]


def test_defaults(tmp_path: Path) -> None:
    campaign = load(tmp_path, MINIMAL)
    assert campaign.name == "camp"
    assert campaign.budgets == [5, 18]
    assert (campaign.draws, campaign.pool_size, campaign.pool_fraction, campaign.test_size) == (10, 3000, 0.5, 256)
    assert campaign.folder == Path("runs/camp")
    assert campaign.family == "campaign"


def test_the_baseline_is_added_where_it_is_not_named(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL.replace("random, ", "")).methods == ["random", "vote_k"]


def test_methods_take_their_canonical_form(tmp_path: Path) -> None:
    text = MINIMAL.replace("vote_k", "\"vote_k( stage='graph', k=50 )\"")
    assert load(tmp_path, text).methods == ["random", "vote_k(k=50, stage='graph')"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("drawz: 3", "unknown key 'drawz'. Did you mean 'draws'?"),
        ("retrieval: {kk: 3}", "unknown key 'retrieval.kk'."),
        ("retrieval: {ordr: nearest_last}", "unknown key 'retrieval.ordr'. Did you mean 'order'?"),
        ("draws: 0", "draws: input should be greater than or equal to 1 (got 0)"),
        ("draws: many", "draws: input should be a valid integer"),
        ("alpha: .nan", "alpha: input should be a finite number"),
        ("retrieval: {order: random}", "retrieval.order: input should be 'nearest_last'"),
        ("baseline: randm", "baseline: unknown method 'randm'. Did you mean 'random'?"),
    ],
)
def test_a_bad_line_is_named_with_the_path_of_its_key(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL + line + "\n")
    assert "camp.yaml: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[mrpc]", "[mprc]", "tasks: unknown task 'mprc'. Did you mean 'mrpc'?"),
        ("[mrpc]", "[mrpc, mrpc]", "tasks: task mrpc stands twice"),
        ("[mrpc]", "[]", "tasks: list should have at least 1 item"),
        ("[mrpc]", "mrpc", "tasks: input should be a valid list"),
        ("[mrpc]", "[{name: x, pool: p, test: t, lable: y}]", "unknown key 'tasks.0.lable'. Did you mean 'label'?"),
        ("[mrpc]", "[{name: x, pool: p}]", "tasks.0.test is missing"),
        ("[mrpc]", "[{name: mrpc, pool: p, test: t}]", "'mrpc' is the name of a benchmark"),
        (
            "[mrpc]",
            "[{name: x, pool: p, test: t, metric: rogue_l}]",
            "unknown metric 'rogue_l'. Did you mean 'rouge_l'?",
        ),
        ("[mrpc]", "[3]", "tasks.0: input should be a valid string"),
        ("vote_k]", "votek]", "methods: unknown method 'votek'. Did you mean 'vote_k'?"),
        ("vote_k]", "vote_k(m=3)]", "methods: method 'vote_k' has no parameter 'm'"),
        ("vote_k]", "vote_k, vote_k()]", "methods: vote_k stands twice"),
        ("[18, 5]", "[5, 5]", "budgets: a budget stands twice"),
        ("[18, 5]", "[0]", "budgets.0: input should be greater than or equal to 1"),
        ("tasks: [mrpc]\n", "", "tasks is missing"),
        ("budgets: [18, 5]", "budgets: [18, 5]\nbudgets: [3]", "the key 'budgets' stands twice"),
        (MINIMAL, "- mrpc\n", "holds no mapping"),
        (MINIMAL, "tasks: [mrpc\n", "is not valid YAML"),
    ],
)
def test_a_bad_value_says_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL.replace(old, new))
    assert message in str(caught.value)


def test_a_task_complains_once_and_about_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL.replace("[mrpc]", "[{name: x, pool: p, tst: t, test: t}]"))
    assert str(caught.value).count("tasks") == 1


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the campaign file .*none\.yaml: No such file"):
        load_campaign(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load_campaign(tmp_path / "bad.yaml")


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    text = MINIMAL + "draws: 3\nseed: 1\ntest_size: 9\n"
    environment = {
        "ICS_DRAWS": "4",
        "ICS_SEED": "2",
        "ICS_METHODS": "random, vote_k(k=5, stage='graph')",
        "ICS_BUDGETS": "7",
    }
    campaign = load(tmp_path, text, overrides={"draws": 5, "seed": None}, environment=environment)
    assert (campaign.draws, campaign.seed, campaign.test_size) == (5, 2, 9)
    assert campaign.methods == ["random", "vote_k(k=5, stage='graph')"]
    assert campaign.budgets == [7]
    with pytest.raises(ConfigError, match="draws: input should be a valid integer"):
        load(tmp_path, text, environment={"ICS_DRAWS": "few"})


def test_null_in_the_environment(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, environment={"ICS_POOL_FRACTION": "null"}).pool_fraction is None


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    campaign = load(
        tmp_path, MINIMAL.replace("[mrpc]", "[{name: x, pool: p.jsonl, test: t.jsonl}]") + "data_dir: data\n"
    )
    task = campaign.tasks[0]
    assert not isinstance(task, str)
    assert task.pool == tmp_path / "p.jsonl"
    assert campaign.data_dir == tmp_path / "data"


def test_tasks_of_the_file_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    text = MINIMAL.replace("[mrpc]", "[mrpc, {name: x, pool: p.jsonl, test: t.jsonl}]")
    assert load(tmp_path, text, only=["x"]).task_list == ["x"]
    assert load(tmp_path, text, only=["rte"]).task_list == ["rte"]
    with pytest.raises(ConfigError, match="unknown task 'y'"):
        load(tmp_path, text, only=["y"])


def test_results_carry_no_path_of_this_machine(tmp_path: Path) -> None:
    text = MINIMAL.replace("[mrpc]", "[{name: x, pool: p.jsonl, test: t.jsonl}]") + "data_dir: data\n"
    text += f"""encoder: {tmp_path / "encoder"}
scorer: transformers(model={str(tmp_path / "model")!r})
prompt: {{tokenizer: {tmp_path / "tokenizer"}}}
"""
    shown = load(tmp_path, text).shown()
    assert str(tmp_path) not in json.dumps(shown)
    assert (shown["encoder"], shown["prompt"]["tokenizer"]) == ("encoder", "tokenizer")
    named = load(tmp_path, MINIMAL + "prompt: {tokenizer: org/name@abc}\n").shown()
    assert named["prompt"]["tokenizer"] == "org/name@abc"


def test_a_backslash_n_in_single_quotes_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tmp_path, MINIMAL.replace("[mrpc]", "[{name: x, pool: p, test: t, text: '{a}\\n{b}'}]"))
    assert "Use double quotes for a line break" in caplog.text


def test_the_published_schema_is_current() -> None:
    published = Path(config.__file__).with_name("campaign.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run: icl-select eval schema > eval/campaign.schema.json"
    assert json_schema()["additionalProperties"] is False
    assert all("description" in field for field in json_schema()["properties"].values())


@pytest.mark.parametrize("name", ["demo.yaml", "knn_nine.yaml"])
def test_the_shipped_campaigns_are_valid(name: str) -> None:
    assert load_campaign(CONFIGS / name).name == name.removesuffix(".yaml")


def test_lists_are_split_outside_parentheses() -> None:
    assert split_list("a, b(c=1, d=[2, 3]) ,e,") == ["a", "b(c=1, d=[2, 3])", "e"]


def test_every_key_is_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "campaigns.md").read_text(encoding="utf-8")
    for key in Campaign.model_fields:
        assert f"| `{key}` |" in page, f"docs/campaigns.md has no row for {key}"


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "campaigns.md").read_text(encoding="utf-8")
    (tmp_path / "tickets.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    campaign = load_campaign(tmp_path / "tickets.yaml")
    assert campaign.task_list == ["tickets"]
    assert campaign.tasks[0].pool == tmp_path / "tickets.jsonl"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\n? {b: 1}\n: 2\n", "a key is no plain text"),
        ("name: a\nmethods: &m [random, *m]\n", "an alias"),
        ("name: a\nretrieval: &r {k: 3, more: *r}\n", "an alias"),
        ("name: [1\n", 'odd.yaml", line'),
    ],
)
def test_yaml_that_is_no_tree_of_plain_values_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_campaign(path)


def test_a_bad_value_of_the_environment_names_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("tasks: [rte]\nmethods: [random]\nbudgets: [5]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"small.yaml with ICS_SEED: seed: .*got 'x'"):
        load_campaign(path, environment={"ICS_SEED": "x"})
