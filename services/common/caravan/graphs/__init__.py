"""Other people's models: read, checked and run. It needs TensorFlow or ONNX Runtime.

The trial of a model and the model server use the same code: what passes the one is served by the other.
"""
