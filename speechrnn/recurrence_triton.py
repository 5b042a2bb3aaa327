"""The vanilla recurrence as two Triton kernels; W_hh is loaded once for all steps, if it fits.

In: z (B, T, H), which is W_ih x[t] + b, one large product outside; h[-1] (B, H); W_hh (H, H). Out:
every h[t] (B, T, H), all that is kept for the way back. No row of a batch needs another one, so
each program takes a few of them through all time steps. It does not know W_ih, b or layers.

Keeping the matrix on the chip is the idea of persistent RNNs (Diamos et al. 2016). Sums are in
float32, whatever the inputs are.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_HIDDEN = 256  # units: W_hh of more does not fit on a multiprocessor in half precision
SHARED_BYTES = 227 * 1024  # of shared memory that a program may have on an H100
# Of it, for states beside a W_hh that is kept; where that does not fit, W_hh is read from the cache
# at each step.
STATE_BYTES = 32 * 1024
# Of the batch in a program: the fewest for which H100's tensor cores make a product (wgmma).
ROWS = 16
# Of the batch: from there on ROWS would make more programs than an H100 has multiprocessors (132).
MANY_ROWS = 2048
# Columns of W_hh read at once where it is not kept; with 32, H = 256 and true float32 registers
# were spilled.
PART = 16
WARPS = 8  # with 4, H = 256 in half precision has register spills

# TRITON_INTERPRET=1: the kernels run on a CPU, through NumPy, as a test.
INTERPRETED: bool = triton.knobs.runtime.interpret
DTYPES = (torch.float16, torch.bfloat16, torch.float32, *((torch.float64,) if INTERPRETED else ()))
# Of loops: with NumPy 2.4 the interpreter of Triton 3.6 counts to constants only.
_bound = tl.constexpr if INTERPRETED else int


@triton.jit
def _squash(z, RELU: tl.constexpr):
    if RELU:
        return tl.maximum(z, 0.0)
    # (1 - exp(-2z)) / (1 + exp(-2z)) would be infinity over infinity below z = -44.
    t = tl.exp(-2.0 * tl.abs(z))
    return tl.where(z < 0.0, t - 1.0, 1.0 - t) / (1.0 + t)


@triton.jit
def _slope(h, RELU: tl.constexpr):
    if RELU:
        return tl.where(h > 0.0, 1.0, 0.0)
    return 1.0 - h * h


@triton.jit
def _add_product(
    total, weight, out_stride, in_stride, vectors, there,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """total (WIDTH, ROWS) + W v, with W read in parts; `vectors` (1, ROWS) point to each v."""
    out = tl.arange(0, WIDTH)
    for start in range(0, HIDDEN, PART):
        column = start + tl.arange(0, PART)
        v = tl.load(vectors + column[:, None], (column < HIDDEN)[:, None] & there, 0.0)
        inside = (out < HIDDEN)[:, None] & (column < HIDDEN)[None, :]
        w = tl.load(weight + out[:, None] * out_stride + column[None, :] * in_stride, inside, 0.0)
        total = tl.dot(w, v, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


# Both kernels hold states as columns (WIDTH, ROWS), WIDTH being HIDDEN filled up to a power of two:
# W_hh is then the left factor, whose rows a warp group takes 64 at a time. KEPT says whether W_hh
# stays; SUM is the type of sums.


@triton.jit
def _forward_kernel(
    z, first, weight, states, batch, steps,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr,
    KEPT: tl.constexpr,
    RELU: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """h[t] = squash(z[t] + W h[t-1])."""
    unit = tl.arange(0, WIDTH)[:, None]
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[None, :]
    there = row < batch
    inside = (unit < HIDDEN) & there
    start = row.to(tl.int64) * steps * HIDDEN  # of each clip
    place = start + unit
    if KEPT:
        column = tl.arange(0, WIDTH)[None, :]
        kept = tl.load(weight + unit * HIDDEN + column, (unit < HIDDEN) & (column < HIDDEN), 0.0)
        h = tl.load(first + row * HIDDEN + unit, inside, 0.0)
        following = tl.load(z + place, inside, 0.0)
        for t in range(steps):
            now = following.to(SUM)
            following = tl.load(
                z + place + HIDDEN, inside & (t + 1 < steps), 0.0
            )  # arrives during the product
            h = _squash(tl.dot(kept, h, now, input_precision=PRECISION, out_dtype=SUM), RELU).to(
                h.dtype
            )
            tl.store(states + place, h, inside)
            place += HIDDEN
    else:
        before = first + row * HIDDEN
        for t in range(steps):
            now = tl.load(z + place, inside, 0.0).to(SUM)
            now = _add_product(
                now, weight, HIDDEN, 1, before, there, HIDDEN, WIDTH, PART, PRECISION
            )
            tl.store(states + place, _squash(now, RELU).to(states.dtype.element_ty), inside)
            tl.debug_barrier()  # what these threads stored, others load
            before = states + start + t * HIDDEN
            place += HIDDEN


@triton.jit
def _backward_kernel(
    gradient, states, weight, dz, dfirst, batch, steps,
    HIDDEN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr,
    KEPT: tl.constexpr,
    RELU: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """dz[t] = (gradient[t] + W^T dz[t+1]) squash'(z[t]), last step first; dfirst = W^T dz[0]."""
    unit = tl.arange(0, WIDTH)[:, None]
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[None, :]
    there = row < batch
    inside = (unit < HIDDEN) & there
    start = row.to(tl.int64) * steps * HIDDEN
    place = start + (steps - 1) * HIDDEN + unit
    if KEPT:
        column = tl.arange(0, WIDTH)[None, :]
        kept = tl.load(
            weight + column * HIDDEN + unit, (unit < HIDDEN) & (column < HIDDEN), 0.0
        )  # transposed
        after = tl.zeros((WIDTH, ROWS), gradient.dtype.element_ty)
        following = tl.load(gradient + place, inside, 0.0)
        h = tl.load(states + place, inside, 0.0)
        for back in range(steps):
            total, slope = following.to(SUM), _slope(h.to(SUM), RELU)
            following = tl.load(gradient + place - HIDDEN, inside & (back + 1 < steps), 0.0)
            h = tl.load(states + place - HIDDEN, inside & (back + 1 < steps), 0.0)
            total = tl.dot(kept, after, total, input_precision=PRECISION, out_dtype=SUM)
            after = (total * slope).to(after.dtype)
            tl.store(dz + place, after, inside)
            place -= HIDDEN
        total = tl.dot(
            kept, after, tl.zeros((WIDTH, ROWS), SUM), input_precision=PRECISION, out_dtype=SUM
        )
    else:
        for back in range(steps):
            total = tl.load(gradient + place, inside, 0.0).to(SUM)
            slope = _slope(tl.load(states + place, inside, 0.0).to(SUM), RELU)
            after = dz + start + (steps - back) * HIDDEN
            total = _add_product(
                total, weight, 1, HIDDEN, after, there & (back > 0), HIDDEN, WIDTH, PART, PRECISION
            )
            tl.store(dz + place, (total * slope).to(dz.dtype.element_ty), inside)
            tl.debug_barrier()
            place -= HIDDEN
        total = tl.zeros((WIDTH, ROWS), SUM)
        total = _add_product(
            total, weight, 1, HIDDEN, dz + start, there, HIDDEN, WIDTH, PART, PRECISION
        )
    tl.store(dfirst + row * HIDDEN + unit, total.to(dfirst.dtype.element_ty), inside)


