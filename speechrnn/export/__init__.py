"""Models as other worlds run them: each format in a room of its own, held to the NumPy network."""
