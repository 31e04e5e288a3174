"""Bytes that pass through: console streams, uploads, and whatever is carried rather than answered."""
