"""Every layer and operation of Keras that has a rule, by its class."""

from memest.sources.importers.keras.layers import activation, convolution, merging, normalization, pooling, shaping

HANDLERS = {
    **activation.HANDLERS,
    **convolution.HANDLERS,
    **merging.HANDLERS,
    **normalization.HANDLERS,
    **pooling.HANDLERS,
    **shaping.HANDLERS,
}
OPERATIONS = merging.OPERATIONS
