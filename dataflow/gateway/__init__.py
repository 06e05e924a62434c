"""The hall that all faces share: who may come in, whose turn it is, where live and past meet."""
