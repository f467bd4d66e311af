"""Sashimi (the backbone) and LanguageModel (embedding, backbone, head), and the files that hold them."""
