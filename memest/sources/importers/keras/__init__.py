"""Keras 3 networks as data: the configuration in a ``.keras`` archive, or of ``to_json``. Nothing is executed, no weight is read."""
