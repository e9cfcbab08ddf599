"""Core library of engramctl: sparse language models with experts and lookup memory, trained and measured."""
