"""How far back can a sequence model remember? The echo task, solved and measured."""

__version__ = "0.1.0"
