"""Audio folders as data: files (`split`), clips (`dataset`), epochs (`sampler`), Lightning (`datamodule`).

`prepare` and its neighbours make such folders from MUSDB. Import from the modules: preparing needs no Lightning.
"""