def constants(
    batch: int, hidden: int, dtype: torch.dtype, relu: bool, shared_bytes: int = SHARED_BYTES
) -> dict[str, object]:
    """What the kernels are compiled for, on a GPU with so much shared memory for a program."""
    width = max(16, triton.next_power_of_2(hidden))
    # True float32 has no tensor cores, and all of a kept matrix would pass through registers.
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "HIDDEN": hidden,
        "WIDTH": width,
        "ROWS": ROWS if batch <= MANY_ROWS else 2 * ROWS,
        "PART": PART,
        "KEPT": not exact and width * width * dtype.itemsize + STATE_BYTES <= shared_bytes,
        "RELU": relu,
        "PRECISION": "ieee" if exact else "tf32",
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
    }


def obstacle(device: torch.device, dtype: torch.dtype, hidden: int) -> str | None:
    """Why the kernels cannot run for these; None if they can."""
    if hidden > MAX_HIDDEN:
        return (
            f"hidden_size is {hidden}: the kernels keep W_hh on the chip, which holds "
            f"{MAX_HIDDEN} units at most"
        )
    if dtype not in DTYPES:
        return f"{dtype} has no kernel: expected {', '.join(map(str, DTYPES))}"
    if INTERPRETED:
        return None
    if device.type != "cuda":
        return f"the kernels need an NVIDIA GPU, and the tensors are on {device.type}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        return f"the kernels need compute capability 8.0, and {name} has less"
    return None


