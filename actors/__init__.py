"""The kinds of actor that a data distribution server is made of, generic in the item.

Each file holds one kind and the small Protocol that it drives; whoever knows the data implements
it. Nothing here knows what a trade or an exchange is.
"""
