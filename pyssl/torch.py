"""The losses as differentiable functions of torch tensors.

Each function takes two tensors (n, k) of embeddings on the CPU, float32 or float64, and the
settings of its loss, and returns a scalar tensor. Backward is the fused gradient, backward through
backward the fused Hessian-vector product. torch is an optional dependency.

>>> import torch, pyssl.torch
>>> z = torch.eye(4, dtype=torch.float64, requires_grad=True)
>>> loss = pyssl.torch.ntxent(z, z.detach(), temperature=0.5)
>>> loss.backward()
>>> z.grad.shape
torch.Size([4, 4])
"""

from __future__ import annotations

from typing import Any

from pyssl import _checks
from pyssl.loss import Loss
from pyssl.losses import (
    BarlowTwins,
    InfoNCE,
    NTXent,
    SpectralContrastive,
    SquaredVICReg,
    VICReg,
)

with _checks.needs("pyssl.torch needs PyTorch", "torch"):
    import torch

__all__ = [
    "barlow_twins",
    "infonce",
    "loss",
    "ntxent",
    "spectral_contrastive",
    "squared_vicreg",
    "vicreg",
]


def loss(settings: Loss, z: torch.Tensor, z_plus: torch.Tensor) -> torch.Tensor:
    """Evaluate a loss on embeddings, differentiably (twice).

    Parameters
    ----------
    settings : Loss
    z, z_plus : (n, k) torch.Tensor
        Row i of each is the embedding of one view of sample i; n >= 2, on the CPU.

    Returns
    -------
    torch.Tensor
        A scalar, in the tensors' dtype.

    Raises
    ------
    ValueError
        For a wrong shape, n < 2, NaN or infinity, or a tensor that is not on the CPU.
    TypeError
        For anything but a loss and tensors of float32 or float64, both the same.

    Examples
    --------
    >>> import pyssl, pyssl.torch, torch
    >>> z = torch.eye(4, dtype=torch.float64)
    >>> pyssl.torch.loss(pyssl.SpectralContrastive(), z, z)
    tensor(-2., dtype=torch.float64)
    """
    _checks.instance("settings", settings, Loss, "a pyssl.Loss")
    for name, tensor in (("z", z), ("z_plus", z_plus)):
        _checks.instance(name, tensor, torch.Tensor, "a torch.Tensor")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} must be dense, got {tensor.layout}")
        if tensor.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, got {tensor.device}")
    if z.dtype != z_plus.dtype:
        raise TypeError(f"z_plus must be {z.dtype} like z, got {z_plus.dtype}")
    return _Value.apply(settings, z, z_plus)


def infonce(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.InfoNCE` with these settings; see `loss`."""
    return loss(InfoNCE(**settings), z, z_plus)


def ntxent(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.NTXent` with these settings; see `loss`."""
    return loss(NTXent(**settings), z, z_plus)


def spectral_contrastive(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.SpectralContrastive` with these settings; see `loss`."""
    return loss(SpectralContrastive(**settings), z, z_plus)


def barlow_twins(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.BarlowTwins` with these settings; see `loss`."""
    return loss(BarlowTwins(**settings), z, z_plus)


def vicreg(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.VICReg` with these settings; see `loss`."""
    return loss(VICReg(**settings), z, z_plus)


def squared_vicreg(z: torch.Tensor, z_plus: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Evaluate `pyssl.SquaredVICReg` with these settings; see `loss`."""
    return loss(SquaredVICReg(**settings), z, z_plus)


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    return [tensor.detach().resolve_neg().contiguous().numpy() for tensor in tensors]


class _Value(torch.autograd.Function):
    """The loss; its gradient is computed with it, at hardly more than the cost of the loss."""

    @staticmethod
    def forward(ctx: Any, settings: Loss, z: torch.Tensor, z_plus: torch.Tensor) -> torch.Tensor:
        ctx.settings = settings
        ctx.save_for_backward(z, z_plus)
        if not (z.requires_grad or z_plus.requires_grad):
            return z.new_tensor(settings.value(*_arrays(z, z_plus)))
        value, gradients = settings.value_and_gradient(*_arrays(z, z_plus))
        ctx.gradients = tuple(torch.from_numpy(gradient) for gradient in gradients)
        return z.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> Any:
        (output,) = outputs
        by_z, by_z_plus = _Gradient.apply(ctx.settings, ctx.gradients, *ctx.saved_tensors)
        return None, output * by_z, output * by_z_plus


class _Gradient(torch.autograd.Function):
    """The gradients, already computed; backward through them is a Hessian-vector product."""

    @staticmethod
    def forward(
        ctx: Any,
        settings: Loss,
        gradients: tuple[torch.Tensor, torch.Tensor],
        z: torch.Tensor,
        z_plus: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.settings = settings
        ctx.save_for_backward(z, z_plus)
        return gradients[0].clone(), gradients[1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: torch.Tensor) -> Any:
        z, z_plus = ctx.saved_tensors
        change = ctx.settings.hvp(*_arrays(z, z_plus, *outputs))
        return None, None, *(torch.from_numpy(part) for part in change)
