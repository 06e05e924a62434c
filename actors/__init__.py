"""The kinds of actor that a data distribution server is made of, generic in the item.

Each file holds one kind and the small Protocol that it drives. The daemon, which knows the data, implements
the Protocols. Nothing here knows what a trade or an exchange is.
"""
