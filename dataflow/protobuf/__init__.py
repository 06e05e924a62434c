"""The messages of gRPC and of ticks by TCP: the `.proto` files, and what `make proto` generates from them.

Rules of this file: none is imported here, for they need the library `protobuf`, which only some users have.
"""
