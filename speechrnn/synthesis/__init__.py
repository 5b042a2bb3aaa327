"""Speech from text: words and sentences rendered by a synthesiser, each word checked by another."""
