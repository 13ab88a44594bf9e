import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unimed_model import mixing
from unimed_model.connector import CMoEConnector, ProjectionConnector, build_connector, width_as_cmoe
from unimed_model.settings import ConnectorSettings


@pytest.fixture(autouse=True)
def _double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def connector(**settings):
    return build_connector(ConnectorSettings(**{"router_hidden": 7, **settings}), 12, 6)


def inputs():
    return torch.randn(3, 4, 12), torch.tensor([0, 2, 4])


@pytest.mark.parametrize("normalisation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("strategy", ["token", "task", "token_task"])
def test_mixture_is_the_weighted_sum_of_its_experts(strategy, normalisation):
    """Equation 9 against a loop over images, tokens and experts."""
    module = connector(kind="cmoe", strategy=strategy, normalisation=normalisation)
    tokens, tasks = inputs()
    output = module(tokens, tasks)
    for image in range(3):
        for token in range(4):
            x = tokens[image, token]
            task = module.task_tokens[tasks[image]] if strategy != "token" else None
            read = {"token": x, "task": task, "token_task": None if task is None else torch.cat([task, x])}[strategy]
            scores = module.router.layers(read)
            raw = torch.sigmoid(scores) if normalisation == "sigmoid" else torch.exp(scores)
            weights = raw / raw.sum()
            wanted = sum(w * expert(x) for w, expert in zip(weights, module.experts, strict=True))
            torch.testing.assert_close(output.router_weights[image, token], weights, atol=1e-12, rtol=0)
            torch.testing.assert_close(output.tokens[image, token], wanted, atol=1e-12, rtol=0)


def test_router_weights_stay_finite_where_every_sigmoid_vanishes():
    module = connector(kind="cmoe")
    with torch.no_grad():
        module.router.layers[-1].bias.fill_(-2000.0)
    weights = module(*inputs()).router_weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))


def test_one_expert_is_the_mlp():
    mixture, mlp = connector(kind="cmoe", num_experts=1), connector(kind="mlp")
    mlp.layers.load_state_dict(mixture.experts[0].state_dict())
    tokens, tasks = inputs()
    torch.testing.assert_close(mixture(tokens, tasks).tokens, mlp(tokens, tasks).tokens)


def test_permuted_experts_permute_weights_and_leave_the_output():
    module = connector(kind="cmoe")
    tokens, tasks = inputs()
    before = module(tokens, tasks)
    order = [3, 0, 4, 1, 2]
    module.experts = torch.nn.ModuleList(module.experts[i] for i in order)
    with torch.no_grad():
        last = module.router.layers[-1]
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    after = module(tokens, tasks)
    torch.testing.assert_close(after.router_weights, before.router_weights[..., order])
    torch.testing.assert_close(after.tokens, before.tokens)


def test_gradients_against_finite_differences():
    module = connector(kind="cmoe")
    tokens, tasks = inputs()
    tokens.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: module(x, tasks).tokens, (tokens,))


def test_task_tokens_matter_only_where_the_router_reads_them():
    tokens, _ = inputs()
    for strategy, differs in (("token", False), ("task", True), ("token_task", True)):
        module = connector(kind="cmoe", strategy=strategy)
        first, second = (module(tokens, torch.full((3,), task)).tokens for task in (0, 1))
        assert torch.equal(first, second) is not differs


@pytest.mark.parametrize(("kind", "linears"), [("linear", 1), ("mlp", 2)])
def test_single_projections(kind, linears):
    module = connector(kind=kind)
    assert isinstance(module, ProjectionConnector)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in module.layers) == linears
    assert module(*inputs()).router_weights is None


def test_parameter_names_are_those_that_globs_address():
    names = {name.split(".")[0] for name, _ in connector(kind="cmoe").named_parameters()}
    assert names == {"experts", "router", "task_tokens"}
    assert isinstance(connector(kind="cmoe"), CMoEConnector)


def test_full_size_counts_on_the_meta_device():
    """Sizes of the released model: one expert, five, and its router."""
    with torch.device("meta"):
        module = build_connector(ConnectorSettings(), 5632, 4096)
    counts = [sum(p.numel() for p in part.parameters()) for part in (module.experts[0], module.experts, module.router)]
    assert counts == [39_854_080, 199_270_400, 507_781_125]


def one_by_one(module, tokens, weights):
    """Equation 9 with a loop over tokens and experts."""
    return torch.stack(
        [
            sum(w * e(x) for w, e in zip(row, module.experts, strict=True))
            for x, row in zip(tokens, weights, strict=True)
        ]
    )


