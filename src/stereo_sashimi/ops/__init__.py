"""S4 mathematics as pure functions, tensors in and tensors out; `s4_response.py` is the file to read first."""
