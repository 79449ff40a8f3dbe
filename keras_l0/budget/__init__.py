"""Budgets: how small a model is to be, and the model that trains to it.

`definition` says what a budget is, `constraints` what it asks of one model, `closing`
which gates to close so that it fits, `model` trains to it, for which `course` says when
what is done, `prices` what gates pay and `pace` how fast they learn; `making` puts a
gated model under it, and `fitting` is what `strip` does.
"""

from keras_l0.budget.definition import WEIGHT_BYTES, Budget, as_budgets

__all__ = ["WEIGHT_BYTES", "Budget", "as_budgets"]
