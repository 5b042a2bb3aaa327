"""How far two computations of the same thing may be apart, and why."""

# Logits, whole against chunked, as a share of the largest: float32 sums in another order.
CHUNKS = 1e-5
# Logits and states against the golden vectors, as a share of the largest logit. The FFT of MKL,
# which torch uses, rounds more than NumPy's: in empty mel bands of a pure tone that shows.
# int8 weights are other weights: each is up to 1/254 of its row's largest away. JavaScript computes
# in float64, so that only the vectors' own rounding to float32 is left.
RUNTIMES = {"numpy": 2e-5, "torch": 1e-4, "onnx": 1e-4, "onnx int8": 0.1, "javascript": 1e-6}
PROBABILITY = 1e-3  # of a word, from logits that are as far apart as RUNTIMES allow
# States and gradients of a recurrence against the reference loop, relative and absolute.
BACKENDS = {
    "float64": 1e-10,  # the same sums in another order
    "float32": 1e-4,  # the error of a sum of H products, carried through T steps and back
    "tf32": 1e-2,  # factors of 10 bits, 5e-4 apart, in every product; not yet seen on a GPU
    "float16": 1e-2,  # states of 11 bits, 5e-4 apart; small shapes give 2e-3
    "bfloat16": 6e-2,  # states of 8 bits, 4e-3 apart
}
# MFCC against librosa and torchaudio: values reach 90, and in empty bands the rounding of float32
# FFTs shows.
LIBRARIES = 1e-3
GOLDEN = 1e-3  # MFCC against the file: another FFT library or processor
TRAINING = 1e-4  # metrics of two processes against one: gradients are averaged in another order
# Log mel through exp and log in float32: the logarithm of the floor, 14, times its rounding of
# 6e-8, a few times.
LOG_POWER = 1e-5
HALF = 0.004  # log mel in float16: between 8 and 16 its numbers are 0.0078 apart
# Norms of gradients against autograd: float32 products with W_hh, carried back through up to 100
# steps.
GRADIENTS = 1e-4
