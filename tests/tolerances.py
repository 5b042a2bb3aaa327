"""How far two computations of the same thing may be apart, and why."""

CHUNKS = 1e-5  # logits, whole against chunked: contract 1 of the design; float32 sums in another order give about 2e-6
BACKENDS = {  # states and gradients of a recurrence against the reference loop, relative and absolute
    "float64": 1e-10,  # the same sums in another order
    "float32": 1e-4,  # relative error of a sum of H products, carried through T steps and back
    "tf32": 1e-2,  # factors of 10 bits, 5e-4 apart, in every product; not yet seen on a GPU
    "float16": 1e-2,  # states of 11 bits, 5e-4 apart; small shapes give 2e-3
    "bfloat16": 6e-2,  # states of 8 bits, 4e-3 apart
}
LIBRARIES = 1e-3  # MFCC against librosa and torchaudio: values reach 90, and in empty bands the rounding of float32 FFTs shows
GOLDEN = 1e-3  # MFCC against the file: another FFT library or processor
TRAINING = 1e-4  # metrics of two processes against one: gradients are averaged in another order
LOG_POWER = (
    1e-5  # log mel through exp and log in float32: the logarithm of the floor, 14, times its rounding of 6e-8, a few times
)
HALF = 0.004  # log mel in float16: between 8 and 16 its numbers are 0.0078 apart
GRADIENTS = 1e-4  # norms of gradients against autograd: float32 products with W_hh, carried back through up to 100 steps
