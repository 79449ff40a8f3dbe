"""What can be removed from a model, and why not: `plan` and what `strip` acts on."""
