"""Texts to token ids, with the checkpoint's tokenizer."""