@torch.library.custom_op("speechrnn::recurrence", mutates_args=())
def recurrence(z: Tensor, first: Tensor, weight: Tensor, relu: bool) -> Tensor:
    """Every h[t] = squash(z[t] + W_hh h[t-1]); differentiable in z, first and weight.

    Args:
        z: (B, T, H) W_ih x[t] + b; T is 1 or more.
        first: (B, H) h[-1], of the type of z.
        weight: (H, H) W_hh, likewise.
        relu: squash by relu, not tanh.

    Returns:
        (B, T, H).
    """
    z, first, weight = z.contiguous(), first.contiguous(), weight.contiguous()
    states = torch.empty_like(z)
    _run(_forward_kernel, z, first, weight, states, relu=relu)
    return states


@torch.library.custom_op("speechrnn::recurrence_backward", mutates_args=())
def recurrence_backward(
    gradient: Tensor, first: Tensor, weight: Tensor, states: Tensor, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, first and weight, from the gradient (B, T, H) of the states."""
    first, weight = first.contiguous(), weight.contiguous()
    dz, dfirst = torch.empty_like(states), torch.empty_like(first)
    _run(_backward_kernel, gradient.contiguous(), states, weight, dz, dfirst, relu=relu)
    # That of W_hh is the sum of dz[t] h[t-1]^T. One product of all rows, shifted by one, pairs them
    # with no copy, once the first dz of each clip, which would meet the last state of the clip
    # before, is zero; it has a product of its own, with h[-1].
    start = dz[:, 0].clone()
    dz[:, 0] = 0
    dweight = torch.addmm(start.T @ first, dz.flatten(0, 1)[1:].T, states.flatten(0, 1)[:-1])
    dz[:, 0] = start
    return dz, dfirst, dweight


def _run(kernel: Any, *tensors: Tensor, relu: bool) -> None:
    batch, steps, hidden = tensors[0].shape
    on = tensors[0].device
    properties: Any = torch.cuda.get_device_properties(on) if on.type == "cuda" else None
    shared = properties.shared_memory_per_block_optin if properties else SHARED_BYTES
    chosen = constants(batch, hidden, tensors[0].dtype, relu, shared)
    grid = (triton.cdiv(batch, chosen["ROWS"]),)
    with torch.cuda.device_of(
        tensors[0]
    ):  # Triton launches on the current GPU, whichever holds the tensors
        kernel[grid](*tensors, batch, _bound(steps), **chosen, num_warps=WARPS, num_stages=1)


@recurrence.register_fake
def _(z: Tensor, first: Tensor, weight: Tensor, relu: bool) -> Tensor:
    return torch.empty(z.shape, dtype=z.dtype, device=z.device)


@recurrence_backward.register_fake
def _(
    gradient: Tensor, first: Tensor, weight: Tensor, states: Tensor, relu: bool
) -> tuple[Tensor, ...]:
    shapes = states, first, weight
    return tuple(torch.empty(like.shape, dtype=like.dtype, device=like.device) for like in shapes)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, first, weight, ctx.relu = inputs
    ctx.save_for_backward(first, weight, output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *recurrence_backward(gradient, *ctx.saved_tensors, ctx.relu), None


recurrence.register_autograd(_gradients, setup_context=_save)
