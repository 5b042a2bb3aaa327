"""Compile the kernels for an H100, without one; print what each takes of a multiprocessor."""

import subprocess
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from speechrnn import recurrence_triton as kernels

POINTERS = {
    kernels._forward_kernel: ("z", "first", "weight", "states"),
    kernels._backward_kernel: ("gradient", "states", "weight", "dz", "dfirst"),
}
KINDS = {
    "float32": (torch.float32, "fp32"),
    "tf32": (torch.float32, "fp32"),
    "float16": (torch.float16, "fp16"),
}

for kind, (dtype, name) in KINDS.items():
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    for hidden in (64, 96, 256):
        for batch in (64, 4096):
            for kernel, pointers in POINTERS.items():
                chosen = kernels.constants(batch, hidden, dtype, False)
                signature = {**dict.fromkeys(pointers, f"*{name}"), "batch": "i32", "steps": "i32"}
                source = ASTSource(
                    kernel,
                    signature | dict.fromkeys(chosen, "constexpr"),
                    constexprs=chosen,
                    attrs={(place,): [["tt.divisibility", 16]] for place in range(len(pointers))},
                )
                options = {"num_warps": kernels.WARPS, "num_stages": 1}
                made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
                with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                    file.write(made.asm["cubin"])
                    file.flush()
                    command = [
                        triton.knobs.nvidia.cuobjdump.path,
                        "--dump-resource-usage",
                        file.name,
                    ]
                    used = subprocess.run(
                        command, capture_output=True, text=True, check=True
                    ).stdout
                stack = used.split("STACK:")[1].split()[0]
                tensor_cores = "wgmma.mma_async" in made.asm["ptx"]
                print(
                    kind,
                    hidden,
                    batch,
                    kernel.__name__,
                    chosen["KEPT"],
                    tensor_cores,
                    made.metadata.shared,
                    stack,
                )
