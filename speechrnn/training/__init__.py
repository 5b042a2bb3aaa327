"""How a model is made: frames, batches, augmentation, loss, and a run from recipe to folder."""