@pytest.mark.parametrize("router", ["constant", "hard", "sparse", "soft"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_mixture_equals_the_plain_sum_in_value_and_gradient(router, layers):
    module = connector(kind="cmoe", router=router, layers=layers, num_experts=6)
    tokens, tasks = inputs()
    output = module(tokens, tasks)
    flat, weights = tokens.flatten(0, 1), output.router_weights.flatten(0, 1)
    wanted = one_by_one(module, flat, weights)
    torch.testing.assert_close(output.tokens.flatten(0, 1), wanted, atol=1e-12, rtol=0)
    direction = torch.randn_like(wanted)
    parameters = list(module.parameters())
    total = (output.tokens.flatten(0, 1) * direction).sum()
    got = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    plain = torch.autograd.grad((wanted * direction).sum(), parameters, allow_unused=True)
    for one, other in zip(got, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 6),
    experts=st.integers(1, 6),
    layers=st.integers(1, 3),
    seed=st.integers(0, 999),
    width=st.integers(1, 4),
)
def test_three_ways_of_mixing_agree(tokens, experts, layers, seed, width):
    torch.manual_seed(seed)
    module = build_connector(
        ConnectorSettings(num_experts=experts, layers=layers, router="constant"), width, 3
    ).double()
    x, weights = torch.randn(tokens, width, dtype=torch.float64), torch.rand(tokens, experts, dtype=torch.float64)
    weights = weights * (torch.rand_like(weights) < 0.6)
    ways = [mixing._one_by_one, mixing._chosen, mixing._joined]
    first, *others = (way(module.experts, x, weights) for way in ways)
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-12, rtol=0)


def test_experts_are_called_where_somebody_listens():
    """A hook sees every expert's layers, though without one all would be a single product."""
    module = connector(kind="cmoe")
    tokens, tasks = inputs()
    silent = module(tokens, tasks).tokens
    calls = []
    for expert in module.experts:
        expert[0].register_forward_hook(lambda layer, args, output: calls.append(layer))
    heard = module(tokens, tasks).tokens
    assert calls == [expert[0] for expert in module.experts]
    torch.testing.assert_close(heard, silent, atol=1e-12, rtol=0)


def test_an_expert_without_tokens_has_a_gradient_of_zero():
    """Sharded training waits for the gradient of every parameter."""
    module = connector(kind="cmoe", router="hard", num_experts=7)
    tokens, _ = inputs()
    module(tokens, torch.zeros(3, dtype=torch.long)).tokens.sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert all(not p.grad.any() for expert in module.experts[1:] for p in expert.parameters())


@pytest.mark.parametrize("layers", [2, 3])
def test_the_fair_mlp_has_the_mixtures_number_of_parameters(layers):
    settings = ConnectorSettings(kind="mlp", layers=layers, hidden="as_cmoe", router_hidden=7)
    fair = build_connector(settings, 12, 6)
    mixture = connector(kind="cmoe")
    counts = [sum(p.numel() for p in module.parameters()) for module in (fair, mixture)]
    width = width_as_cmoe(settings, 12, 6)
    wider = build_connector(settings.model_copy(update={"hidden": width + 1}), 12, 6)
    step = sum(p.numel() for p in wider.parameters()) - counts[0]
    assert 0 <= abs(counts[0] - counts[1]) <= step


def test_both_ends_of_the_connector_are_returned():
    tokens, tasks = inputs()
    assert torch.equal(connector(kind="cmoe")(tokens, tasks).inputs, tokens)
    assert torch.equal(connector(kind="linear")(tokens).inputs, tokens)


def test_tasks_are_asked_for_only_where_they_are_read():
    tokens, _ = inputs()
    for needless in (
        {"kind": "mlp"},
        {"router": "constant"},
        {"strategy": "token"},
        {"router": "sparse", "strategy": "token"},
    ):
        assert connector(**needless)(tokens).tokens.shape == (3, 4, 6)
    for needed in ({"router": "hard"}, {"strategy": "task"}, {"router": "sparse"}):
        with pytest.raises(ValueError, match="task_ids"):
            connector(**needed)(tokens)


def test_a_router_is_built_only_where_it_is_used():
    names = {
        router: {n.split(".")[0] for n, _ in connector(router=router).named_parameters()}
        for router in ("constant", "hard")
    }
    assert names == {"constant": {"experts"}, "hard": {"experts"}}
    assert {n.split(".")[0] for n, _ in connector(strategy="token").named_parameters()} == {"experts", "router"}


@pytest.mark.parametrize("router", ["constant", "hard", "sparse", "soft"])
def test_mixed_precision_stays_near_full_precision(router):
    module = connector(router=router).float()
    tokens, tasks = inputs()
    exact = module(tokens.float(), tasks).tokens
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(tokens.float(), tasks).tokens
    assert (rounded - exact).norm() < 0.03 * exact.norm()
