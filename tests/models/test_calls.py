"""The call graph names every operation, whatever the module looks like."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from edgekd.models.calls import CallMode, Site, record_calls
from edgekd.models.torchvision_shim import ensure_torchvision_ops


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = x + self.second(x)
        return self.head(self.drop(x.mean((2, 3))))


def test_operations_are_recorded_in_order_with_their_readers() -> None:
    graph = record_calls(Residual(), torch.randn(2, 3, 8, 8))
    assert [call.op for call in graph.calls] == [
        "conv2d",
        "relu",
        "conv2d",
        "add",
        "mean",
        "dropout",
        "linear",
    ]
    relu, add = graph.calls[1], graph.calls[3]
    assert [call.op for call in graph.consumers(relu.outputs[0])] == ["conv2d", "add"]
    assert graph.sole_consumer(relu) is None
    assert graph.sole_consumer(graph.calls[0]) is relu
    assert graph.producer(add.inputs[0]) is relu
    assert graph.producer(graph.calls[0].inputs[0]) is None, "the first convolution reads the model's input"
    assert graph.result == graph.calls[-1].outputs


def test_sites_name_the_module_and_count_its_calls() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.relu(x) - 1)

    sites = [call.site for call in record_calls(nn.Sequential(Twice(), Twice()), torch.randn(1, 4)).calls]
    assert [site for site in sites if site.op == "relu"] == [
        Site("0", "relu", 0), Site("0", "relu", 1), Site("1", "relu", 0), Site("1", "relu", 1),
    ]  # fmt: skip
    assert str(Site("", "relu", 1)) == "<root>:relu#1"


def test_parameters_are_named_also_under_a_parametrization() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2.0

    model = Residual()
    parametrize.register_parametrization(model.second, "weight", Twice())
    graph = record_calls(model, torch.randn(2, 3, 8, 8))
    named = {call.site.module: call.parameters for call in graph.calls if call.parameters}
    assert named == {
        "first": ("first.weight", "first.bias"),
        "second": ("second.weight", "second.bias"),
        "head": ("head.weight", "head.bias"),
    }
    assert all(call.op != "mul" for call in graph.calls), "an effective weight is no operation of the network"


def test_a_computed_weight_is_no_parameter_of_the_call() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight - self.weight.mean(), self.bias)

    (call,) = record_calls(Standardised(3, 4, 1), torch.randn(1, 3, 4, 4)).calls
    assert call.op == "conv2d" and call.parameters == ("bias",)


def test_recording_leaves_the_module_as_it_was() -> None:
    model = Residual().train()
    model.drop.eval()
    record_calls(model, torch.randn(2, 3, 8, 8))
    assert model.training and model.first.training and not model.drop.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    copy.deepcopy(model)
    pickle.dumps(model)


def test_an_exception_in_forward_leaves_no_hook_behind() -> None:
    model = Residual()
    with pytest.raises(RuntimeError):
        record_calls(model, torch.randn(2, 5, 8, 8))
    from torch.nn.modules import module as internals

    assert not internals._global_forward_hooks and not internals._global_forward_pre_hooks


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_drop_path_and_dropout_do_not_shift_sites(name: str) -> None:
    """What was planned in eval mode is found again while training with stochastic depth."""
    ensure_torchvision_ops()
    import timm

    class Watch(CallMode):
        def __init__(self) -> None:
            super().__init__()
            self.shapes: dict[Site, tuple[int, ...]] = {}

        def on_call(self, site, func, args, kwargs):  # type: ignore[no-untyped-def]
            output = func(*args, **kwargs)
            if isinstance(output, Tensor):
                self.shapes[site] = tuple(output.shape)
            return output

    model = timm.create_model(name, num_classes=3, drop_path_rate=0.5, drop_rate=0.3)
    x = torch.randn(4, 3, 64, 64)
    planned = {call.site: call.shape for call in record_calls(model, x).calls}
    watch = Watch()
    model.train()
    with watch.following(model):
        model(x)
    dropped = {site for site in watch.shapes if "drop_path" in site.module or site.op == "dropout"}
    assert dropped - set(planned) or name == "test_efficientnet", "drop path was on"
    ops = {"conv2d", "linear", "add", "relu", "mul", "silu", "mean", "max_pool2d"}
    for site, shape in planned.items():
        if site.op in ops:
            assert watch.shapes[site] == shape, site


def test_ids_in_another_shape_are_the_input_still() -> None:
    """As decoders of transformers begin: ``input_ids.view(-1, length)``."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids.view(-1, ids.shape[1]).long()).mean(1))

    graph = record_calls(Words(), torch.arange(8).reshape(2, 4))
    assert [call.site.op for call in graph.calls] == ["embedding", "mean", "linear"]
    assert graph.calls[0].inputs == (-1,)


def test_arguments_by_name_stand_in_their_places() -> None:
    class Named(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(input=F.linear(input=x, weight=self.weight, bias=self.bias))

    class Seen(CallMode):
        def on_call(self, site, func, args, kwargs):
            seen[site.op] = (len(args), sorted(kwargs))
            return super().on_call(site, func, args, kwargs)

    seen: dict[str, tuple[int, list[str]]] = {}
    net, mode = Named(4, 3), Seen()
    with mode.following(net):
        net(torch.randn(2, 4))
    assert seen == {"linear": (2, ["bias"]), "gelu": (1, [])}
