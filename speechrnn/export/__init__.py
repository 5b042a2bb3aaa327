"""A model as a file that runs elsewhere, held to the network that it was made from."""
