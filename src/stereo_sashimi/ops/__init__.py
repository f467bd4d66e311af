"""S4 mathematics as pure functions, tensors in and tensors out; `ssm.py` is the file to read first."""
