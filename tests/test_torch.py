"""The losses in torch's autograd."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

SETTINGS = [
    ("infonce", {"temperature": 0.5}),
    ("infonce", {"temperature": 0.5, "similarity": "dot", "symmetric": True}),
    ("infonce", {"partition": "joint"}),
    ("infonce", {"normalize": True}),
    ("ntxent", {"temperature": 0.3}),
    ("spectral_contrastive", {}),
    ("spectral_contrastive", {"negatives": "all"}),
    ("barlow_twins", {"redundancy": 0.1}),
    ("barlow_twins", {"normalize": False}),
    ("vicreg", {}),
    ("squared_vicreg", {"invariance": 2.0}),
]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def tensors(torch, n=7, k=3):
    rng = np.random.default_rng(0)
    pair = rng.standard_normal((2, n, k))
    return [torch.tensor(a, requires_grad=True) for a in pair]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_backward_and_double_backward(torch, name, settings):
    import pyssl.torch

    function = getattr(pyssl.torch, name)

    def evaluate(z, z_plus):
        return function(z, z_plus, **settings)

    pair = tensors(torch)
    assert torch.autograd.gradcheck(evaluate, pair)
    assert torch.autograd.gradgradcheck(evaluate, pair)


def test_every_loss_has_a_function(torch):
    import pyssl.torch

    pair = tensors(torch)
    for loss in pyssl.LOSSES.values():
        value = pyssl.torch.loss(loss(), *pair)
        assert value.item() == loss().value(*(a.detach().numpy() for a in pair))
    names = {name for name, _ in SETTINGS}
    assert names == set(pyssl.torch.__all__) - {"loss"}
    assert len(names) == len(pyssl.LOSSES)


def test_dtype_and_one_sided_gradients(torch):
    import pyssl.torch

    z, z_plus = (a.detach().float() for a in tensors(torch))
    z.requires_grad_()
    value = pyssl.torch.ntxent(z, z_plus)
    assert value.dtype == torch.float32
    (2.0 * value).backward()
    assert z.grad.dtype == torch.float32
    expected = pyssl.NTXent().value_and_gradient(z.detach().numpy(), z_plus.numpy())[1][0]
    np.testing.assert_allclose(z.grad.numpy(), 2.0 * expected, rtol=1e-6)
    assert z_plus.grad is None


def test_bad_input(torch):
    import pyssl.torch

    z, z_plus = tensors(torch)
    with pytest.raises(TypeError, match=r"z must be a torch\.Tensor"):
        pyssl.torch.ntxent(z.detach().numpy(), z_plus)
    with pytest.raises(TypeError, match="z_plus must be float32 or float64"):
        pyssl.torch.ntxent(z, z_plus.long())
    with pytest.raises(TypeError, match=r"z_plus must be torch\.float64 like z"):
        pyssl.torch.ntxent(z, z_plus.float())
    with pytest.raises(ValueError, match="z_plus must have the shape of z"):
        pyssl.torch.ntxent(z, z_plus[:3])


def test_absence_is_one_sentence():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    import pyssl.torch\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pyssl.torch needs PyTorch" in done.stdout
    assert "python -m pip install torch" in done.stdout
