"""``python -m keras_l0``, the same as the command ``keras-l0``."""

from keras_l0.cli import main

if __name__ == "__main__":
    main(prog_name="keras-l0")
