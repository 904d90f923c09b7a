"""Networks and operators on arrays, one a file, with settings in ``config``.

Tensors only: nothing here knows AnnData, files or users.
"""
