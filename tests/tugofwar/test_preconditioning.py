"""Oracle: the step that the optimizer itself takes. Without momentum it is -lr x gradient x scale."""

import copy

import pytest
import torch
from torch import nn

from tugofwar.errors import UserError
from tugofwar.preconditioning import SecondMoment, saved_second_moments, second_moments


def model_of(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).to(dtype)


def stepped(model, optimizer, steps=4):
    """The optimizer after some steps; returns the gradients and the displacement of the last one."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    for number in range(steps):
        optimizer.zero_grad()
        x = torch.randn(5, 4, generator=generator, dtype=torch.float64).to(dtype)
        (model(x) ** 2).sum().mul(1 + number).backward()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer.step()
    moved = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, moved


@pytest.fixture
def trained():
    model = model_of()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    stepped(model, optimizer)
    return model, optimizer


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_scale_is_that_of_the_step_taken(kind, steps, amsgrad):
    model = model_of()
    optimizer = kind(
        [{"params": model[0].parameters(), "eps": 1e-3}, {"params": model[2].parameters(), "betas": (0.0, 0.9)}],
        lr=0.01,
        betas=(0.0, 0.99),
        weight_decay=0.0,
        amsgrad=amsgrad,
    )
    gradients, moved = stepped(model, optimizer, steps)
    scales = second_moments(optimizer, dict(model.named_parameters()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(-0.01 * gradient * scales[name], moved[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_the_scale_is_kept_in_at_least_float32(dtype, kept):
    model = model_of(dtype)
    optimizer = torch.optim.AdamW(model.parameters())
    stepped(model, optimizer)
    for name, scale in second_moments(optimizer, dict(model.named_parameters())).items():
        assert scale.dtype == kept
        assert scale.shape == model.get_parameter(name).shape
        assert not scale.requires_grad


def test_nothing_of_the_optimizer_changes(trained):
    model, optimizer = trained
    before = copy.deepcopy(optimizer.state_dict())
    second_moments(optimizer, dict(model.named_parameters()))
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for number, state in before["state"].items():
        assert all((state[key] == after["state"][number][key]).all() for key in state)


def test_a_mapping_holds_corrected_moments():
    model = model_of()
    selected = {"0.bias": model[0].bias}
    squares = torch.tensor([0.0, 4.0, 9.0])
    scale = second_moments({"0.bias": SecondMoment(squares, 0.5)}, selected)["0.bias"]
    torch.testing.assert_close(scale, torch.tensor([2.0, 1 / 2.5, 1 / 3.5], dtype=torch.float64))
    bare = second_moments({"0.bias": squares, "not selected": torch.ones(1)}, selected)
    assert bare["0.bias"][0] == pytest.approx(1e8)


def test_a_saved_state_gives_the_same_scales(trained, tmp_path):
    model, _ = trained
    decayed, others = ["0.weight", "2.weight"], ["0.bias", "2.bias"]
    groups = [
        {"params": [model.get_parameter(name) for name in decayed], "weight_decay": 0.1},
        {"params": [model.get_parameter(name) for name in others], "betas": (0.5, 0.7), "eps": 1e-4},
    ]
    optimizer = torch.optim.AdamW(groups)
    stepped(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    selected = dict(model.named_parameters())
    exact = second_moments(optimizer, selected)
    saved = second_moments(saved_second_moments(tmp_path / "optimizer.pt", decayed + others), selected)
    assert list(saved) == list(exact)
    assert all((saved[name] == exact[name]).all() for name in exact)


def changed(moments, value):
    return {**moments, "0.bias": value}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(4), r"second moments of 0.bias have shape \(4,\), the parameter has \(3,\)"),
        (torch.tensor([1.0, -1.0, 1.0]), "0.bias are negative"),
        (torch.tensor([1.0, float("nan"), 1.0]), "0.bias are not finite"),
        (torch.tensor([1.0, float("inf"), 1.0]), "0.bias are not finite"),
        ([1.0, 1.0, 1.0], "0.bias are not a tensor but list"),
    ],
)
def test_bad_moments_are_named(value, message):
    model = model_of()
    good = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    with pytest.raises(UserError, match=message):
        second_moments(changed(good, value), dict(model.named_parameters()))


def test_a_missing_parameter_is_named_with_its_neighbours(trained):
    model, optimizer = trained
    selected = dict(model.named_parameters())
    moments = {name: torch.ones_like(parameter) for name, parameter in selected.items() if name != "2.bias"}
    with pytest.raises(UserError, match=r"no second moments for 2.bias, .*0.bias"):
        second_moments(moments, selected)
    with pytest.raises(UserError, match="does not hold the parameter other"):
        second_moments(optimizer, {"other": nn.Parameter(torch.ones(2))})


def test_zero_moments_without_eps_are_refused():
    selected = {"p": nn.Parameter(torch.ones(2))}
    with pytest.raises(UserError, match="infinite"):
        second_moments({"p": SecondMoment(torch.zeros(2), 0.0)}, selected)


def test_optimizers_without_second_moments_are_refused(trained):
    model, _ = trained
    selected = dict(model.named_parameters())
    momentum = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepped(model, momentum)
    with pytest.raises(UserError, match="SGD keeps no second moments"):
        second_moments(momentum, selected)
    with pytest.raises(UserError, match=r"AdamW has no second moments for 0.weight: it has not stepped"):
        second_moments(torch.optim.AdamW(model.parameters()), selected)
    with pytest.raises(UserError, match="got a Sequential"):
        second_moments(model, selected)


def test_a_parameter_that_no_gradient_reached_is_refused():
    model = model_of()
    idle = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.Adam([*model.parameters(), idle])
    stepped(model, optimizer)
    with pytest.raises(UserError, match=r"no second moments for idle: .*no gradient has ever reached"):
        second_moments(optimizer, {"idle": idle})


def test_unreadable_files_are_one_sentence(trained, tmp_path):
    model, optimizer = trained
    names = [name for name, _ in model.named_parameters()]
    whole = tmp_path / "optimizer.pt"
    torch.save(optimizer.state_dict(), whole)
    with pytest.raises(UserError, match="no optimizer state at"):
        saved_second_moments(tmp_path / "missing.pt", names)
    with pytest.raises(UserError, match="not a readable optimizer state"):
        saved_second_moments(tmp_path, names)
    with pytest.raises(UserError, match="4 parameters, but 3 names"):
        saved_second_moments(whole, names[:-1])
    with pytest.raises(UserError, match=r"repeat 2.bias"):
        saved_second_moments(whole, ["2.bias", *names[1:]])
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(whole.read_bytes()[:300])
    empty = tmp_path / "empty.pt"
    empty.write_bytes(b"")
    text = tmp_path / "text.pt"
    text.write_text("hello", encoding="utf-8")
    for broken in (truncated, empty, text):
        with pytest.raises(UserError, match="not a readable optimizer state"):
            saved_second_moments(broken, names)
    weights = tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    with pytest.raises(UserError, match="holds no optimizer state"):
        saved_second_moments(weights, names)
    torch.save(torch.optim.Adam(model.parameters()).state_dict(), tmp_path / "fresh.pt")
    with pytest.raises(UserError, match="had not stepped"):
        saved_second_moments(tmp_path / "fresh.pt", names)
    momentum = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepped(model, momentum)
    torch.save(momentum.state_dict(), tmp_path / "sgd.pt")
    with pytest.raises(UserError, match=r"sgd.pt keeps no second moments"):
        saved_second_moments(tmp_path / "sgd.pt", names)


def test_a_file_leaves_out_what_no_gradient_reached(tmp_path):
    model = model_of()
    idle = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.Adam([idle, *model.parameters()])
    stepped(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    names = [name for name, _ in model.named_parameters()]
    saved = saved_second_moments(tmp_path / "optimizer.pt", ["idle", *names])
    assert list(saved) == names
    with pytest.raises(UserError, match="no second moments for idle, as for a parameter that no gradient"):
        second_moments(saved, {"idle": idle})
