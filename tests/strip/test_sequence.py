"""Sequence layers: what may go from recurrences, attention and embeddings."""

from models import CASES

before = set(CASES)

SEQUENCE = [name for name in CASES if name not in before]
