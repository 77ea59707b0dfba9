"""What probe finds of every registered cell, in one layer and in two, held against plain autograd."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

import matrix_memory
from probe import known
from throughtime import cells
from throughtime.cells.base import GatedCell
from throughtime.cells.stack import Stack
from throughtime.cells.state import leaves, map_state
from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.probe.examination import examine
from throughtime.probe.gradient_flow import gradient_flow, state_norms
from throughtime.probe.jacobian import layer_jacobians, recurrent_radii
from throughtime.probe.system import constant_inputs, jacobians, layers, origin, parts, run, shaped, step, system

LAGS = 6
every_cell = pytest.mark.parametrize("name", [*cells.names(), matrix_memory.NAME])
every_depth = pytest.mark.parametrize("depth", [1, 2])


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row(arrays):
    """The arrays of one lane, one behind the other."""
    return torch.cat([array.flatten() for array in arrays])


def moved(module):
    """Biases too, which start at zero."""
    for number, parameter in enumerate(module.parameters()):
        parameter.data += 0.3 * draw(*parameter.shape, seed=number).to(parameter)
    return module


def model_of(name, depth=1, **values):
    settings = Model(cell=name, hidden_size=5, layers=depth, **values)
    return moved(LanguageModel(settings, 7, torch.Generator().manual_seed(1)))


def text(length):
    return torch.randint(7, (length,), generator=torch.Generator().manual_seed(2))


@every_cell
@every_depth
def test_jacobians_are_those_of_autograd(name, depth):
    stack = moved(Stack([cells.create(name, size, 5) for size in (3, 5)[:depth]]))
    map_ = system(stack)
    s_BN, x_BD = draw(4, origin(map_).shape[1]), draw(4, 3, seed=1)
    exact = copy.deepcopy(stack).double()
    for s_N, x_D, found_NN in zip(s_BN, x_BD, jacobians(map_, s_BN, x_BD), strict=True):

        def after(s_N, x_D=x_D):
            _, state = exact.step(x_D[None], shaped(map_, s_N[None]))
            return row(leaves(state))

        assert torch.allclose(found_NN, jacobian(after, s_N), atol=1e-12)


def test_jacobians_of_any_number_of_states():
    """Rows come in blocks, the last of which is not whole."""
    map_ = system(moved(cells.create("gru", 2, 37)))
    s_BN = draw(300, 37)
    for lanes in (1, 13, 300):
        found_BNN = jacobians(map_, s_BN[:lanes], draw(300, 2)[:lanes])
        assert torch.allclose(found_BNN[0], jacobians(map_, s_BN[:1], draw(300, 2)[:1])[0], atol=1e-12)
        assert found_BNN.shape == (lanes, 37, 37)


@every_cell
@every_depth
@pytest.mark.parametrize("tied", [False, True])
def test_the_flow_of_the_gradient_is_that_of_autograd(name, depth, tied):
    """From each state on the way: the rest of the text is run anew, and the last loss pulled back."""
    model, ids_T = model_of(name, depth, tied=tied), text(12)
    found = gradient_flow(model, ids_T, LAGS)
    model = copy.deepcopy(model).double()
    states = [model.initial_state(1)]
    for token in ids_T[:-1]:
        states.append(map_state(torch.Tensor.detach, model.step(token[None], states[-1])[1]))
    norms_KLB = torch.zeros(LAGS, depth, found.positions, dtype=torch.float64)
    at = range(LAGS - 1, len(ids_T) - 1)
    assert found.positions == len(at)
    for place, t in enumerate(at):
        for lag in range(1, LAGS + 1):
            start = map_state(lambda array: array.clone().requires_grad_(), states[t + 1 - lag])
            logits_TBV, _ = model(ids_T[t + 1 - lag : t + 1, None], start)
            loss = -logits_TBV[-1, 0].log_softmax(0)[ids_T[t + 1]]
            for layer, state in enumerate(start):
                gradient = row(torch.autograd.grad(loss, leaves(state), retain_graph=True, materialize_grads=True))
                norms_KLB[lag - 1, layer, place] = gradient.norm()
    for layer, norms in enumerate(found.loss):
        assert norms.geometric_K == pytest.approx(norms_KLB[:, layer].log().mean(1).exp().numpy())
        assert norms.arithmetic_K == pytest.approx(norms_KLB[:, layer].mean(1).numpy())


@every_cell
def test_the_norms_of_the_states_jacobians_are_those_of_their_products(name):
    map_ = system(moved(cells.create(name, 3, 4)))
    path = run(map_, draw(1, origin(map_).shape[1]), draw(9, 1, 3))
    size = path.states_TBN.shape[2]
    steps_TNN = jacobians(map_, path.states_TBN[:-1, 0], path.inputs_TBD[:, 0])
    found_KB = state_norms(map_, path, torch.tensor([5, 8]), LAGS, vectors=size)
    for place, t in enumerate((5, 8)):
        whole_NN = torch.eye(size).double()
        for lag in range(LAGS):
            whole_NN = whole_NN @ steps_TNN[t - lag]
            assert float(found_KB[lag, place]) == pytest.approx(float(whole_NN.norm()) / size**0.5)


def test_a_few_random_vectors_estimate_the_norm():
    map_ = system(moved(cells.create("elman", 3, 60)))
    path = run(map_, origin(map_), draw(40, 1, 3))
    at_B = torch.arange(8, 40)
    exact_KB, few_KB = (state_norms(map_, path, at_B, 4, vectors) for vectors in (60, 8))
    assert torch.allclose(few_KB.square().mean(1), exact_KB.square().mean(1), rtol=0.15)
    assert not torch.allclose(few_KB, exact_KB, rtol=0.01)


@every_cell
def test_what_a_truncation_throws_away(name):
    """The gradient of the parameters by autograd, from a state that is cut off k steps back."""
    model, ids_T = model_of(name, 2), text(12)
    found = gradient_flow(model, ids_T, LAGS).thrown
    model = copy.deepcopy(model).double()
    states = [model.initial_state(1)]
    for token in ids_T[:-1]:
        states.append(map_state(torch.Tensor.detach, model.step(token[None], states[-1])[1]))

    def gradient(reach):
        losses = []
        for t in range(LAGS - 1, len(ids_T) - 1):
            logits_TBV, _ = model(ids_T[t + 1 - reach : t + 1, None], states[t + 1 - reach])
            losses.append(-logits_TBV[-1, 0].log_softmax(0)[ids_T[t + 1]])
        gradients = torch.autograd.grad(sum(losses), list(model.stack.parameters()))
        return torch.cat([array.flatten() for array in gradients])

    truncated = torch.stack([gradient(reach) for reach in range(1, LAGS + 1)])
    windows = truncated.cumsum(0) / torch.arange(1, LAGS + 1)[:, None]
    for shares_K, left in ((found.reach_K, truncated), (found.window_K, windows)):
        expected_K = (left - truncated[-1]).norm(dim=1) / truncated[-1].norm()
        assert shares_K == pytest.approx(expected_K.detach().numpy(), abs=1e-12)


@pytest.mark.parametrize("rho", [0.5, 1.0, 1.1])
def test_a_linear_recurrence_has_gradients_of_rho_to_the_k(rho):
    turn = rho * torch.linalg.qr(draw(20, 20)).Q
    map_ = system(known.Map(lambda h: h @ turn.T, 20))
    path = run(map_, draw(1, 20), constant_inputs(map_, 60, 1))
    found_KB = state_norms(map_, path, torch.tensor([49, 59]), 50, vectors=3)
    assert found_KB[:, 0].numpy() == pytest.approx(rho ** np.arange(1, 51))
    (layer,) = layer_jacobians(map_, path)
    assert layer.mean_radius == pytest.approx(rho)
    assert layer.singular_values_PN == pytest.approx(rho)


@pytest.mark.parametrize("rho", [0.5, 1.1])
def test_the_slope_of_a_linear_language_model_is_log_rho(rho):
    model = LanguageModel(Model(cell="elman", hidden_size=8, cell_options={"activation": "relu"}), 7)
    with torch.no_grad():
        model.stack.cells[0].W_hh.copy_(rho * torch.eye(8))
        model.stack.cells[0].b_h.fill_(100.0)  # so that relu is never bent,
        model.W_o.mul_(1e-6)  # nor the softmax
    found = gradient_flow(model, text(60), 40)
    assert found.loss[0].slope == pytest.approx(math.log(rho), abs=1e-6)
    assert found.state[0].slope == pytest.approx(math.log(rho), abs=1e-6)
    assert recurrent_radii(model.stack.cells[0]) == pytest.approx({"W_hh": rho})


@every_cell
def test_everything_is_found_of_every_cell(name):
    model = model_of(name, depth=2)
    before = copy.deepcopy(model.state_dict())
    found = examine(model, text(70), token=3)
    assert all(torch.equal(array, before[key]) for key, array in model.state_dict().items())
    assert found.alone.verdict in ("point attractor", "oscillation", "undecided")
    assert np.isfinite(found.driven.exponents_K).all()
    assert len(found.flow.loss) == len(found.flow.state) == len(found.layers) == 2
    for point_N, fixed in zip(found.fixed.points_FN, found.fixed.fixed_F, strict=True):
        state = shaped(system(model), torch.from_numpy(point_N)[None])
        _, after = copy.deepcopy(model).double().step(torch.tensor([3]), state)
        assert not fixed or torch.allclose(row(leaves(after)), torch.from_numpy(point_N), atol=1e-6)
    # The converse does not hold: a search may find the point that a path creeps to.
    assert found.fixed.stable_F.any() or found.alone.verdict != "point attractor"
    for layer, cell in zip(found.layers, model.stack.cells, strict=True):
        gated = isinstance(cell, GatedCell)
        assert bool(layer.gates) == gated
        assert all(0 <= gate.shut + gate.open <= 1 and 0 < gate.mean < 1 for gate in layer.gates.values())
        assert len(layer.recurrent_radii) == (len(cell.recurrent_weights()) // 5 if cell.recurrent else 0)


@every_cell
def test_a_layer_of_a_stack_is_what_stands_on_the_diagonal(name):
    stack = moved(Stack([cells.create(name, size, 4) for size in (3, 4)]))
    map_ = system(stack)
    path = run(map_, origin(map_), draw(5, 1, 3))
    found_TNN = jacobians(map_, path.states_TBN[:-1, 0], path.inputs_TBD[:, 0])
    for layer, part in zip(layer_jacobians(map_, path), parts(map_), strict=True):
        exact_PN = torch.linalg.svdvals(found_TNN[:, part, part]).numpy()
        assert layer.singular_values_PN == pytest.approx(exact_PN)
        assert layer.state_norms_T == pytest.approx(path.states_TBN[1:, 0, part].norm(dim=1).numpy())
    assert [origin(layer).shape for layer in layers(map_)] == [(1, part.stop - part.start) for part in parts(map_)]


def test_gates_and_units_that_are_stuck():
    cell = cells.create("lstm", 3, 4, forget_bias=20.0)
    with torch.no_grad():
        cell.b[:4] = -20.0  # input: shut
        cell.b[12] = -20.0  # output of one unit: shut
    map_ = system(cell)
    (layer,) = layer_jacobians(map_, run(map_, draw(1, 8), draw(30, 1, 3)))
    assert layer.gates["forget"].open == layer.gates["input"].shut == 1
    assert layer.gates["output"].shut == pytest.approx(0.25, abs=0.15)
    assert layer.dead == 0.25
    wide = cells.create("elman", 3, 6)
    with torch.no_grad():
        wide.b_h[:2] = 50.0
    map_ = system(wide)
    (layer,) = layer_jacobians(map_, run(map_, origin(map_), 0.1 * draw(30, 1, 3)))
    assert (layer.saturated, layer.dead) == (2 / 6, 2 / 6)
    map_ = system(known.Map(lambda h: h + 1, 2))
    assert layer_jacobians(map_, run(map_, origin(map_), constant_inputs(map_, 5, 1)))[0].saturated is None


def test_a_constant_input_is_read():
    cell = moved(cells.create("gru", 3, 4)).double()
    map_ = system(cell, torch.ones(3))
    path = run(map_, origin(map_), constant_inputs(map_, 2, 1))
    y_BH, _ = step(map_, path.states_TBN[0], torch.ones(1, 3).double())
    assert torch.equal(path.outputs_TBH[0], y_BH)
    assert torch.allclose(cell(torch.ones(2, 1, 3).double())[0], path.outputs_TBH)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda model: examine(model, text(10)), "a text to look into needs 64 tokens, got 10"),
        (lambda model: gradient_flow(model, text(9), 8), "gradients 8 steps back need 10 tokens of text, got 9"),
    ],
)
def test_a_text_may_be_too_short(look, message):
    with pytest.raises(ThroughtimeError, match=message):
        look(model_of("elman"))
