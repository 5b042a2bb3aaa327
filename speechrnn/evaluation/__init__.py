"""How good a model is: measured on clips and in streams, as plain data, then as text and pages."""
