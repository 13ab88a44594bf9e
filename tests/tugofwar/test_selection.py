import pytest
from torch import nn

from tugofwar.errors import UserError
from tugofwar.selection import ROOT_BLOCK, group_into_blocks, select_parameters


def build_model():
    model = nn.Module()
    model.vision = nn.Linear(2, 2)
    model.connector = nn.Module()
    model.connector.experts = nn.ModuleList(nn.Sequential(nn.Linear(2, 3), nn.ReLU()) for _ in range(2))
    model.connector.task_tokens = nn.Parameter(nn.Linear(1, 2).weight.detach())
    model.vision.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("connector.experts.1.*", ["connector.experts.1.0.weight", "connector.experts.1.0.bias"]),
        ("experts.1.*.bias", ["connector.experts.1.0.bias"]),
        (["connector.task_tokens"], ["connector.task_tokens"]),
        (["*.bias", "task_tokens"], ["task_tokens", "experts.0.0.bias", "experts.1.0.bias"]),
        (lambda name, parameter: parameter.ndim == 1, ["experts.0.0.bias", "experts.1.0.bias"]),
    ],
)
def test_globs_names_and_predicates(parameters, expected):
    chosen = list(select_parameters(build_model(), parameters))
    assert chosen == [name if name.startswith("connector") else f"connector.{name}" for name in expected]


@pytest.mark.parametrize("wrappers", [["model"], ["module", "model"]])
def test_a_glob_works_behind_wrappers(wrappers):
    wrapped = build_model()
    for name in wrappers:
        outer = nn.Module()
        outer.add_module(name, wrapped)
        wrapped = outer
    assert len(select_parameters(wrapped, "connector.*")) == 5
    assert all(".connector." in name for name in select_parameters(wrapped, "connector.*"))


def test_a_glob_does_not_match_inside_a_name():
    model = nn.Module()
    model.my_connector = nn.Linear(1, 1)
    with pytest.raises(UserError, match="selects no parameter"):
        select_parameters(model, "connector.*")


def test_blocks_are_modules_in_the_models_order():
    blocks = group_into_blocks(select_parameters(build_model(), "connector.*"))
    assert [block.name for block in blocks] == ["connector", "connector.experts.0.0", "connector.experts.1.0"]
    assert [block.size for block in blocks] == [2, 9, 9]
    assert group_into_blocks(select_parameters(nn.Linear(1, 1), "*"))[0].name == ROOT_BLOCK


def test_a_misspelt_glob_lists_the_closest_names():
    with pytest.raises(UserError, match=r"'conector\.\*' selects no parameter.*closest names are .*connector"):
        select_parameters(build_model(), "conector.*")


def test_every_pattern_of_a_list_must_select():
    with pytest.raises(UserError, match=r"'nothing_like_it' selects no parameter.*names, such as"):
        select_parameters(build_model(), ["connector.*", "nothing_like_it"])


def test_frozen_parameters_are_named_as_frozen():
    with pytest.raises(UserError, match=r"frozen parameters only \(vision.weight"):
        select_parameters(build_model(), "vision.*")


@pytest.mark.parametrize(
    ("parameters", "message"), [([], "empty list"), (lambda *_: False, "selects none of the model's 5")]
)
def test_selecting_nothing_is_an_error(parameters, message):
    with pytest.raises(UserError, match=message):
        select_parameters(build_model(), parameters)


def test_a_shared_tensor_is_chosen_by_any_of_its_names():
    model = nn.Module()
    model.embedding, model.head = nn.Embedding(5, 3), nn.Linear(3, 5)
    model.head.weight = model.embedding.weight
    assert list(select_parameters(model, "head.*")) == ["embedding.weight", "head.bias"]
    assert list(select_parameters(model, ["head.weight", "embedding.*"])) == ["embedding.weight"]
    model.embedding.weight.requires_grad_(False)
    with pytest.raises(UserError, match=r"selects frozen parameters only \(head.weight"):
        select_parameters(model, "head.weight")


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (["experts.*"], ["connector", "experts.*"]),
        (["connector.experts.0.*", "task_tokens"], ["task_tokens", "connector.experts.0.*", "connector.experts.1.0"]),
    ],
)
def test_blocks_are_merged_by_the_first_glob_that_matches(merge, expected):
    blocks = group_into_blocks(select_parameters(build_model(), "connector.*"), merge)
    assert [block.name for block in blocks] == expected
    assert sum(block.size for block in blocks) == 20


def test_a_glob_that_merges_nothing_is_named():
    with pytest.raises(UserError, match=r"'expert.*' merges no block; the closest names are"):
        group_into_blocks(select_parameters(build_model(), "connector.*"), ["experts.*", "expert.*"])
