import pytest
import torch

from unimed_model.connector import CMoEConnector, ProjectionConnector, build_connector
from unimed_model.settings import ConnectorSettings


@pytest.fixture(autouse=True)
def _double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def connector(**settings):
    return build_connector(ConnectorSettings(router_hidden=7, **settings), 12, 6, num_tasks=5)


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
        module = build_connector(ConnectorSettings(), 5632, 4096, num_tasks=5)
    counts = [sum(p.numel() for p in part.parameters()) for part in (module.experts[0], module.experts, module.router)]
    assert counts == [39_854_080, 199_270_400, 507_781_125]
